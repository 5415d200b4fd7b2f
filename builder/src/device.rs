//! Where a build computes: the choice, its name at the doors, and what each choice finds on this machine.

use crate::backend::BackendError;
use std::{fmt, str::FromStr};

/// `auto`, `cpu`, `cuda`, `cuda:1`, `wgpu`, `wgpu:1` or `wgpu:part of the adapter's name`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The first CUDA device where there is one with room for the build, else the CPU; and the CPU when the device fails on the way. wgpu is
    /// never chosen unasked: it has not been shown to be faster than the CPU it would replace.
    #[default]
    Auto,
    /// Here.
    Cpu,
    /// An NVIDIA GPU by number.
    Cuda(usize),
    /// A Vulkan, Metal or DX12 adapter by number or part of its name; the best one without either.
    Wgpu(Option<String>),
}

impl FromStr for Device {
    type Err = String;
    fn from_str(text: &str) -> Result<Device, String> {
        let (family, which) = text.split_once(':').map_or((text, None), |(family, which)| (family, Some(which)));
        match (family, which) {
            ("auto", None) => Ok(Device::Auto),
            ("cpu", None) => Ok(Device::Cpu),
            ("cuda", None) => Ok(Device::Cuda(0)),
            ("cuda", Some(index)) if index.parse::<u16>().is_ok() => Ok(Device::Cuda(index.parse().unwrap_or(0))),
            ("wgpu", None) => Ok(Device::Wgpu(None)),
            ("wgpu", Some(name)) if !name.is_empty() => Ok(Device::Wgpu(Some(name.to_string()))),
            _ => Err("write auto, cpu, cuda, cuda:1, wgpu, wgpu:1 or wgpu:part-of-its-name".into()),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Auto => f.write_str("auto"),
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(index) => write!(f, "cuda:{index}"),
            Device::Wgpu(None) => f.write_str("wgpu"),
            Device::Wgpu(Some(which)) => write!(f, "wgpu:{which}"),
        }
    }
}

/// A device that a build could compute on, or why one cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// How to ask for it.
    pub device: Device,
    /// What it is, for people.
    pub what: Result<String, String>,
    /// All its memory; 0 where the interface does not tell.
    pub memory_bytes: u64,
}

/// Looks for GPUs of both families; each family says at least why there is none.
pub fn probe() -> Vec<Found> {
    let mut found = cuda();
    found.extend(wgpu());
    found
}

#[cfg(feature = "cuda")]
fn cuda() -> Vec<Found> {
    use crate::backend::cuda::nvidia::{Nvidia, check_capability};
    match Nvidia::probe() {
        Ok(devices) => devices
            .into_iter()
            .enumerate()
            .map(|(index, facts)| Found {
                device: Device::Cuda(index),
                what: check_capability(&facts).map_err(|e| e.to_string()).map(|()| {
                    let (major, minor) = facts.capability;
                    format!("{}, compute capability {major}.{minor}, driver {}", facts.name, facts.driver)
                }),
                memory_bytes: facts.memory_bytes,
            })
            .collect(),
        Err(error) => vec![Found { device: Device::Cuda(0), what: Err(error.to_string()), memory_bytes: 0 }],
    }
}

#[cfg(not(feature = "cuda"))]
fn cuda() -> Vec<Found> {
    vec![Found { device: Device::Cuda(0), what: Err(WITHOUT.to_string()), memory_bytes: 0 }]
}

#[cfg(feature = "wgpu")]
fn wgpu() -> Vec<Found> {
    let adapters = crate::backend::wgpu::device::adapters();
    if adapters.is_empty() {
        let why = "no Vulkan, Metal or DX12 adapter: install the GPU's driver (mesa-vulkan-drivers brings one that computes on the CPU)";
        return vec![Found { device: Device::Wgpu(None), what: Err(why.to_string()), memory_bytes: 0 }];
    }
    let found = |(index, facts): (usize, crate::backend::wgpu::device::AdapterFacts)| Found {
        device: Device::Wgpu(Some(index.to_string())),
        what: Ok(facts.to_string()),
        memory_bytes: 0,
    };
    adapters.into_iter().enumerate().map(found).collect()
}

#[cfg(not(feature = "wgpu"))]
fn wgpu() -> Vec<Found> {
    vec![Found { device: Device::Wgpu(None), what: Err(WITHOUT.to_string()), memory_bytes: 0 }]
}

/// What a binary without a family says of it.
#[cfg(not(all(feature = "cuda", feature = "wgpu")))]
pub(crate) const WITHOUT: &str = "this binary was built without it";

/// The error of a device that cannot be had.
pub(crate) fn unavailable(device: &Device, detail: impl fmt::Display) -> BackendError {
    BackendError::Unavailable { device: device.to_string(), detail: detail.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_written_as_it_is_read() {
        for text in ["auto", "cpu", "cuda:0", "cuda:3", "wgpu", "wgpu:1", "wgpu:llvmpipe"] {
            assert_eq!(text.parse::<Device>().unwrap().to_string(), text);
        }
        assert_eq!("cuda".parse(), Ok(Device::Cuda(0)));
        for text in ["", "gpu", "cpu:1", "cuda:", "cuda:x", "cuda:-1", "wgpu:", "auto:0"] {
            assert!(text.parse::<Device>().unwrap_err().contains("cuda:1"), "{text}");
        }
    }

    #[test]
    fn every_family_answers() {
        let found = probe();
        assert!(found.iter().any(|f| matches!(f.device, Device::Cuda(_))) && found.iter().any(|f| matches!(f.device, Device::Wgpu(_))));
        assert!(found.iter().all(|f| f.what.as_ref().err().is_none_or(|why| why.len() > 10)));
    }
}
