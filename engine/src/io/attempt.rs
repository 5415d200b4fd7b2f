//! One page read, until it has ended: what to do after each answer of the kernel. Both readers follow these rules.
//!
//! A short answer asks for the rest; an answer that brings nothing new is the end of the file; an interruption is asked again; an
//! error of the device is asked again once, because drives do recover a sector at the second attempt, and then told.

use super::{PageFile, ReadError};
use rustix::io::Errno;

/// Direct reads start at multiples of this many bytes.
pub(crate) const SECTOR_BYTES: usize = 4096;
/// Interruptions of one page read that are taken for chance. More is a system that will never answer, and must not become a hang.
const MAX_INTERRUPTIONS: u16 = 1000;

/// How far the read of one page has come.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Attempt {
    filled_bytes: usize,
    device_failed: bool,
    interruptions: u16,
}

/// What follows an answer that was no error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The page is complete.
    Ended,
    /// Ask again, from `Attempt::start`.
    Again,
}

impl Attempt {
    /// Where in the page the next request begins. After a short answer this may lie before its end, since a direct read cannot start
    /// within a sector.
    pub(crate) fn start(&self) -> usize {
        self.filled_bytes / SECTOR_BYTES * SECTOR_BYTES
    }

    /// Takes the kernel's answer to a request from `start()` to the end of the page: bytes read, or the number of an error.
    pub(crate) fn after(&mut self, answer: Result<usize, i32>, file: &PageFile, page: u64) -> Result<Next, ReadError> {
        match answer {
            Ok(bytes) => {
                let reached = self.start() + bytes;
                if reached <= self.filled_bytes {
                    return Err(file.unexpected_end(page, self.filled_bytes));
                }
                self.filled_bytes = reached;
                Ok(if reached >= file.page_bytes() { Next::Ended } else { Next::Again })
            }
            Err(errno) if errno == Errno::INTR.raw_os_error() || errno == Errno::AGAIN.raw_os_error() => {
                self.interruptions += 1;
                if self.interruptions > MAX_INTERRUPTIONS { Err(file.device_error(page, errno)) } else { Ok(Next::Again) }
            }
            Err(errno) if errno == Errno::IO.raw_os_error() && !self.device_failed => {
                self.device_failed = true;
                Ok(Next::Again)
            }
            Err(errno) => Err(file.device_error(page, errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EIO: i32 = 5;
    const EINTR: i32 = 4;

    fn pages_of_8_kib() -> PageFile {
        PageFile::unchecked("/dev/null", 8192, 2)
    }

    #[test]
    fn a_short_answer_asks_for_the_rest_from_a_sector() {
        let (file, mut attempt) = (pages_of_8_kib(), Attempt::default());
        assert_eq!(attempt.after(Ok(5000), &file, 0), Ok(Next::Again));
        assert_eq!(attempt.start(), 4096);
        assert_eq!(attempt.after(Ok(4096), &file, 0), Ok(Next::Ended));
    }

    #[test]
    fn an_answer_that_brings_nothing_new_is_the_end_of_the_file() {
        let (file, mut attempt) = (pages_of_8_kib(), Attempt::default());
        assert_eq!(attempt.after(Ok(5000), &file, 1), Ok(Next::Again));
        let end = attempt.after(Ok(904), &file, 1);
        assert!(matches!(end, Err(ReadError::UnexpectedEnd { page: 1, offset: 8192, expected: 8192, got: 5000, .. })), "{end:?}");
        assert!(matches!(Attempt::default().after(Ok(0), &file, 0), Err(ReadError::UnexpectedEnd { got: 0, .. })));
    }

    #[test]
    fn a_device_error_is_tried_twice_and_then_told_with_its_place() {
        let (file, mut attempt) = (pages_of_8_kib(), Attempt::default());
        assert_eq!(attempt.after(Err(EIO), &file, 1), Ok(Next::Again));
        let told = attempt.after(Err(EIO), &file, 1);
        assert!(matches!(told, Err(ReadError::Device { page: 1, offset: 8192, errno: EIO, .. })), "{told:?}");
    }

    #[test]
    fn interruptions_are_asked_again_but_not_for_ever() {
        let (file, mut attempt) = (pages_of_8_kib(), Attempt::default());
        for _ in 0..MAX_INTERRUPTIONS {
            assert_eq!(attempt.after(Err(EINTR), &file, 0), Ok(Next::Again));
        }
        assert!(attempt.after(Err(EINTR), &file, 0).is_err());
    }
}
