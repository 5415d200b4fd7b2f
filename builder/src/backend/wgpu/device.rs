//! Adapters, and one of them opened: what `--device wgpu[:adapter]` names.
//!
//! Nothing here panics: what wgpu reports through scopes, callbacks and its own panics (a device lost while it is waited for) becomes a
//! [`GpuError`]. A lost device stays lost; whoever owns the build goes on elsewhere.

use super::launch::Pipelines;
use ::wgpu::{
    Adapter, Backend, Backends, Device, DeviceDescriptor, DeviceType, Error, ErrorFilter, Instance, InstanceDescriptor, InstanceFlags,
    Limits, Queue,
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Why a device gave no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GpuError {
    /// No adapter, or not the one that was asked for; says what there is and how to mend it.
    #[error("{0}")]
    Unavailable(String),
    /// The device is gone: pulled, reset, or its driver gave up.
    #[error("the device is lost: {0}; what it was computing can be computed again elsewhere")]
    Lost(String),
    /// Not even the smallest batch fits.
    #[error("the device is out of memory for the smallest batch; close what else uses it, or build with another device")]
    OutOfMemory,
    /// A refusal that more memory or another device may not mend.
    #[error("{0}")]
    Other(String),
}

/// What kind of machine an adapter is, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdapterKind {
    /// A card with memory of its own.
    Discrete,
    /// Shares the processor's memory.
    Integrated,
    /// A part of a card, lent to a virtual machine.
    Virtual,
    /// Not known: the driver does not say.
    Unknown,
    /// Software, such as lavapipe.
    Cpu,
}

impl std::fmt::Display for AdapterKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            AdapterKind::Discrete => "discrete",
            AdapterKind::Integrated => "integrated",
            AdapterKind::Virtual => "virtual",
            AdapterKind::Unknown => "unknown",
            AdapterKind::Cpu => "cpu",
        })
    }
}

/// What is known of an adapter before it is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterFacts {
    /// As its driver calls it.
    pub name: String,
    /// The interface: vulkan, metal or dx12.
    pub backend: &'static str,
    /// See [`AdapterKind`].
    pub kind: AdapterKind,
    /// The driver's name and version.
    pub driver: String,
}

impl AdapterFacts {
    fn of(adapter: &Adapter) -> AdapterFacts {
        let about = adapter.get_info();
        let kind = match about.device_type {
            DeviceType::DiscreteGpu => AdapterKind::Discrete,
            DeviceType::IntegratedGpu => AdapterKind::Integrated,
            DeviceType::VirtualGpu => AdapterKind::Virtual,
            DeviceType::Cpu => AdapterKind::Cpu,
            DeviceType::Other => AdapterKind::Unknown,
        };
        let backend = match about.backend {
            Backend::Vulkan => "vulkan",
            Backend::Metal => "metal",
            Backend::Dx12 => "dx12",
            _ => "other",
        };
        let driver = format!("{} {}", about.driver, about.driver_info).trim().to_string();
        AdapterFacts { name: about.name, backend, kind, driver }
    }
}

impl std::fmt::Display for AdapterFacts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}, {}, {})", self.name, self.backend, self.kind, self.driver)
    }
}

/// All adapters of this machine, in the order that their index numbers mean.
pub fn adapters() -> Vec<AdapterFacts> {
    listed().iter().map(AdapterFacts::of).collect()
}

fn listed() -> Vec<Adapter> {
    let mut desired = InstanceDescriptor::new_without_display_handle();
    desired.backends = Backends::VULKAN | Backends::METAL | Backends::DX12;
    desired.flags = InstanceFlags::empty();
    // A driver that panics while it is looked for is one that is not there.
    let look = || pollster::block_on(Instance::new(desired).enumerate_adapters(Backends::all()));
    catch_unwind(AssertUnwindSafe(look)).unwrap_or_default()
}

/// The index of the adapter that `wanted` means: `None` the best, else an index number, `cpu`, or a part of a name.
fn choose(facts: &[AdapterFacts], wanted: Option<&str>) -> Result<usize, GpuError> {
    if facts.is_empty() {
        return Err(GpuError::Unavailable(
            "no Vulkan, Metal or DirectX 12 adapter on this machine; install the driver of its graphics card, or a software one \
             (Debian and Ubuntu: mesa-vulkan-drivers and libvulkan1)"
                .into(),
        ));
    }
    let best = |fits: &dyn Fn(&AdapterFacts) -> bool| (0..facts.len()).filter(|&i| fits(&facts[i])).min_by_key(|&i| (facts[i].kind, i));
    let found = match wanted {
        None => best(&|_| true),
        Some(text) => match text.parse::<usize>() {
            Ok(index) => (index < facts.len()).then_some(index),
            Err(_) if text.eq_ignore_ascii_case("cpu") => best(&|f| f.kind == AdapterKind::Cpu),
            Err(_) => best(&|f| f.name.to_lowercase().contains(&text.to_lowercase())),
        },
    };
    found.ok_or_else(|| {
        let list: Vec<String> = facts.iter().enumerate().map(|(i, f)| format!("{i}: {f}")).collect();
        let wanted = wanted.unwrap_or_default();
        GpuError::Unavailable(format!("no adapter \"{wanted}\"; name one by its number or a part of its name: {}", list.join("; ")))
    })
}

/// What callbacks of the device leave behind.
#[derive(Default)]
struct Troubles {
    lost: Option<String>,
    uncaptured: Option<GpuError>,
}

/// An opened adapter. Its stages may be called from several threads.
pub struct Gpu {
    facts: AdapterFacts,
    pub(super) device: Device,
    pub(super) queue: Queue,
    pub(super) pipelines: Pipelines,
    /// Most bytes that one buffer may have.
    pub(super) buffer_limit: u64,
    /// Bytes that a batch aims at; halved while the device is out of memory.
    pub(super) batch_bytes: u64,
    /// Most bytes that the buffers of one batch may take together.
    pub(super) room: u64,
    troubles: Arc<Mutex<Troubles>>,
}

impl Gpu {
    /// Opens the best adapter (discrete before integrated, virtual and cpu), or the one that `wanted` names: an index of [`adapters`], a
    /// part of a name in any case, or `cpu` for a software one.
    ///
    /// # Errors
    /// [`GpuError::Unavailable`], with what there is.
    pub fn open(wanted: Option<&str>) -> Result<Gpu, GpuError> {
        let listed = listed();
        let facts: Vec<AdapterFacts> = listed.iter().map(AdapterFacts::of).collect();
        let index = choose(&facts, wanted)?;
        let (adapter, facts) = (&listed[index], facts[index].clone());
        // The shaders keep to WebGPU's default limits; only buffers may be larger where the device allows it, so that rows stay there.
        let largest = adapter.limits();
        let buffer_limit = largest.max_storage_buffer_binding_size.min(largest.max_buffer_size);
        let required_limits = Limits {
            max_storage_buffer_binding_size: largest.max_storage_buffer_binding_size,
            max_buffer_size: largest.max_buffer_size,
            ..Limits::default()
        };
        let desired = DeviceDescriptor { label: Some("roxanne"), required_limits, ..Default::default() };
        let (device, queue) = pollster::block_on(adapter.request_device(&desired))
            .map_err(|e| GpuError::Unavailable(format!("{facts} cannot be opened: {e}; update its driver, or choose another adapter")))?;
        let troubles = Arc::new(Mutex::new(Troubles::default()));
        let at_loss = troubles.clone();
        device.set_device_lost_callback(move |reason, message| {
            locked(&at_loss).lost.get_or_insert_with(|| format!("{reason:?} {message}"));
        });
        let at_error = troubles.clone();
        device.on_uncaptured_error(Arc::new(move |error| {
            locked(&at_error).uncaptured.get_or_insert_with(|| as_gpu_error(&error));
        }));
        const BATCH_BYTES: u64 = 64 << 20;
        Ok(Gpu { facts, device, queue, pipelines: Pipelines::default(), buffer_limit, batch_bytes: BATCH_BYTES, room: u64::MAX, troubles })
    }

    /// What was opened.
    pub fn facts(&self) -> &AdapterFacts {
        &self.facts
    }

    /// Whether the device is gone for good.
    pub fn is_lost(&self) -> bool {
        locked(&self.troubles).lost.is_some()
    }

    /// Loses the device, as a pulled card would: for tests of what comes after.
    pub fn destroy(&self) {
        self.mark_lost("it was destroyed on request");
        self.device.destroy();
    }

    fn mark_lost(&self, why: &str) {
        locked(&self.troubles).lost.get_or_insert_with(|| why.to_string());
    }

    /// Fails with what the callbacks have left.
    pub(super) fn check(&self) -> Result<(), GpuError> {
        let mut troubles = locked(&self.troubles);
        if let Some(why) = &troubles.lost {
            return Err(GpuError::Lost(why.clone()));
        }
        troubles.uncaptured.take().map_or(Ok(()), Err)
    }

    /// Runs `work`, which makes or queues things on the device, and fails with the first of its errors.
    pub(super) fn guarded<T>(&self, work: impl FnOnce() -> T) -> Result<T, GpuError> {
        self.check()?;
        let scopes = [ErrorFilter::OutOfMemory, ErrorFilter::Internal, ErrorFilter::Validation].map(|f| self.device.push_error_scope(f));
        let result = catch_unwind(AssertUnwindSafe(work));
        let errors: Vec<Error> = scopes.into_iter().rev().filter_map(|scope| pollster::block_on(scope.pop())).collect();
        // What follows from a failed allocation is reported as well, as invalid: the cause comes first.
        self.check()?;
        let errors: Vec<GpuError> = errors.iter().map(as_gpu_error).collect();
        if errors.contains(&GpuError::OutOfMemory) {
            return Err(GpuError::OutOfMemory);
        }
        match (errors.into_iter().next(), result) {
            (Some(error), _) => Err(error),
            (None, Ok(result)) => Ok(result),
            (None, Err(_)) => Err(GpuError::Other(format!("{}: its driver panicked", self.facts))),
        }
    }

    /// Waits until `submission` is done and its callbacks have run.
    pub(super) fn wait(&self, submission: ::wgpu::SubmissionIndex) -> Result<(), GpuError> {
        self.check()?;
        let wait = ::wgpu::PollType::Wait { submission_index: Some(submission), timeout: None };
        // wgpu panics when the device is lost in the middle of this wait.
        let waited = catch_unwind(AssertUnwindSafe(|| self.device.poll(wait)));
        if waited.is_err() {
            self.mark_lost("its driver gave up while it was waited for");
        }
        self.check()?;
        match waited {
            Ok(Err(error)) => Err(GpuError::Other(format!("{}: {error}", self.facts))),
            _ => Ok(()),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn as_gpu_error(error: &Error) -> GpuError {
    match error {
        Error::OutOfMemory { .. } => GpuError::OutOfMemory,
        Error::Validation { description, .. } | Error::Internal { description, .. } => GpuError::Other(format!("wgpu: {description}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(name: &str, kind: AdapterKind) -> AdapterFacts {
        AdapterFacts { name: name.into(), backend: "vulkan", kind, driver: "1".into() }
    }

    #[test]
    fn the_best_adapter_is_taken_unless_one_is_named() {
        let list = [
            facts("llvmpipe", AdapterKind::Cpu),
            facts("Iris", AdapterKind::Integrated),
            facts("Arc A770", AdapterKind::Discrete),
            facts("Arc A380", AdapterKind::Discrete),
        ];
        for (wanted, found) in [(None, 2), (Some("1"), 1), (Some("cpu"), 0), (Some("CPU"), 0), (Some("a380"), 3), (Some("arc"), 2)] {
            assert_eq!(choose(&list, wanted), Ok(found), "{wanted:?}");
        }
    }

    #[test]
    fn what_there_is_stands_in_the_error() {
        let list = [facts("Iris", AdapterKind::Integrated)];
        for wanted in ["7", "nvidia", "cpu"] {
            let error = choose(&list, Some(wanted)).unwrap_err().to_string();
            assert!(error.contains(wanted) && error.contains("0: Iris (vulkan, integrated, 1)"), "{error}");
        }
        assert!(choose(&[], None).unwrap_err().to_string().contains("mesa-vulkan-drivers"));
        assert!(matches!(Gpu::open(Some("no such adapter")), Err(GpuError::Unavailable(_))));
    }
}
