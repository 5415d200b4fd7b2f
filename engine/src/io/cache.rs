#![allow(unsafe_code)]
//! Pages kept in RAM, in what a budget leaves beside the codes.
//!
//! One cache serves all threads, and none of them ever waits: a page is *pinned* by one atomic addition while it is looked at, and whoever
//! wants to put a page into a frame that is pinned leaves it at that. Every page of the file has a count of how often it was wanted; a
//! page comes in only where it is wanted more often than the least wanted of the eight pages it might replace. So pages that are met once
//! (a scan, an odd query) push nothing out. Counts age: each is halved once while the file's pages are wanted eight times each on average.
//! Source: TinyLFU (Einziger, Friedman, Manes 2017), with exact counts in place of a sketch, at a byte a page.

use super::buffer::Mapping;
use std::{
    io,
    ops::Deref,
    sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering},
};

/// Frames that a page may lie in.
const WAYS: usize = 8;
/// A frame whose page is being replaced.
const WRITING: u32 = 1 << 31;
/// Wanted pages after which one count is halved.
const WANTED_TO_AGE: u64 = 8;

/// What a frame holds.
#[derive(Default)]
struct Frame {
    /// Page + 1; 0 for none.
    tag: AtomicU64,
    /// Readers, and [`WRITING`].
    pins: AtomicU32,
}

/// See the module.
pub(crate) struct PageCache {
    page_bytes: usize,
    memory: Mapping,
    frames: Vec<Frame>,
    /// How often each page was wanted, lately.
    wanted: Vec<AtomicU8>,
    wants: AtomicU64,
}

/// A page in the cache, which stays there while this lives.
pub(crate) struct Pinned<'a> {
    cache: &'a PageCache,
    frame: usize,
}

impl PageCache {
    /// Bytes that a cache of `frames` pages takes, for a file of `page_count`.
    pub(crate) fn bytes(frames: u64, page_bytes: u64, page_count: u64) -> u64 {
        frames * (page_bytes + size_of::<Frame>() as u64) + page_count
    }

    /// The most frames that `bytes` pay for; 0 when not even one set.
    pub(crate) fn frames_for(bytes: u64, page_bytes: u64, page_count: u64) -> u64 {
        let frames = bytes.saturating_sub(page_count) / (page_bytes + size_of::<Frame>() as u64);
        frames / WAYS as u64 * WAYS as u64
    }

    /// An empty cache of `frames` (a multiple of 8, more than 0) for a file of `page_count` pages.
    ///
    /// # Errors
    /// No memory.
    pub(crate) fn new(frames: usize, page_bytes: usize, page_count: u64) -> io::Result<PageCache> {
        assert!(frames > 0 && frames.is_multiple_of(WAYS), "{frames} frames");
        let bytes = frames.checked_mul(page_bytes).ok_or(io::ErrorKind::OutOfMemory)?;
        let count = usize::try_from(page_count).map_err(|_| io::ErrorKind::OutOfMemory)?;
        Ok(PageCache {
            page_bytes,
            memory: Mapping::huge(bytes)?,
            frames: (0..frames).map(|_| Frame::default()).collect(),
            wanted: (0..count).map(|_| AtomicU8::new(0)).collect(),
            wants: AtomicU64::new(0),
        })
    }

    /// Bytes it takes.
    pub(crate) fn total_bytes(&self) -> u64 {
        PageCache::bytes(self.frames.len() as u64, self.page_bytes as u64, self.wanted.len() as u64)
    }

    /// The first frame of the set of `page`.
    fn set_of(&self, page: u64) -> usize {
        let sets = (self.frames.len() / WAYS) as u64;
        // The high half of the product is the hash scaled to the number of sets.
        let hash = page.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        ((u128::from(hash) * u128::from(sets)) >> 64) as usize * WAYS
    }

    /// Counts `page` as wanted once more.
    pub(crate) fn note(&self, page: u64) {
        let Some(count) = usize::try_from(page).ok().and_then(|page| self.wanted.get(page)) else { return };
        // Counts may lose an addition to another thread; they are estimates.
        count.store(count.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed);
        let wants = self.wants.fetch_add(1, Ordering::Relaxed);
        if wants.is_multiple_of(WANTED_TO_AGE) {
            let count = &self.wanted[(wants / WANTED_TO_AGE % self.wanted.len() as u64) as usize];
            count.store(count.load(Ordering::Relaxed) / 2, Ordering::Relaxed);
        }
    }

    /// Gives `page` if it is here; it is not counted as wanted.
    pub(crate) fn get(&self, page: u64) -> Option<Pinned<'_>> {
        let set = self.set_of(page);
        let way = self.frames[set..set + WAYS].iter().position(|frame| frame.tag.load(Ordering::Relaxed) == page + 1)?;
        let frame = &self.frames[set + way];
        let pinned = Pinned { cache: self, frame: set + way };
        // Acquire: what the writer put into the frame is seen, and its tag, before it is read. Dropping `pinned` takes the pin back.
        let pins = frame.pins.fetch_add(1, Ordering::Acquire);
        (pins & WRITING == 0 && frame.tag.load(Ordering::Relaxed) == page + 1).then_some(pinned)
    }

    fn count(&self, page: u64) -> u8 {
        self.wanted.get(page as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Offers a page that was read and checked: it stays if it is wanted more often than what would have to go.
    pub(crate) fn offer(&self, page: u64, bytes: &[u8]) {
        assert_eq!(bytes.len(), self.page_bytes, "a page of another size");
        let set = self.set_of(page);
        let frames = &self.frames[set..set + WAYS];
        let mut victim = (u16::MAX, 0, 0);
        for (way, frame) in frames.iter().enumerate() {
            match frame.tag.load(Ordering::Relaxed) {
                0 => {
                    victim = (0, way, 0);
                    break;
                }
                // Another thread was faster, or what is here is older than what was read.
                tag if tag == page + 1 => {
                    victim = (0, way, tag);
                    break;
                }
                tag => victim = victim.min((u16::from(self.count(tag - 1)) + 1, way, tag)),
            }
        }
        let (count, way, tag) = victim;
        if count > u16::from(self.count(page)) {
            return;
        }
        let frame = &frames[way];
        // Nobody reads it and nobody else writes it, or it stays as it is. Acquire: reads of those who unpinned it came before.
        if frame.pins.compare_exchange(0, WRITING, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return;
        }
        if frame.tag.load(Ordering::Relaxed) == tag {
            frame.tag.store(page + 1, Ordering::Relaxed);
            // SAFETY: the frame's bytes lie within the mapping, which lives as long as `self`. WRITING is set and there were no pins: a reader
            // that pins now sees WRITING and makes no slice, and another writer fails its exchange. So nobody else refers to these bytes.
            let target = unsafe { std::slice::from_raw_parts_mut(self.memory.pointer((set + way) * self.page_bytes), self.page_bytes) };
            target.copy_from_slice(bytes);
        }
        // Release: the page and its tag are there for whoever pins it from now on. Others may have pinned it in vain meanwhile.
        frame.pins.fetch_and(!WRITING, Ordering::Release);
    }

    /// Gives the memory of all frames back to the system: none holds a page, and none takes one in, until it is opened again.
    pub(crate) fn close(&self) {
        for frame in &self.frames {
            // As in `offer`, and for long. Pages are looked at for microseconds, and nobody finds this one any more; another may have put one there meanwhile.
            frame.tag.store(0, Ordering::Relaxed);
            while frame.pins.compare_exchange_weak(0, WRITING, Ordering::Acquire, Ordering::Relaxed).is_err() {
                std::thread::yield_now();
                frame.tag.store(0, Ordering::Relaxed);
            }
        }
        // SAFETY: all frames are being written, as it were: nobody makes a slice of one (`get`). What is read there after `open` was put there by `offer`.
        unsafe { self.memory.give_back(0, self.frames.len() * self.page_bytes) };
    }

    /// Takes pages in again after [`PageCache::close`].
    pub(crate) fn open(&self) {
        for frame in &self.frames {
            frame.tag.store(0, Ordering::Relaxed);
            frame.pins.fetch_and(!WRITING, Ordering::Release);
        }
    }

    /// How often each page was wanted lately.
    pub(crate) fn counts(&self) -> Vec<u8> {
        self.wanted.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    /// Starts from what was wanted another time; `counts` that are missing are 0.
    pub(crate) fn remember(&self, counts: &[u8]) {
        self.wanted.iter().zip(counts).for_each(|(count, &known)| count.store(known, Ordering::Relaxed));
    }
}

impl Deref for Pinned<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the frame is pinned and was not being written when it was (`get`), and a writer takes only frames without pins; so these
        // bytes, within the cache's mapping, do not change while `self` lives.
        unsafe { self.cache.memory.slice(self.frame * self.cache.page_bytes, self.cache.page_bytes) }
    }
}

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        // Release: our reads end before a writer may begin.
        self.cache.frames[self.frame].pins.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::atomic::AtomicBool, thread};

    const PAGE: usize = 4096;

    fn page(number: u64) -> Vec<u8> {
        number.to_le_bytes().repeat(PAGE / 8)
    }

    fn cache(frames: usize, pages: u64) -> PageCache {
        PageCache::new(frames, PAGE, pages).unwrap()
    }

    #[test]
    fn what_was_offered_is_given_back_while_there_is_room() {
        let cache = cache(8, 100);
        (0..8).for_each(|number| cache.offer(number, &page(number)));
        for number in 0..8 {
            assert!(*cache.get(number).unwrap() == page(number)[..]);
        }
        assert!(cache.get(8).is_none() && cache.get(1 << 40).is_none());
        cache.note(100); // of no page, and no harm
    }

    #[test]
    fn pages_met_once_push_out_none_that_are_wanted_often() {
        let cache = cache(8, 1000);
        for number in 0..8 {
            (0..4).for_each(|_| cache.note(number));
            cache.offer(number, &page(number));
        }
        for number in 8..1000 {
            cache.note(number);
            cache.offer(number, &page(number));
        }
        assert!((0..8).all(|number| cache.get(number).is_some()));
        // One that is wanted more often than the least of them comes in.
        (0..5).for_each(|_| cache.note(500));
        cache.offer(500, &page(500));
        assert!(cache.get(500).is_some() && (0..8).filter(|&number| cache.get(number).is_some()).count() == 7);
    }

    #[test]
    fn a_pinned_page_stays() {
        let cache = cache(8, 1000);
        (0..8).for_each(|number| cache.offer(number, &page(number)));
        let held: Vec<Pinned<'_>> = (0..8).map(|number| cache.get(number).unwrap()).collect();
        (0..200).for_each(|_| cache.note(9));
        cache.offer(9, &page(9));
        assert!(cache.get(9).is_none());
        assert!(held.iter().zip(0..).all(|(held, number)| **held == page(number)[..]));
        drop(held);
        cache.offer(9, &page(9));
        assert!(cache.get(9).is_some());
    }

    #[test]
    fn closed_it_holds_nothing_and_opened_again_it_takes_pages_in() {
        let cache = cache(8, 100);
        (0..8).for_each(|number| cache.offer(number, &page(number)));
        let held = cache.get(3).unwrap();
        thread::scope(|scope| {
            let closing = scope.spawn(|| cache.close());
            // Nobody finds it from when it is its turn.
            while cache.get(3).is_some() {
                thread::yield_now();
            }
            // Who looks at a page looks at it to the end.
            assert!(!closing.is_finished() && *held == page(3)[..]);
            drop(held);
        });
        (0..8).for_each(|number| cache.offer(number, &page(number)));
        assert!((0..8).all(|number| cache.get(number).is_none()));
        cache.open();
        (0..8).for_each(|number| cache.offer(number, &page(number)));
        assert!((0..8).all(|number| *cache.get(number).unwrap() == page(number)[..]));
    }

    #[test]
    fn counts_fade() {
        let cache = cache(8, 10);
        (0..100).for_each(|_| cache.note(3));
        (0..10 * 8 * WANTED_TO_AGE).for_each(|_| cache.note(5));
        assert!(cache.count(3) < 10 && cache.count(5) > 50, "{} and {}", cache.count(3), cache.count(5));
        let other = self::cache(8, 10);
        other.remember(&cache.counts());
        assert_eq!(other.counts(), cache.counts());
    }

    #[test]
    fn frames_and_bytes_agree() {
        for (bytes, page_count) in [(0, 10), (5000, 1000), (40_000, 100), (1 << 30, 1 << 20)] {
            let frames = PageCache::frames_for(bytes, 4096, page_count);
            assert!(frames.is_multiple_of(8) && (frames == 0 || PageCache::bytes(frames, 4096, page_count) <= bytes));
            assert!(PageCache::bytes(frames + 8, 4096, page_count) > bytes);
        }
    }

    #[test]
    fn threads_never_see_a_page_half_written() {
        let (cache, stop) = (cache(16, 200), AtomicBool::new(false));
        thread::scope(|scope| {
            for seed in 0..2u64 {
                let (cache, stop) = (&cache, &stop);
                scope.spawn(move || {
                    let mut number = seed;
                    while !stop.load(Ordering::Relaxed) {
                        number = (number * 31 + 7) % 200;
                        cache.note(number);
                        match cache.get(number) {
                            Some(held) => assert!(*held == page(number)[..], "page {number}"),
                            None => cache.offer(number, &page(number)),
                        }
                    }
                });
            }
            for step in 0..200_000u64 {
                let number = step * 17 % 200;
                if let Some(held) = cache.get(number) {
                    assert!(held[..8] == number.to_le_bytes() && held[PAGE - 8..] == number.to_le_bytes());
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}
