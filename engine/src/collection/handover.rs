#![allow(unsafe_code)]
//! Memory that a base hands over to the one that takes its place, where there is not enough for both: its codes, and its pages.

use super::{Collection, CollectionError, locked};
use crate::{
    Index,
    base::{Base, open_codes},
    io::Spill,
    kept::Kept,
};
use roxanne_core::{
    aside::aside,
    format::{FormatError, manifest::Manifest},
};
use std::{
    io,
    path::Path,
    str::FromStr,
    sync::{Arc, MutexGuard, TryLockError, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

/// For all to end that began before a base shall be drained, and for what began before it was.
const PATIENCE: Duration = Duration::from_secs(60);
const LAST_SEARCHES: Duration = Duration::from_secs(5);
/// How long a base that is not needed any more is held for who still searches it, and between two looks at that.
const LAST_HOLDER: Duration = Duration::from_secs(600);
const LOOK: Duration = Duration::from_millis(20);

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

/// Hears that searches are about to be refused, and can say no.
pub type Notice<'a> = dyn Fn() -> Result<(), String> + 'a;

/// In whose memory, and who hears of it.
#[derive(Clone, Copy)]
pub(super) struct Way<'a> {
    pub(super) mode: PromoteMode,
    /// Before searches are refused, under [`PromoteMode::Drain`].
    pub(super) notice: Option<&'a Notice<'a>>,
}

/// What a base has handed over. Dropped, it takes all of it back.
struct Handover<'a> {
    base: &'a Base,
    /// Where they lie that are still wanted.
    codes: Option<Spill<'a>>,
    pages: Option<Spill<'a>>,
    /// They lie nowhere but in the index.
    codes_gone: bool,
    /// They were there when this began.
    was_whole: bool,
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
    unsafe fn begin(base: &'a Base, was_whole: bool) -> Result<Handover<'a>, FormatError> {
        let directory = base.info.path.as_path();
        let io = io_at(directory);
        let mut this = Handover { base, codes: None, pages: None, codes_gone: false, was_whole, is_over: false };
        match &base.kept {
            Kept::Nothing => {}
            Kept::Some(cache) => cache.close(),
            Kept::All(pages) => {
                // SAFETY: the caller's promise.
                let mut spill = unsafe { pages.spill(directory) }.map_err(&io)?;
                // Before the first byte goes: from now on no search is one that is over at once.
                base.given.fetch_add(1, Ordering::AcqRel);
                let outcome = spill.give(u64::MAX).map_err(&io);
                base.given.fetch_add(spill.given(), Ordering::AcqRel);
                this.pages = Some(spill);
                outcome?;
            }
        }
        if base.is_drained() {
            // SAFETY: no search begins, none is under way (the caller's promise), and nothing else looks at codes but merges.
            unsafe { base.codes.give_back() };
            this.codes_gone = true;
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
        let Some(codes) = &mut self.codes else { return Ok(()) };
        let before = codes.given();
        let outcome = codes.give(bytes).map_err(io_at(&self.base.info.path));
        self.base.given.fetch_add(codes.given() - before, Ordering::AcqRel);
        outcome
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
        // Back they come.
        let (codes, pages) = (self.codes.take(), self.pages.take());
        aside(|| drop((codes, pages)));
        self.base.given.store(0, Ordering::Release);
        match &self.base.kept {
            Kept::Nothing => {}
            Kept::Some(cache) => cache.open(),
            Kept::All(pages) => pages.tidy(),
        }
        if self.codes_gone {
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
        } else if self.was_whole {
            self.base.fill();
        }
    }
}

impl Collection {
    /// Opens the base at `path` in the memory that the present one hands over, as `way` says, and lets `then` put it into its place. Where that fails the
    /// present one takes its memory back. `no_merge` is the guard of `merging`.
    pub(super) fn open_in_place<T>(
        &self,
        path: &Path,
        way: Way<'_>,
        _no_merge: &MutexGuard<'_, ()>,
        then: impl FnOnce(Index) -> Result<T, CollectionError>,
    ) -> Result<T, CollectionError> {
        let inner = self.inner();
        debug_assert!(matches!(inner.merging.try_lock(), Err(TryLockError::WouldBlock)));
        let present = inner.snapshot.load().base.clone();
        let Some(present) = present else { return then(aside(|| Index::open_with(path, &inner.options.base))?) };
        let outcome = self.open_over(&present, path, way, then);
        if outcome.is_ok() {
            let_go(present);
        } else if present.base.is_drained() {
            let told = "codes that made way for another base could not be read again: searches are refused until it is opened anew, or another comes";
            *locked(&inner.trouble) = Some(told.to_string());
        }
        outcome
    }

    /// The same, in the place of `present`.
    fn open_over<T>(
        &self,
        present: &Index,
        path: &Path,
        way: Way<'_>,
        then: impl FnOnce(Index) -> Result<T, CollectionError>,
    ) -> Result<T, CollectionError> {
        let (inner, base) = (self.inner(), &present.base);
        if way.mode == PromoteMode::Overlap {
            return then(aside(|| Index::open_with(path, &inner.options.base))?);
        }
        let of_pages = if base.info.all_resident { base.info.page_count.saturating_mul(base.info.page_bytes as u64) } else { 0 };
        let wanted = if way.mode == PromoteMode::Half { of_pages.saturating_add(base.codes.bytes()) } else { of_pages };
        let (free, reserve) = (self.inner().disk_free()?, inner.options.disk_reserve);
        if free.saturating_sub(wanted) < reserve {
            return Err(CollectionError::DiskFull { path: inner.path.clone(), free, reserve: reserve.saturating_add(wanted) });
        }
        let was_whole = !base.is_drained();
        if way.mode == PromoteMode::Drain && was_whole {
            way.notice
                .map_or(Ok(()), |notice| notice())
                .map_err(|detail| CollectionError::Rejected { path: path.to_path_buf(), detail })?;
            self.drain(base)?;
        }
        // SAFETY: bases are changed by merges and promotions alone, which wait; and who followed a writer does neither. Of one that is drained every search has
        // ended (`drain`).
        let begun = aside(|| unsafe { Handover::begin(base, was_whole) });
        let mut handover = begun.map_err(crate::OpenError::from)?;
        let done = then(aside(|| Index::open_in(path, &inner.options.base, &mut |bytes| handover.make_room(bytes)))?)?;
        handover.end();
        Ok(done)
    }

    /// Refuses searches of the base, and waits until those have ended that began before.
    fn drain(&self, base: &Base) -> Result<(), CollectionError> {
        let inner = self.inner();
        let wait = |limit| {
            inner.publish_again()?;
            // Whoever begins from now on holds another snapshot than those who began before.
            Ok::<_, CollectionError>(inner.pins.wait_for_older(&inner.snapshot.load_full(), limit))
        };
        // What takes long is over before anybody is refused.
        if wait(PATIENCE)? {
            base.drain();
            let outcome = wait(LAST_SEARCHES);
            if matches!(outcome, Ok(true)) {
                return Ok(());
            }
            base.fill();
            outcome?;
        }
        Err(CollectionError::InUse { path: inner.path.clone() })
    }

    /// Whether searches are refused while another base takes the place of this one.
    pub fn is_drained(&self) -> bool {
        self.inner().snapshot.load().base.as_ref().is_some_and(|base| base.base.is_drained())
    }
}

/// Lets go of a base that has been replaced when nobody searches it any more. Who holds it last gives gigabytes back to the system, which takes time: that
/// shall be nobody who searches.
fn let_go(base: Index) {
    let wait = move || {
        let begin = Instant::now();
        while Arc::strong_count(&base.idle) > 1 && begin.elapsed() < LAST_HOLDER {
            thread::sleep(LOOK);
        }
    };
    // Without a thread it goes here and now, or later.
    let _ = thread::Builder::new().name("roxanne-let-go".to_string()).spawn(wait);
}

fn io_at(path: &Path) -> impl Fn(io::Error) -> FormatError + '_ {
    move |error| FormatError::Io { path: path.to_path_buf(), error }
}
