#![allow(unsafe_code)]
//! All pages of a generation in RAM: one after the other as they were loaded, and in the place of those that were written since what was written.
//!
//! Whoever looks at a page holds a guard (epochs; Fraser 2004, section 5.2.3). A page that is replaced stays where it is until all are gone who may look at
//! it, and then its memory goes back: there are never more than as many pages as the generation has, and those that are on their way out.

use crate::io::{Mapping, Spill};
use crossbeam_epoch::{Atomic, Guard, Owned};
use std::{
    io,
    mem::MaybeUninit,
    path::Path,
    sync::{Arc, atomic::Ordering},
};

/// See the module.
pub(crate) struct Pages {
    loaded: Arc<Mapping>,
    page_bytes: usize,
    /// Pages that were loaded.
    count: u64,
    /// Of each page that there is room for, what was written of it since; null where nothing is. None where nothing is ever written.
    written: Vec<Atomic<[MaybeUninit<u8>]>>,
}

impl Pages {
    /// `count` pages of `page_bytes`, which `load` brings into memory, and room for the numbers below `room` to be written: 0 for none.
    ///
    /// # Errors
    /// Not so much memory; what `load` says.
    pub(crate) fn load<E: From<io::Error>>(
        count: u64,
        room: u64,
        page_bytes: usize,
        load: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Pages, E> {
        let no_memory = || io::Error::from(io::ErrorKind::OutOfMemory);
        let bytes = usize::try_from(count).ok().and_then(|count| count.checked_mul(page_bytes)).ok_or_else(no_memory)?;
        let mut loaded = Mapping::huge(bytes.max(1))?;
        load(&mut loaded.as_mut()[..bytes])?;
        if room > 0 {
            // Else the kernel would fill again what is given back page by page.
            loaded.keep_small();
        }
        let mut written = Vec::new();
        let room = usize::try_from(room).map_err(|_| no_memory())?;
        written.try_reserve_exact(room).map_err(|_| no_memory())?;
        written.resize_with(room, Atomic::null);
        Ok(Pages { loaded: Arc::new(loaded), page_bytes, count, written })
    }

    /// Bytes that the pages may come to take.
    pub(crate) fn most_bytes(count: u64, room: u64, page_bytes: usize) -> u64 {
        let pointers = room.saturating_mul(size_of::<Atomic<[MaybeUninit<u8>]>>() as u64);
        count.max(room).saturating_mul(page_bytes as u64).saturating_add(pointers)
    }

    /// The same of these.
    pub(crate) fn bytes(&self) -> u64 {
        Pages::most_bytes(self.count, self.written.len() as u64, self.page_bytes)
    }

    /// A page that there is: one that was loaded, or that was written.
    #[inline]
    pub(crate) fn page<'a>(&'a self, number: u64, guard: &'a Guard) -> &'a [u8] {
        if let Some(place) = self.written.get(number as usize) {
            let written = place.load(Ordering::Acquire, guard);
            if !written.is_null() {
                // SAFETY: what is not null was put there by `replace`, whole (`init_of`), and is destroyed when no guard is left that was there before it was
                // taken out; ours is.
                return unsafe { &*(std::ptr::from_ref(written.deref()) as *const [u8]) };
            }
        }
        // SAFETY: nobody writes there: `load` had it alone, and it is given back only after `replace` has put another in its place and all guards from
        // before are gone. A number beyond what was loaded is refused by `slice`.
        unsafe { self.loaded.slice(number as usize * self.page_bytes, self.page_bytes) }
    }

    /// From now on `bytes` are this page, to all who look from now on.
    pub(crate) fn replace(&self, number: u64, bytes: &[u8]) {
        let Some(place) = self.written.get(number as usize) else { return };
        assert_eq!(bytes.len(), self.page_bytes, "a page of another length");
        let guard = crossbeam_epoch::pin();
        let before = place.swap(init_of(bytes), Ordering::AcqRel, &guard);
        if !before.is_null() {
            // SAFETY: it is out of its place, so nobody finds it any more; it is destroyed when those are gone who did.
            unsafe { guard.defer_destroy(before) };
        } else if number < self.count {
            // SAFETY: `place` holds another now, and no other is ever taken out without one in its place.
            unsafe { self.give_back_later(&guard, number as usize * self.page_bytes) };
        }
    }

    /// Gives those that were loaded to a file, as they are asked for. What was written since stays in memory.
    ///
    /// # Errors
    /// What the file system of `directory` says.
    ///
    /// # Safety
    /// Nobody replaces a page meanwhile.
    pub(crate) unsafe fn spill(&self, directory: &Path) -> io::Result<Spill<'_>> {
        // SAFETY: the loaded pages are never written again (`page`), and what is given back from them is looked at by nobody.
        unsafe { Spill::new(&self.loaded, self.count as usize * self.page_bytes, directory) }
    }

    /// After a spill has come back: what was given back before takes no memory again.
    pub(crate) fn tidy(&self) {
        if self.written.is_empty() {
            return;
        }
        self.loaded.keep_small();
        let guard = crossbeam_epoch::pin();
        for number in (0..self.count).filter(|&number| !self.written[number as usize].load(Ordering::Acquire, &guard).is_null()) {
            let at = number as usize * self.page_bytes;
            // SAFETY: its place is taken for good.
            unsafe { self.give_back_later(&guard, at) };
        }
    }

    /// Gives the memory of a loaded page back when nobody is left who may look at it.
    ///
    /// # Safety
    /// Another is in its place, for good.
    unsafe fn give_back_later(&self, guard: &Guard, at: usize) {
        // Whoever looks at pages holds `self`: where that has gone, so has the mapping.
        let (loaded, bytes) = (Arc::downgrade(&self.loaded), self.page_bytes);
        guard.defer(move || {
            if let Some(loaded) = loaded.upgrade() {
                // SAFETY: nobody looks there any more when this runs (`page`), and nobody ever will: its place is taken for good.
                unsafe { loaded.give_back(at, bytes) };
            }
        });
    }

    /// Lets go of what was replaced, as soon as nobody looks at it.
    pub(crate) fn settle() {
        crossbeam_epoch::pin().flush();
    }
}

/// A copy of `bytes`.
fn init_of(bytes: &[u8]) -> Owned<[MaybeUninit<u8>]> {
    let mut owned = Owned::<[MaybeUninit<u8>]>::init(bytes.len());
    for (to, from) in owned.iter_mut().zip(bytes) {
        to.write(*from);
    }
    owned
}

impl Drop for Pages {
    fn drop(&mut self) {
        for place in &mut self.written {
            // SAFETY: nobody else has it (`&mut self`), so what is there is nobody's but ours.
            let written = unsafe { std::mem::replace(place, Atomic::null()).try_into_owned() };
            drop(written);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn pages(count: u64, room: u64) -> Pages {
        Pages::load::<io::Error>(count, room, 4096, |all| {
            all.chunks_exact_mut(4096).zip(1..).for_each(|(page, number)| page.fill(number));
            Ok(())
        })
        .unwrap()
    }

    #[test]
    fn what_was_written_is_seen_and_what_was_loaded_else() {
        let (pages, guard) = (pages(3, 5), crossbeam_epoch::pin());
        let before = pages.page(1, &guard);
        pages.replace(1, &[9; 4096]);
        pages.replace(4, &[7; 4096]);
        assert_eq!([0, 1, 2, 4].map(|number| pages.page(number, &guard)[4095]), [1, 9, 3, 7]);
        // Who looks at the old one goes on seeing it.
        assert!(before.iter().all(|&byte| byte == 2));
        pages.replace(1, &[8; 4096]);
        assert_eq!(pages.page(1, &guard)[0], 8);
        assert!(pages.bytes() >= 5 * 4096 && Pages::most_bytes(3, 0, 4096) == 3 * 4096);
    }

    #[test]
    fn a_page_is_whole_whoever_writes_meanwhile() {
        let pages = pages(4, 4);
        thread::scope(|scope| {
            for seed in 0..2u64 {
                let pages = &pages;
                scope.spawn(move || (0..2000u64).for_each(|round| pages.replace((round * 7 + seed) % 4, &[(round % 251) as u8; 4096])));
            }
            for _ in 0..2 {
                scope.spawn(|| {
                    for round in 0..4000 {
                        let guard = crossbeam_epoch::pin();
                        let page = pages.page(round % 4, &guard);
                        let first = page[0];
                        assert!(page.iter().all(|&byte| byte == first));
                    }
                });
            }
        });
    }
}
