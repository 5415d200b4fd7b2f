#![allow(unsafe_code)]
//! Memory that a base hands over to the one that takes its place, where there is not enough for both: its codes, and its pages.

use super::{Collection, CollectionError, locked};
use crate::{
    Index,
    base::{Base, open_codes},
    io::Spill,
    kept::Kept,
};
use roxanne_core::format::{FormatError, manifest::Manifest};
use std::{
    io,
    path::Path,
    str::FromStr,
    sync::{MutexGuard, TryLockError},
    thread,
    time::Duration,
};

/// For searches to end that began before a base was drained.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a base takes the place of another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PromoteMode {
    /// Both are in memory for a moment: each up to its budget.
    #[default]
    Overlap,
    /// The old one's codes and pages go to a file without a name beside it, part by part, as those of the new one come into memory: searches go on, and read
    /// from flash what has gone. As much disk as the codes take is needed meanwhile, and where all pages were in memory, as they do.
    Half,
    /// The old one lets go of its codes before the new one is opened. Meanwhile searches are refused ([`crate::SearchError::Drained`]), all else goes on: for
    /// servers of which others answer.
    Drain,
}

impl FromStr for PromoteMode {
    type Err = String;

    fn from_str(name: &str) -> Result<PromoteMode, String> {
        match name {
            "overlap" => Ok(PromoteMode::Overlap),
            "half" => Ok(PromoteMode::Half),
            "drain" => Ok(PromoteMode::Drain),
            _ => Err(format!("{name:?} is none; there are overlap, half and drain")),
        }
    }
}

/// What a base has handed over. Dropped, it takes all of it back.
struct Handover<'a> {
    base: &'a Base,
    /// Where they lie that are still wanted.
    codes: Option<Spill<'a>>,
    pages: Option<Spill<'a>>,
    is_over: bool,
}

impl<'a> Handover<'a> {
    /// Hands over the pages of `base`, and gets ready to hand over its codes.
    ///
    /// # Errors
    /// No room on the disk, or what else the file system says.
    ///
    /// # Safety
    /// Nobody changes the base while this lives; and where it is drained, no search of it that began before is under way.
    unsafe fn begin(base: &'a Base) -> Result<Handover<'a>, FormatError> {
        let directory = base.info.path.as_path();
        let io = io_at(directory);
        let mut this = Handover { base, codes: None, pages: None, is_over: false };
        match &base.kept {
            Kept::Nothing => {}
            Kept::Some(cache) => cache.close(),
            Kept::All(pages) => {
                // SAFETY: the caller's promise.
                let mut spill = unsafe { pages.spill(directory) }.map_err(&io)?;
                spill.give(u64::MAX).map_err(&io)?;
                this.pages = Some(spill);
            }
        }
        if base.is_drained() {
            // SAFETY: no search begins, none is under way (the caller's promise), and nothing else looks at codes but merges.
            unsafe { base.codes.give_back() };
        } else {
            // SAFETY: the caller's promise.
            this.codes = Some(unsafe { base.codes.spill(directory) }.map_err(&io)?);
        }
        Ok(this)
    }

    /// The other base is about to take so many bytes for its codes, in all.
    ///
    /// # Errors
    /// As [`Handover::begin`].
    fn make_room(&mut self, bytes: u64) -> Result<(), FormatError> {
        self.codes.as_mut().map_or(Ok(()), |codes| codes.give(bytes)).map_err(io_at(&self.base.info.path))
    }

    /// The base is not needed any more, but by searches that go on.
    fn end(mut self) {
        self.is_over = true;
        self.codes.take().into_iter().chain(self.pages.take()).for_each(Spill::stay);
    }
}

impl Drop for Handover<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        if let Kept::Some(cache) = &self.base.kept {
            cache.open();
        }
        if self.base.is_drained() {
            let read = || -> Result<(), FormatError> {
                let path = &self.base.info.path;
                let blob = open_codes(path, &Manifest::read(path)?, self.base.n())?;
                // SAFETY: no search looks at them while the base is drained, and nobody changes it (`begin`).
                unsafe { self.base.codes.read_again(&blob) }
            };
            // Where they cannot be read it stays drained: its searches are refused, and not wrong.
            if read().is_ok() {
                self.base.fill();
            }
        }
    }
}

impl Collection {
    /// Opens the base at `path` in the memory that the present one hands over, as `mode` says, and lets `then` put it into its place. Where that fails the
    /// present one takes its memory back. `no_merge` is the guard of `merging`.
    pub(super) fn open_in_place<T>(
        &self,
        path: &Path,
        mode: PromoteMode,
        _no_merge: &MutexGuard<'_, ()>,
        then: impl FnOnce(Index) -> Result<T, CollectionError>,
    ) -> Result<T, CollectionError> {
        let inner = self.inner();
        debug_assert!(matches!(inner.merging.try_lock(), Err(TryLockError::WouldBlock)));
        let present = inner.snapshot.load().base.clone();
        let Some(present) = present else { return then(aside(|| Index::open_with(path, &inner.options.base))?) };
        let done = self.open_over(&present, path, mode, then)?;
        // Who holds it last gives gigabytes back to the system, which takes time: that shall be nobody who searches.
        self.wait_for_searches();
        Ok(done)
    }

    /// The same, in the place of `present`.
    fn open_over<T>(
        &self,
        present: &Index,
        path: &Path,
        mode: PromoteMode,
        then: impl FnOnce(Index) -> Result<T, CollectionError>,
    ) -> Result<T, CollectionError> {
        let inner = self.inner();
        if mode == PromoteMode::Overlap {
            return then(aside(|| Index::open_with(path, &inner.options.base))?);
        }
        if mode == PromoteMode::Drain {
            self.drain(&present.base)?;
        }
        // SAFETY: bases are changed by merges and promotions alone, which wait; and who followed a writer does neither. Of one that is drained every search has
        // ended (`drain`).
        let mut handover = unsafe { Handover::begin(&present.base) }.map_err(crate::OpenError::from)?;
        let done = then(aside(|| Index::open_in(path, &inner.options.base, &mut |bytes| handover.make_room(bytes)))?)?;
        handover.end();
        Ok(done)
    }

    /// Refuses searches of the base, and waits until those have ended that began before.
    fn drain(&self, base: &Base) -> Result<(), CollectionError> {
        let inner = self.inner();
        {
            let writer = locked(&inner.writer);
            writer.check(&inner.path)?;
            base.drain();
            // Whoever searches from now on holds another snapshot than those who began before.
            inner.publish(&writer);
        }
        if self.wait_for_searches() {
            return Ok(());
        }
        base.fill();
        Err(CollectionError::InUse { path: inner.path.clone() })
    }

    /// Waits until those have ended that see an older snapshot than the present one; false where some do not for too long.
    fn wait_for_searches(&self) -> bool {
        let inner = self.inner();
        inner.pins.wait_for_older(&inner.snapshot.load_full(), PATIENCE)
    }

    /// Whether searches are refused while another base takes the place of this one.
    pub fn is_drained(&self) -> bool {
        self.inner().snapshot.load().base.as_ref().is_some_and(|base| base.base.is_drained())
    }
}

/// Does `work`, which takes no lock that a search wants, on a thread that stands back: searches come first.
pub(super) fn aside<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let quietly = || {
        // Refused, it costs searches some time. Threads that this one begins are like it.
        let _ = rustix::process::nice(10);
        work()
    };
    thread::scope(|scope| scope.spawn(quietly).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}

fn io_at(path: &Path) -> impl Fn(io::Error) -> FormatError + '_ {
    move |error| FormatError::Io { path: path.to_path_buf(), error }
}
