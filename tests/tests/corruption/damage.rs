//! What disks and copies do: flipped bits, cut files, lost files.

use crate::victim::{FILES, N, Victim};
use roxanne_core::{
    ErrorClass,
    format::{FormatError, blob::BLOB_PAGE, page::HEADER_BYTES, superblock::FIRST_PAGE_OFFSET},
};
use roxanne_engine::OpenError;
use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
};

/// Where page headers and superblocks lie in a file, as (first byte, bytes), and the size of its pages.
fn heads(name: &str, bytes: usize) -> (Vec<(usize, usize)>, usize) {
    match name {
        "MANIFEST" => (vec![(0, bytes)], bytes),
        "graph.rx" => {
            let first = FIRST_PAGE_OFFSET as usize;
            let pages = (first..bytes).step_by(4096).map(|at| (at, HEADER_BYTES));
            (pages.chain([(0, 112), (4096, 112)]).collect(), 4096)
        }
        _ => ((0..bytes).step_by(BLOB_PAGE).map(|at| (at, HEADER_BYTES)).collect(), BLOB_PAGE),
    }
}

/// Flips one bit of every byte of headers and of one in 509 of the rest of `name`.
fn flip(name: &str) {
    let victim = Victim::new(1);
    let bytes = &victim.files[name];
    let (heads, page_bytes) = heads(name, bytes.len());
    let mut places: Vec<usize> = heads.iter().flat_map(|&(at, count)| at..at + count).collect();
    places.extend((0..bytes.len()).step_by(509));
    let file = OpenOptions::new().write(true).open(victim.file(name)).expect("the file opens");
    for &at in &places {
        let bit = (at * 5 + at / 509) % 8;
        file.write_all_at(&[bytes[at] ^ 1 << bit], at as u64).expect("a flipped bit");
        let what = format!("bit {bit} of byte {at}");
        victim.is_caught(name, &what);
        // The place that is named is the page, or the byte, or the line.
        if let Err(OpenError::Format(FormatError::Corrupt { offset, .. })) = victim.verify()
            && name != "MANIFEST"
        {
            let offset = offset as usize;
            assert!(offset <= at && at - offset < page_bytes, "{name}, {what}: byte {offset} is named");
        }
        file.write_all_at(&bytes[at..=at], at as u64).expect("a bit flipped back");
    }
    assert!(places.len() > 100 && victim.verify().is_ok());
    assert_eq!(victim.ask().as_ref(), Ok(&victim.said));
}

#[test]
fn a_flipped_bit_of_the_manifest_is_found() {
    flip("MANIFEST");
}

#[test]
fn a_flipped_bit_of_the_codebook_is_found() {
    flip("codebook.rx");
}

#[test]
fn a_flipped_bit_of_the_codes_is_found() {
    flip("codes.rx");
}

#[test]
fn a_flipped_bit_of_the_graph_is_found() {
    flip("graph.rx");
}

#[test]
fn a_flipped_bit_of_the_keys_is_found() {
    flip("keys.rx");
}

#[test]
fn a_flipped_bit_of_the_navigation_graph_is_found() {
    flip("nav.rx");
}

#[test]
fn one_damaged_superblock_is_survived_and_verify_tells() {
    let victim = Victim::new(1);
    for copy in [0, 4096] {
        let mut bytes = victim.files["graph.rx"].clone();
        bytes[copy + 40] ^= 1;
        victim.with_file("graph.rx", &bytes, || {
            assert_eq!(victim.ask().as_ref(), Ok(&victim.said), "the other copy serves");
            let text = victim.verify().unwrap_err().to_string();
            assert!(text.contains("graph.rx") && text.contains(&format!("byte {}", copy + 40)), "{text}");
        });
    }
    let mut bytes = victim.files["graph.rx"].clone();
    (bytes[40], bytes[4096 + 40]) = (!bytes[40], !bytes[4096 + 40]);
    victim.with_file("graph.rx", &bytes, || {
        assert_eq!(victim.ask().unwrap_err().0, ErrorClass::Corrupt);
        victim.is_caught("graph.rx", "both superblocks");
    });
}

#[test]
fn a_file_that_was_cut_or_grew_is_refused() {
    let victim = Victim::new(1);
    for name in FILES {
        let bytes = &victim.files[name];
        let len = bytes.len();
        for keep in [0, 1, 8, 40, 100, 4096, 65535, 65536, len / 2, len.saturating_sub(4096), len - 1] {
            if keep < len {
                victim.with_file(name, &bytes[..keep], || {
                    victim.is_caught(name, &format!("cut to {keep}"));
                    assert!(victim.ask().is_err(), "{name} cut to {keep}");
                });
            }
        }
        for more in [1, 4096, 65536] {
            let grown: Vec<u8> = bytes.iter().copied().chain(std::iter::repeat_n(0, more)).collect();
            victim.with_file(name, &grown, || victim.is_caught(name, &format!("{more} bytes more")));
        }
    }
}

#[test]
fn a_missing_file_is_named() {
    let victim = Victim::new(1);
    for name in FILES {
        fs::remove_file(victim.file(name)).unwrap();
        let (class, text) = victim.ask().unwrap_err();
        let verified = victim.verify().unwrap_err();
        // Without a manifest it is no index at all.
        let expected = if name == "MANIFEST" { ErrorClass::BadInput } else { ErrorClass::Corrupt };
        assert_eq!((class, verified.class()), (expected, expected), "{text}");
        assert!(text.contains(name) && verified.to_string().contains(name), "{text}; {verified}");
        victim.heal();
    }
    assert_eq!(victim.ask().as_ref(), Ok(&victim.said));
}

#[test]
fn a_zeroed_stretch_is_found() {
    let victim = Victim::new(1);
    for name in FILES {
        let bytes = &victim.files[name];
        // A sector of 512, a page, and all of it.
        for (start, length) in [(0, 512), (4096, 512), (65536, 4096), (65536 + 512, 512), (0, bytes.len())] {
            let mut zeroed = bytes.clone();
            let end = (start + length).min(bytes.len());
            let Some(stretch) = zeroed.get_mut(start..end) else { continue };
            if stretch.iter().all(|&b| b == 0) {
                continue;
            }
            stretch.fill(0);
            victim.with_file(name, &zeroed, || victim.is_caught(name, &format!("zeros at {start}..{end}")));
        }
    }
}

#[test]
fn what_is_no_index_is_called_so() {
    let dir = roxanne_tests::scratch();
    let file = dir.path().join("base.fbin");
    fs::write(&file, [0; 100]).unwrap();
    for path in [dir.path().to_path_buf(), dir.path().join("absent"), file, dir.path().join("base.fbin/below")] {
        for error in [
            roxanne_engine::Index::open(&path, Default::default()).err().unwrap(),
            roxanne_engine::verify::verify(&path, &mut |_, _| {}).unwrap_err(),
        ] {
            assert_eq!(error.class(), ErrorClass::BadInput, "{}: {error}", path.display());
            assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
        }
    }
}

#[test]
fn verify_counts_what_it_checked() {
    let victim = Victim::new(1);
    let mut steps = Vec::new();
    let report = roxanne_engine::verify::verify(&victim.path, &mut |done, total| steps.push((done, total))).unwrap();
    let sizes: usize = victim.files.iter().filter(|(name, _)| *name != "MANIFEST").map(|(_, bytes)| bytes.len()).sum();
    assert_eq!((report.nodes, report.unreachable, report.bytes), (N, 0, sizes as u64));
    assert_eq!(report.pages, (victim.files["graph.rx"].len() as u64 - FIRST_PAGE_OFFSET) / 4096);
    assert!(report.edges >= N && report.edges <= N * 16);
    let within = roxanne_engine::verify::verify_within(&victim.path, 0, &mut |_, _| ()).unwrap();
    assert_eq!(within, roxanne_engine::verify::VerifyReport { walked: false, ..report.clone() });
    assert!(steps.is_sorted() && steps.last() == Some(&(report.pages, report.pages)), "{steps:?}");
}
