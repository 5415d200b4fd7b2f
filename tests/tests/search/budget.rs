//! What is kept in memory, and that it is refused before it is loaded.

use roxanne_builder::BuildParams;
use roxanne_core::{Budget, ErrorClass, metric::Metric};
use roxanne_engine::{Index, OpenError};
use roxanne_tests::{SIFT_BASE, build, contents, open, scratch};
use std::fs;

#[test]
fn an_index_beyond_the_budget_is_refused_with_both_numbers() {
    let dir = scratch();
    let path = dir.path().join("index");
    build(SIFT_BASE, Metric::L2, BuildParams::default(), &path);
    let refused = |ram| match Index::open(&path, Budget::ram(ram)) {
        Err(error) => {
            assert_eq!(error.class(), ErrorClass::Budget, "{error}");
            let OpenError::Budget { needed, allowed, .. } = error else { panic!("{error}") };
            assert!(error.to_string().contains(&needed.to_string()) && error.to_string().contains(&allowed.to_string()), "{error}");
            assert_eq!(allowed, ram);
            needed
        }
        Ok(_) => panic!("opened within {ram} bytes"),
    };
    let needed = refused(1000);
    assert_eq!(refused(needed - 1), needed);
    let index = Index::open(&path, Budget::ram(needed)).unwrap();
    assert!(index.info().resident_bytes < needed, "{} of {needed}", index.info().resident_bytes);
    // Refused before the codes are read: damage in them is not met.
    let codes = path.join("codes.rx");
    let mut bytes = fs::read(&codes).unwrap();
    bytes[100] ^= 1;
    fs::write(&codes, &bytes).unwrap();
    assert_eq!(refused(1000), needed);
    assert_eq!(Index::open(&path, Budget::ram(needed)).err().unwrap().class(), ErrorClass::Corrupt);
}

#[test]
fn what_is_resident_is_codes_codebook_and_navigation_graph() {
    let dir = scratch();
    let path = dir.path().join("index");
    let report = build(SIFT_BASE, Metric::L2, BuildParams::default(), &path);
    let (index, files) = (open(&path), contents(&path));
    let info = index.info();
    let codes = info.n * info.code_bytes as u64;
    assert_eq!((info.n, info.dim, info.code_bytes, info.max_degree), (4000, 128, 32, 48));
    assert!(info.resident_bytes >= codes && info.resident_bytes <= codes + 400_000, "{} resident, {codes} of codes", info.resident_bytes);
    assert!(info.resident_bytes < files["graph.rx"].len() as u64, "the graph is not among it");
    assert_eq!(info.index_bytes, report.index_bytes);
    assert_eq!(info.page_count, info.n.div_ceil(info.records_per_page as u64));
    assert_eq!(files["graph.rx"].len() as u64, 65536 + info.page_count * info.page_bytes as u64);
    assert!(info.nav_nodes >= info.n / 100 && info.nav_nodes <= info.n);
}
