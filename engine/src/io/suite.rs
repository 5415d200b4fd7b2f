//! One suite for both readers, each through and past the page cache.

use super::*;
use std::{collections::BTreeSet, io::Write, thread};
use tempfile::NamedTempFile;

/// A file of `page_count` pages of `page_bytes` after `first_page_offset` bytes of 0xEE; page p is full of byte p + 1.
pub(crate) fn numbered_pages(page_bytes: usize, first_page_offset: usize, page_count: u64) -> NamedTempFile {
    let mut temp = NamedTempFile::new().unwrap();
    temp.write_all(&vec![0xEE; first_page_offset]).unwrap();
    for page in 0..page_count {
        temp.write_all(&vec![page as u8 + 1; page_bytes]).unwrap();
    }
    temp.as_file().sync_all().unwrap();
    temp
}

/// Reads everything in flight; returns (tag, outcome) with the page's one byte, having seen that all its bytes are that.
fn finish(reader: &mut dyn NodeReader) -> Vec<(u64, Result<u8, ReadError>)> {
    let mut seen = Vec::new();
    while reader.in_flight() > 0 {
        let before = seen.len();
        let ended = reader.wait(&mut |c| {
            let value = c.bytes.map(|bytes| {
                assert!(bytes.iter().all(|&b| b == bytes[0]), "page {} is mixed", c.page);
                bytes[0]
            });
            seen.push((c.tag, value));
        });
        assert_eq!(ended, Ok(seen.len() - before));
    }
    seen.sort_by_key(|s| s.0);
    seen
}

fn every_page_arrives_under_its_tag(kind: ReaderKind, direct: bool) {
    for (page_bytes, header, capacity) in [(4096, 0, 1), (4096, 4096, 3), (8192, 4096, 64), (65536, 0, 5)] {
        const PAGES: u64 = 50;
        let temp = numbered_pages(page_bytes, header, PAGES);
        let file = PageFile::open_as(temp.path(), page_bytes, header as u64, PAGES, direct).unwrap();
        let mut reader = open_reader(&file, kind, capacity).unwrap();
        let (mut next, mut tags) = (0, BTreeSet::new());
        while next < 3 * PAGES || reader.in_flight() > 0 {
            while next < 3 * PAGES && reader.in_flight() < reader.capacity() {
                reader.submit(next * 7 % PAGES, next).unwrap();
                next += 1;
            }
            let ended = reader.wait(&mut |c| {
                let bytes = c.bytes.unwrap();
                assert_eq!((bytes.len(), c.page), (page_bytes, c.tag * 7 % PAGES));
                assert!(bytes.iter().all(|&b| u64::from(b) == c.page + 1));
                assert!(tags.insert(c.tag), "tag {} came twice", c.tag);
            });
            assert!(ended.unwrap() > 0);
        }
        assert_eq!(tags.len() as u64, 3 * PAGES);
        assert_eq!(reader.wait(&mut |_| {}), Ok(0));
    }
}

fn one_more_than_the_capacity_is_refused_until_one_has_ended(kind: ReaderKind, direct: bool) {
    let temp = numbered_pages(4096, 0, 8);
    let file = PageFile::open_as(temp.path(), 4096, 0, 8, direct).unwrap();
    let mut reader = open_reader(&file, kind, 4).unwrap();
    for tag in 0..4 {
        reader.submit(tag, tag).unwrap();
    }
    assert_eq!(reader.submit(5, 5), Err(ReadError::QueueFull { capacity: 4 }));
    assert_eq!(reader.in_flight(), 4);
    let ended = reader.wait(&mut |_| {}).unwrap();
    assert!((1..=4).contains(&ended));
    reader.submit(5, 5).unwrap();
    assert!(finish(&mut *reader).contains(&(5, Ok(6))));
}

fn a_page_past_the_end_is_refused_and_costs_nothing(kind: ReaderKind, direct: bool) {
    let temp = numbered_pages(4096, 0, 3);
    let file = PageFile::open_as(temp.path(), 4096, 0, 2, direct).unwrap();
    let mut reader = open_reader(&file, kind, 1).unwrap();
    for page in [2, u64::MAX] {
        assert!(matches!(reader.submit(page, 9), Err(ReadError::PastEnd { page_count: 2, .. })));
    }
    assert_eq!((reader.in_flight(), reader.wait(&mut |_| {})), (0, Ok(0)));
    reader.submit(1, 1).unwrap();
    assert_eq!(finish(&mut *reader), [(1, Ok(2))]);
}

fn a_file_cut_after_it_was_opened_ends_unexpectedly(kind: ReaderKind, direct: bool) {
    let temp = numbered_pages(8192, 0, 4);
    let file = PageFile::open_as(temp.path(), 8192, 0, 4, direct).unwrap();
    let mut reader = open_reader(&file, kind, 4).unwrap();
    temp.as_file().set_len(2 * 8192 + 5000).unwrap(); // cuts page 2 within its second sector, and all of page 3
    for page in 0..4 {
        reader.submit(page, page).unwrap();
    }
    let seen = finish(&mut *reader);
    assert_eq!(&seen[..2], [(0, Ok(1)), (1, Ok(2))]);
    assert!(matches!(seen[2].1, Err(ReadError::UnexpectedEnd { page: 2, offset: 16384, expected: 8192, got: 5000, .. })), "{seen:?}");
    assert!(matches!(seen[3].1, Err(ReadError::UnexpectedEnd { page: 3, got: 0, .. })), "{seen:?}");
}

fn a_device_error_names_its_page_and_spares_the_next(kind: ReaderKind, _direct: bool) {
    // Nothing is mapped at address 0, and the kernel says so with EIO; a true one, unlike those of `faulty`.
    let file = Arc::new(PageFile::unchecked("/proc/self/mem", 4096, 1));
    let mut reader = open_reader(&file, kind, 2).unwrap();
    reader.submit(0, 3).unwrap();
    reader.submit(0, 4).unwrap();
    let seen = finish(&mut *reader);
    for (_, outcome) in &seen {
        assert!(matches!(outcome, Err(ReadError::Device { page: 0, offset: 0, bytes: 4096, errno: 5, .. })), "{outcome:?}");
    }
    assert_eq!(seen.len(), 2);
}

fn a_reader_moves_between_threads(kind: ReaderKind, direct: bool) {
    let temp = numbered_pages(4096, 0, 8);
    let file = PageFile::open_as(temp.path(), 4096, 0, 8, direct).unwrap();
    let mut reader = open_reader(&file, kind, 4).unwrap();
    for round in 0..3 {
        reader = thread::spawn(move || {
            reader.submit(round, 0).unwrap();
            reader.submit(round + 1, 1).unwrap();
            assert_eq!(finish(&mut *reader), [(0, Ok(round as u8 + 1)), (1, Ok(round as u8 + 2))]);
            reader
        })
        .join()
        .unwrap();
    }
    reader.submit(7, 0).unwrap();
    assert_eq!(finish(&mut *reader), [(0, Ok(8))]);
}

fn a_reader_dropped_with_reads_in_flight_waits_for_them(kind: ReaderKind, direct: bool) {
    let temp = numbered_pages(65536, 0, 32);
    let file = PageFile::open_as(temp.path(), 65536, 0, 32, direct).unwrap();
    for started in [false, true] {
        let mut reader = open_reader(&file, kind, 32).unwrap();
        for page in 0..32 {
            reader.submit(page, page).unwrap();
        }
        if started {
            reader.poll(&mut |_| {}).unwrap();
        }
        drop(reader);
    }
    assert_eq!(Arc::strong_count(&file), 1);
}

fn polling_alone_brings_every_read_home(kind: ReaderKind, direct: bool) {
    let temp = numbered_pages(4096, 0, 16);
    let file = PageFile::open_as(temp.path(), 4096, 0, 16, direct).unwrap();
    let mut reader = open_reader(&file, kind, 16).unwrap();
    assert_eq!(reader.poll(&mut |_| {}), Ok(0));
    for page in 0..16 {
        reader.submit(page, page).unwrap();
    }
    let mut ended = 0;
    while reader.in_flight() > 0 {
        ended += reader.poll(&mut |c| assert_eq!(u64::from(c.bytes.unwrap()[77]), c.page + 1)).unwrap();
        thread::yield_now();
    }
    assert_eq!(ended, 16);
}

fn a_panic_in_the_callback_loses_no_buffer(kind: ReaderKind, direct: bool) {
    let temp = numbered_pages(4096, 0, 4);
    let file = PageFile::open_as(temp.path(), 4096, 0, 4, direct).unwrap();
    let mut reader = open_reader(&file, kind, 4).unwrap();
    for page in 0..4 {
        reader.submit(page, page).unwrap();
    }
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| reader.wait(&mut |_| panic!("on purpose"))));
    assert!(panicked.is_err());
    assert_eq!(reader.in_flight(), 3);
    finish(&mut *reader);
    for page in 0..4 {
        reader.submit(page, page).unwrap();
    }
    assert_eq!(finish(&mut *reader).len(), 4);
}

macro_rules! stamp {
    ($module:ident, $kind:expr, $direct:expr, [$($test:ident),* $(,)?]) => {
        mod $module {
            use super::*;
            $(#[test]
            fn $test() {
                if $kind == ReaderKind::IoUring && let Err(why) = probe_io_uring() {
                    return eprintln!("skipped: {why}");
                }
                super::$test($kind, $direct);
            })*
        }
    };
}

macro_rules! stamp_all {
    ($tests:tt) => {
        stamp!(io_uring_direct, ReaderKind::IoUring, true, $tests);
        stamp!(io_uring_buffered, ReaderKind::IoUring, false, $tests);
        stamp!(pread_direct, ReaderKind::Pread, true, $tests);
        stamp!(pread_buffered, ReaderKind::Pread, false, $tests);
    };
}

stamp_all!([
    every_page_arrives_under_its_tag,
    one_more_than_the_capacity_is_refused_until_one_has_ended,
    a_page_past_the_end_is_refused_and_costs_nothing,
    a_file_cut_after_it_was_opened_ends_unexpectedly,
    a_device_error_names_its_page_and_spares_the_next,
    a_reader_moves_between_threads,
    a_reader_dropped_with_reads_in_flight_waits_for_them,
    polling_alone_brings_every_read_home,
    a_panic_in_the_callback_loses_no_buffer,
]);

#[test]
fn a_reader_has_between_one_and_the_most_reads() {
    let temp = numbered_pages(4096, 0, 1);
    let file = PageFile::open(temp.path(), 4096, 0, 1).unwrap();
    for asked in [0, MAX_CAPACITY + 1] {
        assert!(matches!(open_reader(&file, ReaderKind::Auto, asked), Err(ReadError::Capacity { .. })));
    }
    assert_eq!(open_reader(&file, ReaderKind::Pread, MAX_CAPACITY).unwrap().capacity(), MAX_CAPACITY);
}

#[test]
fn the_environment_names_a_kind_or_is_refused() {
    let kind = |value: &str| kind_from(Some(value.to_string()));
    assert_eq!((kind_from(None), kind("")), (Ok(ReaderKind::Auto), Ok(ReaderKind::Auto)));
    assert_eq!((kind("io_uring"), kind("pread")), (Ok(ReaderKind::IoUring), Ok(ReaderKind::Pread)));
    assert!(kind("aio").unwrap_err().to_string().contains("\"aio\""));
}

#[test]
fn each_kind_tells_its_name() {
    let temp = numbered_pages(4096, 0, 1);
    let file = PageFile::open(temp.path(), 4096, 0, 1).unwrap();
    assert_eq!(open_reader(&file, ReaderKind::Pread, 1).unwrap().kind(), "pread");
    if probe_io_uring().is_ok() {
        assert_eq!(open_reader(&file, ReaderKind::IoUring, 1).unwrap().kind(), "io_uring");
    }
}
