//! Bytes made to do harm, under checksums that are right: refused before anything is allocated or indexed by them.

use crate::victim::{N, Victim};
use roxanne_core::{
    ErrorClass,
    format::{
        blob::{BLOB_PAGE, BLOB_PAYLOAD},
        manifest::Manifest,
        page::{self, HEADER_BYTES, PageHeader},
        record::RecordLayout,
        superblock::{FIRST_PAGE_OFFSET, Superblock},
    },
    random::CounterRng,
};
use roxanne_engine::verify::verify_within;
use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

const FIRST: usize = FIRST_PAGE_OFFSET as usize;

/// Changes a page and seals it anew, so that only its content is wrong.
fn resealed(bytes: &[u8], at: usize, page_bytes: usize, change: impl FnOnce(&mut PageHeader, &mut [u8])) -> Vec<u8> {
    let mut out = bytes.to_vec();
    let page = &mut out[at..at + page_bytes];
    let mut header: PageHeader = bytemuck::pod_read_unaligned(&page[..HEADER_BYTES]);
    change(&mut header, page);
    page::seal(page, header);
    out
}

/// The same for the payload of the first page of a blob.
fn blob(victim: &Victim, name: &str, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    resealed(&victim.files[name], 0, BLOB_PAGE, |_, page| change(&mut page[HEADER_BYTES..]))
}

fn layout(victim: &Victim) -> RecordLayout {
    let manifest = manifest(victim);
    RecordLayout::new(manifest.element, manifest.dim, 16, N).expect("a layout")
}

fn manifest(victim: &Victim) -> Manifest {
    Manifest::parse(&victim.files["MANIFEST"], Path::new("MANIFEST")).expect("a whole manifest")
}

fn superblock(victim: &Victim) -> Superblock {
    bytemuck::pod_read_unaligned(&victim.files["graph.rx"][..size_of::<Superblock>()])
}

/// Changes every record of every page of graph.rx.
fn records(victim: &Victim, change: impl Fn(&mut [u8])) -> Vec<u8> {
    let (layout, mut bytes) = (layout(victim), victim.files["graph.rx"].clone());
    for at in (FIRST..bytes.len()).step_by(layout.page_bytes) {
        bytes = resealed(&bytes, at, layout.page_bytes, |header, page| {
            let records = page[HEADER_BYTES..].chunks_exact_mut(layout.record_bytes);
            records.take(usize::from(header.live)).for_each(&change);
        });
    }
    bytes
}

/// Holds that both doors call it corruption.
fn refused(victim: &Victim, file: &str, bytes: &[u8], what: &str) {
    victim.with_file(file, bytes, || {
        let verified = victim.verify().map_err(|error| error.class());
        assert_eq!(verified.err(), Some(ErrorClass::Corrupt), "{file}, {what}: verify");
        let asked = victim.ask().map_err(|(class, text)| (class, text.contains("corrupt")));
        assert_eq!(asked.err(), Some((ErrorClass::Corrupt, true)), "{file}, {what}: search");
    });
}

/// The most memory this process ever mapped.
fn peak_mapped_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("the kernel tells");
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:")).expect("a line VmPeak");
    line.trim().trim_end_matches("kB").trim().parse::<u64>().expect("kilobytes") * 1024
}

/// Runs `attack` and holds that it maps no great stretch of memory.
fn without_great_allocation(attack: impl FnOnce()) {
    let before = peak_mapped_bytes();
    attack();
    let grown = peak_mapped_bytes() - before;
    assert!(grown < 2 << 30, "{grown} bytes were mapped for an index of a few hundred kilobytes");
}

#[test]
fn a_neighbor_beyond_the_last_node_is_refused() {
    let victim = Victim::new(1);
    let at = 16 + layout(&victim).row_bytes;
    let bytes = records(&victim, |record| (record[at], record[at + 1]) = (0xFF, 0xFF));
    refused(&victim, "graph.rx", &bytes, "neighbor 511 of 300");
}

#[test]
fn a_degree_above_the_maximum_is_refused() {
    let victim = Victim::new(1);
    for degree in [17u16, 1000, u16::MAX] {
        let bytes = records(&victim, |record| record[8..10].copy_from_slice(&degree.to_le_bytes()));
        refused(&victim, "graph.rx", &bytes, &format!("degree {degree} of 16"));
    }
}

#[test]
fn islands_are_counted_with_and_without_the_graph_in_memory() {
    let victim = Victim::new(1);
    let bytes = records(&victim, |record| {
        record[8..10].fill(0);
        record[16 + layout(&victim).row_bytes..].fill(0);
    });
    victim.with_file("graph.rx", &bytes, || {
        for (ram, walked) in [(u64::MAX, true), (0, false)] {
            let report = verify_within(&victim.path, ram, &mut |_, _| ()).unwrap();
            assert_eq!((report.walked, report.edges, report.unreachable), (walked, 0, N - 1));
        }
    });
}

#[test]
fn a_key_of_another_is_met_without_all_keys_in_memory() {
    let victim = Victim::new(1);
    let bytes = records(&victim, |record| record[0] ^= 1);
    victim.with_file("graph.rx", &bytes, || {
        for ram in [u64::MAX, 0] {
            assert!(verify_within(&victim.path, ram, &mut |_, _| ()).unwrap_err().to_string().contains("bears another"));
        }
    });
}

#[test]
fn more_records_than_a_page_holds_are_refused() {
    let victim = Victim::new(1);
    let (layout, graph) = (layout(&victim), &victim.files["graph.rx"]);
    for live in [layout.per_page as u16 + 1, 1000, u16::MAX] {
        let mut bytes = graph.clone();
        for at in (FIRST..graph.len()).step_by(layout.page_bytes) {
            bytes = resealed(&bytes, at, layout.page_bytes, |header, _| header.live = live);
        }
        refused(&victim, "graph.rx", &bytes, &format!("{live} records"));
    }
    // The last page is not full: one more would be a node that does not exist.
    let last = graph.len() - layout.page_bytes;
    let full = resealed(graph, last, layout.page_bytes, |header, _| header.live += 1);
    victim.with_file("graph.rx", &full, || victim.is_caught("graph.rx", "one record beyond the last node"));
    // Too few: a node that is not where it must be.
    let empty = resealed(graph, FIRST, layout.page_bytes, |header, _| header.live = 0);
    victim.with_file("graph.rx", &empty, || {
        assert_eq!(victim.verify().unwrap_err().class(), ErrorClass::Corrupt);
        assert_eq!(victim.ask().unwrap_err().0, ErrorClass::Corrupt);
    });
}

#[test]
fn a_superblock_that_disagrees_with_the_manifest_is_refused() {
    let victim = Victim::new(1);
    let block = superblock(&victim);
    let lies = [
        ("n", Superblock { n: N + 1, ..block }),
        ("n", Superblock { n: u64::MAX, ..block }),
        ("page_count", Superblock { page_count: block.page_count + 1, ..block }),
        ("page_count", Superblock { page_count: u64::MAX, ..block }),
        ("page_bytes", Superblock { page_bytes: 0, ..block }),
        ("page_bytes", Superblock { page_bytes: 8192, ..block }),
        ("record_bytes", Superblock { record_bytes: 1, ..block }),
        ("id_bits", Superblock { id_bits: 64, ..block }),
        ("max_degree", Superblock { max_degree: 0, ..block }),
        ("max_degree", Superblock { max_degree: 65_536 + 16, ..block }),
        ("max_degree", Superblock { max_degree: u64::MAX, ..block }),
        ("entry", Superblock { entry: N, ..block }),
        ("entry", Superblock { entry: u64::MAX, ..block }),
        ("file_id", Superblock { file_id: !block.file_id, ..block }),
    ];
    for (name, lie) in lies {
        let mut bytes = victim.files["graph.rx"].clone();
        bytes[..FIRST].copy_from_slice(&lie.to_head());
        without_great_allocation(|| refused(&victim, "graph.rx", &bytes, name));
    }
}

#[test]
fn a_graph_without_neighbors_is_refused() {
    // Everything agrees: superblock, manifest, lengths. Only no builder makes a graph of degree 0.
    let victim = Victim::new(1);
    let mut manifest = manifest(&victim);
    let layout = RecordLayout::new(manifest.element, manifest.dim, 0, N).unwrap();
    let (page_count, page_bytes) = (layout.page_count(N), layout.page_bytes as u64);
    let record_bytes = layout.record_bytes as u64;
    let block = Superblock { max_degree: 0, page_count, page_bytes, record_bytes, ..superblock(&victim) };
    let mut graph = block.to_head();
    for number in 0..page_count {
        let mut page = vec![0; layout.page_bytes];
        let live = (N - layout.first_node(number)).min(layout.per_page as u64) as u16;
        page::seal(&mut page, PageHeader { file_id: block.file_id, page: number, live, ..PageHeader::default() });
        graph.extend_from_slice(&page);
    }
    manifest.files.iter_mut().filter(|f| f.name == "graph.rx").for_each(|f| f.bytes = graph.len() as u64);
    fs::write(victim.file("graph.rx"), &graph).unwrap();
    fs::write(victim.file("MANIFEST"), manifest.to_text()).unwrap();
    let verified = catch_unwind(AssertUnwindSafe(|| victim.verify())).expect("verify panicked");
    assert!(verified.map_or_else(|error| error.class() == ErrorClass::Corrupt, |report| report.unreachable == N - 1));
    let _ = catch_unwind(AssertUnwindSafe(|| victim.ask())).expect("a search panicked");
}

#[test]
fn a_manifest_of_another_shape_is_refused() {
    let victim = Victim::new(1);
    let right = manifest(&victim);
    let changed = |change: &dyn Fn(&mut Manifest)| {
        let mut manifest = right.clone();
        change(&mut manifest);
        manifest.to_text()
    };
    let lies = [
        ("n 0", changed(&|m| m.n = 0)),
        ("n 1", changed(&|m| m.n = 1)),
        ("n 2^32 - 16", changed(&|m| m.n = u64::from(u32::MAX) - 15)),
        ("n 2^64 - 1", changed(&|m| m.n = u64::MAX)),
        ("dim 0", changed(&|m| m.dim = 0)),
        ("dim 23", changed(&|m| m.dim = 23)),
        ("dim 8192", changed(&|m| m.dim = 8192)),
        ("dim 2^63", changed(&|m| m.dim = 1 << 63)),
        ("f32", changed(&|m| m.element = roxanne_core::element::ElementType::F32)),
        ("hamming", changed(&|m| m.metric = roxanne_core::metric::Metric::Hamming)),
        ("another generation", changed(&|m| m.generation ^= 1)),
        ("a path", changed(&|m| m.files[0].name = "../graph.rx".into())),
        ("a hidden file", changed(&|m| m.files[0].name = ".graph.rx".into())),
        ("a file as long as can be", changed(&|m| m.files[0].bytes = u64::MAX)),
    ];
    for (what, text) in lies {
        without_great_allocation(|| refused(&victim, "MANIFEST", text.as_bytes(), what));
    }
    // A file that is not named at all: no index of this version.
    for name in ["codes.rx", "codebook.rx", "nav.rx", "keys.rx"] {
        let text = changed(&|m| m.files.retain(|f| f.name != name));
        victim.with_file("MANIFEST", text.as_bytes(), || {
            assert!(victim.verify().unwrap_err().to_string().contains(name));
            assert!(victim.ask().unwrap_err().1.contains(name));
        });
    }
}

#[test]
fn lengths_whose_products_wrap_are_refused_before_allocation() {
    let victim = Victim::new(1);
    // (2^48 + 1) pages of 2^16 bytes are 2^64 + 2^16, which 64 bits take for one page.
    let wrapping = ((1u64 << 48) + 1) * BLOB_PAYLOAD as u64;
    for name in ["codes.rx", "codebook.rx", "nav.rx", "keys.rx"] {
        for payload_bytes in [wrapping, u64::MAX, u64::MAX / 2, 0, 1, 65_497] {
            let mut manifest = manifest(&victim);
            manifest.files.iter_mut().filter(|f| f.name == name).for_each(|f| f.payload_bytes = payload_bytes);
            let what = format!("{name} with a payload of {payload_bytes}");
            let attack = || refused(&victim, "MANIFEST", manifest.to_text().as_bytes(), &what);
            without_great_allocation(|| catch_unwind(AssertUnwindSafe(attack)).unwrap_or_else(|_| panic!("{what}: panicked")));
        }
    }
}

#[test]
fn a_navigation_graph_that_leads_astray_is_refused() {
    let victim = Victim::new(1);
    let payload = &victim.files["nav.rx"][HEADER_BYTES..];
    let word = |at: usize| u32::from_le_bytes(payload[at * 4..][..4].try_into().unwrap());
    let (count, degree) = (word(0) as usize, word(1) as usize);
    assert_eq!((count, degree), (256, 32));
    let (ids, degrees, neighbors) = (4, 4 + count, 4 + 2 * count);
    let lies = [
        ("count", 0, 0),
        ("count", 0, u32::MAX),
        ("degree", 1, 0),
        ("degree", 1, 1025),
        ("degree", 1, u32::MAX),
        ("entry", 2, count as u32),
        ("entry", 2, u32::MAX),
        ("id", ids, N as u32),
        ("id", ids + count - 1, u32::MAX),
        ("degree of a row", degrees + 7, degree as u32 + 1),
        ("degree of a row", degrees, u32::MAX),
        ("neighbor", neighbors, count as u32),
        ("neighbor", neighbors + degree, u32::MAX),
    ];
    for (what, at, value) in lies {
        let bytes = blob(&victim, "nav.rx", |payload| payload[at * 4..][..4].copy_from_slice(&value.to_le_bytes()));
        without_great_allocation(|| refused(&victim, "nav.rx", &bytes, &format!("{what} {value}")));
    }
}

#[test]
fn keys_that_lead_beyond_the_file_are_refused() {
    let victim = Victim::new(1);
    let put = |at: usize, value: u64| {
        move |payload: &mut [u8]| {
            payload[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
    };
    for (what, at, value) in [("kind", 0, 3), ("kind", 0, u64::MAX), ("count", 8, N + 1), ("count", 8, u64::MAX)] {
        refused(&victim, "keys.rx", &blob(&victim, "keys.rx", put(at, value)), what);
    }
    // Every entry of both tables, so that every lookup meets it: the first 8 bytes are the offset, the next 4 the length, then the node.
    let entries =
        |change: fn(&mut [u8])| blob(&victim, "keys.rx", |payload| payload[16..16 + 32 * N as usize].chunks_exact_mut(16).for_each(change));
    type Lie = (&'static str, fn(&mut [u8]));
    let lies: [Lie; 7] = [
        ("offset 2^64 - 1", |entry| entry[..8].fill(0xFF)),
        ("offset past the end", |entry| entry[..8].copy_from_slice(&60_000u64.to_le_bytes())),
        ("length 2^32 - 1", |entry| entry[8..12].fill(0xFF)),
        ("length 513", |entry| entry[8..12].copy_from_slice(&513u32.to_le_bytes())),
        ("offset and length that wrap", |entry| {
            entry[..8].copy_from_slice(&(u64::MAX - 100).to_le_bytes());
            entry[8..12].copy_from_slice(&200u32.to_le_bytes());
        }),
        ("bytes that are no text", |entry| entry[..8].copy_from_slice(&0u64.to_le_bytes())),
        ("node 2^32 - 1", |entry| entry[12..16].fill(0xFF)),
    ];
    for (what, change) in lies {
        let bytes = entries(change);
        victim.with_file("keys.rx", &bytes, || {
            without_great_allocation(|| match victim.ask() {
                Err((class, text)) => assert_eq!(class, ErrorClass::Corrupt, "{what}: {text}"),
                // Bytes of the head happen to be text; then the key is not found, or another's.
                Ok(_) => assert_eq!(what, "bytes that are no text"),
            });
            let verified = victim.verify().map_err(|error| error.class());
            assert_eq!(verified.err(), Some(ErrorClass::Corrupt), "{what}: verify checks where keys lead");
        });
    }
}

#[test]
fn a_codebook_of_another_shape_is_refused() {
    let victim = Victim::new(1);
    // Behind the 16 bytes of the codec: dim, subspaces, rotated, reserved.
    for (what, word, value) in [
        ("dim", 0, 0),
        ("dim", 0, 23),
        ("dim", 0, u32::MAX),
        ("subspaces", 1, 0),
        ("subspaces", 1, 23),
        ("subspaces", 1, u32::MAX),
        ("rotated", 2, 1),
        ("reserved", 3, 9),
    ] {
        let at = 16 + 4 * word;
        let bytes = blob(&victim, "codebook.rx", |payload| payload[at..at + 4].copy_from_slice(&u32::to_le_bytes(value)));
        without_great_allocation(|| refused(&victim, "codebook.rx", &bytes, &format!("{what} {value}")));
    }
}

#[test]
fn no_bytes_under_a_right_checksum_make_it_panic() {
    let victim = Victim::new(1);
    let rng = CounterRng::new(77);
    let page_bytes = layout(&victim).page_bytes;
    without_great_allocation(|| {
        for (number, name) in (0..).zip(["codebook.rx", "codes.rx", "graph.rx", "keys.rx", "nav.rx"]) {
            let whole = &victim.files[name];
            let (first, size) = if name == "graph.rx" { (FIRST, page_bytes) } else { (0, BLOB_PAGE) };
            for case in 0..150 {
                let random = rng.part(number).part(case);
                let mut bytes = whole.clone();
                for change in 0..=case % 12 {
                    let draw = |what: u64, below: usize| random.below(change * 8 + what, below as u64) as usize;
                    let at = first + draw(0, (whole.len() - first) / size) * size;
                    // Heads of payloads are where numbers are; everything else now and then.
                    let place = HEADER_BYTES + if draw(1, 3) > 0 { draw(2, 64) } else { draw(3, size - HEADER_BYTES - 8) };
                    let value = [0, u64::MAX, 1 << 31, N, random.at(change * 8 + 4)][draw(5, 5)];
                    let width = [1, 2, 4, 8][draw(6, 4)];
                    bytes = resealed(&bytes, at, size, |_, page| {
                        page[place..place + width].copy_from_slice(&value.to_le_bytes()[..width]);
                    });
                }
                victim.with_file(name, &bytes, || {
                    let outcome = catch_unwind(AssertUnwindSafe(|| (victim.verify().is_ok(), victim.ask().is_ok())));
                    assert!(outcome.is_ok(), "{name}, case {case}: panicked");
                });
            }
        }
    });
}
