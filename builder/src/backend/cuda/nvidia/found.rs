//! What there is: the driver's library, its version, its devices.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int};

use cudarc::driver::sys;
use sys::CUdevice_attribute as Attribute;

use super::super::driver::{DriverError, Facts};
use super::calls;
use super::said::check;

/// The oldest driver that takes the PTX of the images (CUDA 12.0), as the driver numbers versions; and the name users know it by.
const OLDEST_DRIVER: c_int = 12_000;
const OLDEST_DRIVER_NAME: &str = "525";
/// The oldest chips that images are built for.
const OLDEST_CAPABILITY: (u32, u32) = (7, 5);

/// Finds the library and starts it; its version, 1000 * major + 10 * minor.
pub(super) fn load_driver() -> Result<c_int, DriverError> {
    // SAFETY: opens a library of the system by its usual names, which runs its initializers; the driver's are made for that.
    if !unsafe { sys::is_culib_present() } {
        return Err(DriverError::Unavailable(format!(
            "libcuda.so not found: install the NVIDIA driver {OLDEST_DRIVER_NAME} or newer; or use --device cpu"
        )));
    }
    let mut version = 0;
    // SAFETY: `version` is a place for the answer; this call may come before cuInit.
    let said = unsafe { calls::cuDriverGetVersion(&mut version) };
    check(said, 0, format_args!("asking for the driver's version")).map_err(unavailable)?;
    check_version(version)?;
    // SAFETY: may be called at any time and more than once.
    check(unsafe { calls::cuInit(0) }, 0, format_args!("starting the driver")).map_err(unavailable)?;
    Ok(version)
}

fn check_version(version: c_int) -> Result<(), DriverError> {
    if version >= OLDEST_DRIVER {
        return Ok(());
    }
    Err(DriverError::Unavailable(format!(
        "the NVIDIA driver serves CUDA {}, kernels need {}: install driver {OLDEST_DRIVER_NAME} or newer; or use --device cpu",
        version_text(version),
        version_text(OLDEST_DRIVER)
    )))
}

fn version_text(version: c_int) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

pub(super) fn device_count() -> Result<c_int, DriverError> {
    let mut count = 0;
    // SAFETY: `count` is a place for the answer.
    check(unsafe { calls::cuDeviceGetCount(&mut count) }, 0, format_args!("counting devices")).map_err(unavailable)?;
    if count == 0 {
        return Err(DriverError::Unavailable("the NVIDIA driver shows no device to this process; use --device cpu".to_owned()));
    }
    Ok(count)
}

/// What device `ordinal` is, but for what is free, which takes a context to know.
pub(super) fn facts_of(ordinal: c_int, version: c_int) -> Result<Facts, DriverError> {
    ask(ordinal, version).map_err(unavailable)
}

fn ask(ordinal: c_int, version: c_int) -> Result<Facts, DriverError> {
    let device = device(ordinal)?;
    let mut name = [0_u8; 128];
    // SAFETY: the driver writes at most 127 bytes and a zero; the last byte of `name` is one besides.
    let said = unsafe { calls::cuDeviceGetName(name.as_mut_ptr().cast(), 127, device) };
    check(said, 0, format_args!("asking for the name of cuda:{ordinal}"))?;
    let mut memory_bytes = 0;
    // SAFETY: `memory_bytes` is a place for the answer.
    let said = unsafe { calls::cuDeviceTotalMem_v2(&mut memory_bytes, device) };
    check(said, 0, format_args!("asking for the memory of cuda:{ordinal}"))?;
    let number = |which: Attribute| {
        let mut value = 0;
        // SAFETY: `value` is a place for the answer.
        let said = unsafe { calls::cuDeviceGetAttribute(&mut value, which, device) };
        check(said, 0, format_args!("asking what cuda:{ordinal} is")).map(|()| u32::try_from(value).unwrap_or(0))
    };
    Ok(Facts {
        name: CStr::from_bytes_until_nul(&name).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        driver: version_text(version),
        capability: (
            number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        memory_bytes: memory_bytes as u64,
        free_bytes: 0,
        shared_bytes: number(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        multiprocessors: number(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
    })
}

/// Whether kernels are built for such a chip.
///
/// # Errors
/// `Unavailable` for one that is too old.
pub fn check_capability(facts: &Facts) -> Result<(), DriverError> {
    let ((major, minor), (from_major, from_minor)) = (facts.capability, OLDEST_CAPABILITY);
    if facts.capability >= OLDEST_CAPABILITY {
        return Ok(());
    }
    Err(DriverError::Unavailable(format!(
        "{} has compute capability {major}.{minor}; kernels need {from_major}.{from_minor} or newer: choose another device, or use --device cpu",
        facts.name
    )))
}

/// Any error, when it keeps a device from being opened.
pub(super) fn unavailable(error: DriverError) -> DriverError {
    match error {
        DriverError::Unavailable(_) => error,
        other => DriverError::Unavailable(format!("{other}; see what nvidia-smi says, or use --device cpu")),
    }
}

pub(super) fn device(ordinal: c_int) -> Result<sys::CUdevice, DriverError> {
    let mut device = 0;
    // SAFETY: `device` is a place for the answer.
    check(unsafe { calls::cuDeviceGet(&mut device, ordinal) }, 0, format_args!("looking for cuda:{ordinal}"))?;
    Ok(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_driver_is_told_with_both_versions() {
        assert_eq!(version_text(12_040), "12.4");
        assert_eq!(version_text(13_000), "13.0");
        check_version(12_000).unwrap();
        check_version(13_010).unwrap();
        let text = check_version(11_080).unwrap_err().to_string();
        assert!(text.contains("11.8") && text.contains("12.0") && text.contains("525"), "{text}");
    }

    #[test]
    fn what_keeps_a_device_closed_is_unavailable_with_its_reason() {
        let told = unavailable(DriverError::OutOfMemory { asked: 5 });
        assert!(matches!(&told, DriverError::Unavailable(text) if text.contains("5 bytes") && text.contains("--device cpu")), "{told:?}");
        let same = DriverError::Unavailable("as it was".to_owned());
        assert_eq!(unavailable(same.clone()), same);
    }
}
