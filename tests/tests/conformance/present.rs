//! Which backends this machine has, and what is said of the others.

use roxanne_builder::backend::{
    cpu::Cpu,
    cuda::{
        Cuda,
        driver::{Address, Driver, DriverError, Facts, Launch, Ticket},
        nvidia::Nvidia,
    },
    wgpu::Wgpu,
};
use roxanne_core::simd::SimdLevel;
use std::sync::Arc;

/// Runs `judge` on a backend that is there; says why one is not.
pub(crate) fn present<B>(label: &str, opened: Result<B, String>, judge: impl FnOnce(B)) {
    match opened {
        Ok(backend) => judge(backend),
        Err(reason) => {
            println!("SKIPPED {label}: {reason}");
            let required = std::env::var("REQUIRE_BACKENDS").unwrap_or_default();
            assert!(!is_required(label, &required), "{label} is required: {reason}");
        }
    }
}

/// Whether REQUIRE_BACKENDS, a list with commas, asks for `label`. A SIMD level that this processor lacks cannot be required; `cpu` is
/// always there at one.
fn is_required(label: &str, required: &str) -> bool {
    label != "cpu" && required.split(',').any(|name| name.trim() == label)
}

#[test]
fn a_required_backend_that_is_absent_is_a_failure_and_another_is_not() {
    for (label, required, expected) in [
        ("cuda", "cpu,cuda", true),
        ("cuda", "wgpu, cuda", true),
        ("cuda", "cuda-host", false),
        ("cuda-host", "cpu,cuda", false),
        ("wgpu", "", false),
        ("cpu", "cpu", false),
    ] {
        assert_eq!(is_required(label, required), expected, "{label} in {required:?}");
    }
    let absent = || present("cuda", Err::<(), _>("not here".to_owned()), |()| {});
    let fails = std::panic::catch_unwind(absent).is_err();
    assert_eq!(fails, is_required("cuda", &std::env::var("REQUIRE_BACKENDS").unwrap_or_default()));
}

pub(crate) fn cpu(level: &str) -> Result<Cpu, String> {
    let found = SimdLevel::available().into_iter().find(|l| l.name() == level);
    found.map(Cpu::at_level).ok_or_else(|| format!("this processor has no {level}"))
}

pub(crate) fn wgpu() -> Result<Wgpu, String> {
    Wgpu::open(None, Cpu::default()).map_err(|e| e.to_string())
}

pub(crate) fn cuda() -> Result<Cuda, String> {
    let device = Nvidia::open(0).map_err(|e| e.to_string())?;
    // Tests may run side by side.
    let bytes = (device.facts().free_bytes / 10).min(8 << 30);
    let driver = Arc::new(Poisoned(device));
    // For compute-sanitizer, which sees the ends of what the driver gave.
    let apart = std::env::var("ROXANNE_CASES").is_ok_and(|cases| cases == "small");
    let opened = if apart { Cuda::with_buffers_apart(driver, bytes) } else { Cuda::new(driver, bytes) };
    opened.map_err(|e| e.to_string())
}

/// A driver whose memory begins as garbage.
#[derive(Debug)]
struct Poisoned<D>(D);

impl<D: Driver> Driver for Poisoned<D> {
    fn facts(&self) -> &Facts {
        self.0.facts()
    }
    fn take(&self, bytes: u64) -> Result<Address, DriverError> {
        let at = self.0.take(bytes)?;
        self.0.fill(at, bytes, 0xA5)?;
        Ok(at)
    }
    fn give(&self, at: Address) {
        self.0.give(at);
    }
    fn upload(&self, to: Address, from: &[u8]) -> Result<(), DriverError> {
        self.0.upload(to, from)
    }
    fn download(&self, from: Address, to: &mut [u8]) -> Result<(), DriverError> {
        self.0.download(from, to)
    }
    fn slot_bytes(&self) -> usize {
        self.0.slot_bytes()
    }
    fn start_download(&self, from: Address, bytes: usize) -> Result<Ticket, DriverError> {
        self.0.start_download(from, bytes)
    }
    fn finish_download(&self, ticket: Ticket, to: &mut [u8]) -> Result<(), DriverError> {
        self.0.finish_download(ticket, to)
    }
    fn fill(&self, at: Address, bytes: u64, byte: u8) -> Result<(), DriverError> {
        self.0.fill(at, bytes, byte)
    }
    fn copy(&self, to: Address, from: Address, bytes: u64) -> Result<(), DriverError> {
        self.0.copy(to, from, bytes)
    }
    fn launch(&self, launch: &Launch<'_>) -> Result<(), DriverError> {
        self.0.launch(launch)
    }
    fn synchronize(&self) -> Result<(), DriverError> {
        self.0.synchronize()
    }
}
