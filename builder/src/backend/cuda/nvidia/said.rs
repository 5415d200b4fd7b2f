//! What the driver says, as errors: memory that is short, a device that is lost, or a refusal, in the driver's own words.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};
use std::{fmt, ptr};

use super::super::driver::DriverError;
use super::calls;

/// What the driver said. `asked` is told when memory is short; `doing` begins the message else.
pub(super) fn check(said: u32, asked: u64, doing: fmt::Arguments<'_>) -> Result<(), DriverError> {
    if said == 0 { Ok(()) } else { Err(judge(said, &words_of(said), asked, doing)) }
}

/// The driver's own name and text for a code.
fn words_of(said: u32) -> String {
    let (mut name, mut text) = (ptr::null(), ptr::null());
    // SAFETY: both are places for answers, which stay null for a code that the driver does not know.
    unsafe {
        let _ = calls::cuGetErrorName(said, &mut name);
        let _ = calls::cuGetErrorString(said, &mut text);
    }
    let words = |from: *const c_char| match from.is_null() {
        true => "unknown to the driver itself".into(),
        // SAFETY: the driver answers with strings that end with a zero and live as long as it.
        false => unsafe { CStr::from_ptr(from) }.to_string_lossy(),
    };
    format!("{} ({said}), {}", words(name), words(text))
}

pub(super) fn judge(code: u32, words: &str, asked: u64, doing: fmt::Arguments<'_>) -> DriverError {
    const OUT_OF_MEMORY: u32 = 2;
    match code {
        // Without a size it was not memory of ours that there was too little of: no smaller batch mends that.
        OUT_OF_MEMORY if asked > 0 => DriverError::OutOfMemory { asked },
        _ if is_sticky(code) => DriverError::Lost(format!("{doing}: {words}")),
        _ => DriverError::Refused(format!("{doing}: {words}")),
    }
}

/// Whether the driver serves this process no more after an error, by the CUDA driver API's own account of each. Numbers, since some of
/// them are younger than the bindings.
fn is_sticky(code: u32) -> bool {
    match code {
        // Deinitialized; device unavailable.
        4 | 46 => true,
        // The context is not, or no more, one: somebody has reset the device.
        201 | 709 => true,
        // Uncorrectable memory or link errors; one that was contained.
        214 | 220 | 226 => true,
        // Illegal address, timeout, assertion.
        700 | 702 | 710 => true,
        // Stack, instruction, alignment, address space, program counter, launch failure; leaked tensor memory.
        714..=719 | 721 => true,
        // System not ready; the multi-process server gone or this client ended by it.
        802 | 806 | 807 | 810 => true,
        // A device outside of CUDA that work waited for; unknown.
        911 | 999 => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_memory_loss_or_refusal_and_keeps_the_drivers_words() {
        let lost = [4, 46, 201, 214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 802, 806, 807, 810, 911, 999];
        for code in 1..=1000 {
            match judge(code, "CUDA_ERROR_SO_AND_SO", 77, format_args!("launching it")) {
                DriverError::OutOfMemory { asked } => assert_eq!((code, asked), (2, 77)),
                DriverError::Lost(text) => {
                    assert!(lost.contains(&code), "{code}");
                    assert_eq!(text, "launching it: CUDA_ERROR_SO_AND_SO");
                }
                DriverError::Refused(text) => {
                    assert!(!lost.contains(&code) && code != 2, "{code}");
                    assert_eq!(text, "launching it: CUDA_ERROR_SO_AND_SO");
                }
                DriverError::Unavailable(text) => panic!("{code}: {text}"),
            }
        }
    }
}
