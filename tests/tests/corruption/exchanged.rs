//! Good bytes in a wrong place: swapped pages, files of other builds, newer formats.

use crate::victim::{FILES, N, Victim};
use roxanne_builder::BuildParams;
use roxanne_core::{
    ErrorClass,
    format::{
        blob::BLOB_PAGE,
        keys::KeyList,
        superblock::{FIRST_PAGE_OFFSET, Superblock},
    },
};
use roxanne_tests::{SIFT_BASE, small};

/// Copies page `from` of `source` over page `to` of a copy of `target`.
fn replaced(target: &[u8], to: usize, source: &[u8], from: usize, first: usize, page_bytes: usize) -> Vec<u8> {
    let mut out = target.to_vec();
    out[first + to * page_bytes..][..page_bytes].copy_from_slice(&source[first + from * page_bytes..][..page_bytes]);
    out
}

#[test]
fn swapped_pages_are_found() {
    let victim = Victim::of(SIFT_BASE, KeyList::Rows(4000), BuildParams::default());
    for (name, first, page_bytes) in
        [("graph.rx", FIRST_PAGE_OFFSET as usize, 4096), ("codes.rx", 0, BLOB_PAGE), ("codebook.rx", 0, BLOB_PAGE)]
    {
        let bytes = &victim.files[name];
        let count = (bytes.len() - first) / page_bytes;
        assert!(count > 1, "{name} has one page");
        for (a, b) in [(0, 1), (1, 0), (0, count - 1), (count / 2, count / 3)] {
            if a == b {
                continue;
            }
            let one = replaced(bytes, a, bytes, b, first, page_bytes);
            victim.with_file(name, &one, || victim.is_caught(name, &format!("page {b} also at {a}")));
            let both = replaced(&one, b, bytes, a, first, page_bytes);
            victim.with_file(name, &both, || victim.is_caught(name, &format!("pages {a} and {b} swapped")));
        }
    }
}

#[test]
fn pages_and_files_of_another_generation_are_found() {
    let (victim, other) = (Victim::new(1), Victim::new(2));
    let first = FIRST_PAGE_OFFSET as usize;
    let count = (victim.files["graph.rx"].len() - first) / 4096;
    for page in 0..count {
        let mixed = replaced(&victim.files["graph.rx"], page, &other.files["graph.rx"], page, first, 4096);
        victim.with_file("graph.rx", &mixed, || victim.is_caught("graph.rx", &format!("page {page} of another build")));
    }
    for name in FILES.into_iter().filter(|name| *name != "MANIFEST") {
        // Builds differ in the seed alone: the files are of one length.
        assert_eq!(victim.files[name].len(), other.files[name].len(), "{name}");
        victim.with_file(name, &other.files[name], || {
            victim.is_caught(name, "of another build");
            if name != "keys.rx" {
                assert!(victim.ask().is_err(), "{name} of another build");
            }
        });
    }
    // A manifest of another build makes every other file foreign.
    victim.with_file("MANIFEST", &other.files["MANIFEST"], || {
        assert_eq!(victim.verify().unwrap_err().class(), ErrorClass::Corrupt);
        assert_eq!(victim.ask().unwrap_err().0, ErrorClass::Corrupt);
    });
}

#[test]
fn one_blob_is_not_taken_for_another() {
    let victim = Victim::new(1);
    let blobs = ["codebook.rx", "codes.rx", "keys.rx", "nav.rx"];
    for name in blobs {
        for other in blobs.into_iter().filter(|other| *other != name) {
            if victim.files[other].len() == victim.files[name].len() {
                victim.with_file(name, &victim.files[other], || victim.is_caught(name, &format!("really {other}")));
            }
        }
    }
}

#[test]
fn a_newer_format_is_told_from_damage() {
    let victim = Victim::new(1);
    let newer = |file: &str, bytes: &[u8]| {
        victim.with_file(file, bytes, || {
            let (class, text) = victim.ask().unwrap_err();
            assert_eq!((class, victim.verify().unwrap_err().class()), (ErrorClass::Corrupt, ErrorClass::Corrupt));
            assert!(text.contains(file) && text.contains("version 2") && text.contains("newer"), "{text}");
        });
    };
    let manifest = String::from_utf8(victim.files["MANIFEST"].clone()).unwrap();
    newer("MANIFEST", manifest.replace("roxanne-generation 1\n", "roxanne-generation 2\n").as_bytes());
    newer("MANIFEST", b"roxanne-generation 2\nwhatever a later version writes\n");
    let graph = &victim.files["graph.rx"];
    let block: Superblock = bytemuck::pod_read_unaligned(&graph[..size_of::<Superblock>()]);
    let mut bytes = graph.clone();
    bytes[..FIRST_PAGE_OFFSET as usize].copy_from_slice(&Superblock { version: 2, ..block }.to_head());
    newer("graph.rx", &bytes);
}

#[test]
fn an_older_copy_of_a_superblock_does_not_win() {
    let victim = Victim::new(1);
    let graph = &victim.files["graph.rx"];
    let block: Superblock = bytemuck::pod_read_unaligned(&graph[..size_of::<Superblock>()]);
    let stale = Superblock { epoch: 0, entry: (block.entry + 1) % N, ..block }.to_head();
    let mut bytes = graph.clone();
    bytes[..size_of::<Superblock>()].copy_from_slice(&stale[..size_of::<Superblock>()]);
    victim.with_file("graph.rx", &bytes, || {
        assert_eq!(victim.ask().as_ref(), Ok(&victim.said));
        victim.is_caught("graph.rx", "a stale superblock");
    });
}

#[test]
fn files_that_do_not_belong_are_left_alone() {
    let victim = Victim::of("synth:n=200,dim=4", KeyList::Rows(200), small());
    std::fs::write(victim.file("notes.txt"), "mine").unwrap();
    assert!(victim.verify().is_ok());
    assert_eq!(victim.ask().as_ref(), Ok(&victim.said));
    assert_eq!(std::fs::read(victim.file("notes.txt")).unwrap(), b"mine");
}
