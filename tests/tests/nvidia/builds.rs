//! Whole builds where the device cannot serve: what is said, and that `auto` ends on the CPU with the same index.

use crate::played::{with_fake, without_libcuda};
use roxanne_builder::{BuildError, Builder, Device, Report, backend::BackendError};
use roxanne_core::{ErrorClass, metric::Metric};
use roxanne_tests::{contents, scratch, small};
use std::{collections::BTreeMap, path::Path};

fn builder(device: Device) -> Builder {
    Builder::new(Metric::L2).params(small()).threads(2).device(device).input("synth:n=500,dim=16,clusters=8").expect("a made-up dataset")
}

/// An index and its report.
fn built(device: Device, folder: &Path) -> (BTreeMap<String, Vec<u8>>, Report) {
    let path = folder.join(device.to_string());
    let report = builder(device).build(&path).expect("a built index");
    (contents(&path), report)
}

/// `auto` gives the CPU's index; what its report says of the backend, and what the CPU's says.
fn auto_like_the_cpu() -> (String, String) {
    let folder = scratch();
    let (auto, cpu) = (built(Device::Auto, folder.path()), built(Device::Cpu, folder.path()));
    assert!(auto.0 == cpu.0, "another index");
    (auto.1.backend, cpu.1.backend)
}

#[test]
fn a_build_that_does_not_fit_says_both_numbers() {
    // Half a GiB is left to others.
    with_fake(&[("FAKE_CUDA_FREE_BYTES", "537919488")], || {
        let folder = scratch();
        let least = builder(Device::Cuda(0)).plan().unwrap().on_device.least_bytes;
        let error = builder(Device::Cuda(0)).build(folder.path().join("index")).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Budget);
        assert!(
            matches!(&error, BuildError::Budget { what: "device memory", needed, allowed: 1_048_576 } if *needed == least),
            "{error:?}"
        );
        assert_eq!(contents(folder.path()).len(), 0);
        let (auto, cpu) = auto_like_the_cpu();
        assert_eq!(auto, cpu);
    });
}

#[test]
fn a_build_on_a_device_that_is_not_there_is_unavailable() {
    with_fake(&[], || {
        let folder = scratch();
        match builder(Device::Cuda(7)).build(folder.path().join("index")).unwrap_err() {
            BuildError::Backend(BackendError::Unavailable { device, detail }) => {
                assert!(device == "cuda:7" && detail.contains("cuda:0 (Fake 0)"), "{device}: {detail}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(contents(folder.path()).len(), 0);
    });
}

#[test]
fn a_device_that_is_lost_ends_its_build_with_the_reason() {
    with_fake(&[("FAKE_CUDA_LOST_AT_LAUNCH", "1")], || {
        let folder = scratch();
        let error = builder(Device::Cuda(0)).build(folder.path().join("index")).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Device);
        let told = error.to_string();
        assert!(told.contains("Fake 0") && told.contains("lost") && told.contains("CUDA_ERROR_ILLEGAL_ADDRESS"), "{told}");
        assert_eq!(contents(folder.path()).len(), 0);
    });
}

#[test]
fn auto_builds_on_the_cpu_when_the_device_is_lost_on_the_way_and_says_so() {
    with_fake(&[("FAKE_CUDA_LOST_AT_LAUNCH", "1")], || {
        let (auto, cpu) = auto_like_the_cpu();
        assert!(auto.starts_with(&format!("{cpu} after Fake 0: the device is lost")), "{auto}");
    });
}

#[test]
fn auto_builds_on_the_cpu_where_there_is_no_driver() {
    without_libcuda(|| {
        let (auto, cpu) = auto_like_the_cpu();
        assert_eq!(auto, cpu);
    });
}
