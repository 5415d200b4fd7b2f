//! What a build or an open index may use, and in which class an error falls: words that builder, engine and doors share.

/// Limits in bytes, planned for before work starts and refused up front. What is planned for: a build's largest phase; for an open index
/// codes, codebook, navigation graph and the scratch of a few searchers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Resident memory.
    pub ram: u64,
    /// Device memory.
    pub vram: u64,
    /// Space on disk.
    pub disk: u64,
}

impl Default for Budget {
    /// No limits.
    fn default() -> Budget {
        Budget { ram: u64::MAX, vram: u64::MAX, disk: u64::MAX }
    }
}

impl Budget {
    /// A limit on memory alone.
    pub fn ram(bytes: u64) -> Budget {
        Budget { ram: bytes, ..Budget::default() }
    }
}

/// What a door tells its caller about an error; the binary's exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// 2: called wrongly.
    Usage,
    /// 3: input that cannot be used.
    BadInput,
    /// 4: does not fit the budget.
    Budget,
    /// 5: a gate or a check said no.
    Gate,
    /// 6: damaged, or written by a newer version.
    Corrupt,
    /// 7: locked, or no space.
    Busy,
    /// 8: a device or service is not available.
    Device,
    /// 130: stopped on request.
    Interrupted,
}

impl ErrorClass {
    /// The class of what the operating system said.
    pub fn of_io(error: &std::io::Error) -> ErrorClass {
        use std::io::ErrorKind::{
            AlreadyExists, InvalidInput, IsADirectory, NotADirectory, NotFound, PermissionDenied, QuotaExceeded, ResourceBusy, StorageFull,
        };
        match error.kind() {
            StorageFull | QuotaExceeded | ResourceBusy => ErrorClass::Busy,
            AlreadyExists | InvalidInput | IsADirectory | NotADirectory | NotFound | PermissionDenied => ErrorClass::BadInput,
            _ => ErrorClass::Device,
        }
    }
}
