//! The bill before the work, held against the work.

use roxanne_builder::{BuildError, BuildParams, Builder};
use roxanne_core::{Budget, ErrorClass, format::keys::KeyList, metric::Metric};
use roxanne_tests::{SIFT_BASE, contents, dataset, names, open, scratch};

/// Most bytes of pages that a rotation takes.
fn rotation_bytes(metric: Metric, dim: usize) -> u64 {
    let dim = if metric == Metric::InnerProduct { (dim + 1).next_multiple_of(32) } else { dim } as u64;
    (2 * dim * dim).next_multiple_of(65536) + 65536
}

fn near(planned: u64, got: u64) -> bool {
    planned.abs_diff(got) * 100 <= got
}

#[test]
fn a_plan_knows_the_size_of_the_index() {
    for (source, metric, degree) in [
        (SIFT_BASE, Metric::L2, 48),
        ("synth:n=1000,dim=100", Metric::Cosine, 32),
        ("synth:n=1000,dim=100", Metric::InnerProduct, 32),
        ("synth:n=800,dim=96,type=f16", Metric::Manhattan, 64),
        ("synth:n=2000,dim=256,type=binary", Metric::Hamming, 24),
        ("synth:n=1,dim=1", Metric::L2, 48),
    ] {
        let dir = scratch();
        let path = dir.path().join("index");
        let params = BuildParams { max_degree: degree, ..BuildParams::default() };
        let mut builder = Builder::new(metric).params(params).dataset(dataset(source, metric));
        let plan = builder.plan().unwrap();
        let report = builder.build(&path).unwrap();
        let files: u64 = contents(&path).iter().filter(|(name, _)| *name != "MANIFEST").map(|(_, bytes)| bytes.len() as u64).sum();
        let index = open(&path);
        let info = index.info();
        // Whether codes are rotated is known when they are trained: a plan has room for the rotation, and is exact but for it.
        let spare = if info.rotated || metric == Metric::Manhattan { 0 } else { rotation_bytes(metric, plan.dim) };
        let got = files..=files + spare;
        assert!(got.contains(&plan.index_bytes), "{source}: {} planned, {got:?} would be right", plan.index_bytes);
        assert_eq!((files, files), (report.index_bytes, info.index_bytes), "{source}");
        assert_eq!((plan.n, plan.dim, plan.code_bytes), (info.n, info.dim, info.code_bytes), "{source}");
        assert_eq!(
            (plan.page_bytes, plan.record_bytes, plan.records_per_page),
            (info.page_bytes, info.record_bytes, info.records_per_page)
        );
        assert!(
            plan.serve_ram_bytes >= info.resident_bytes,
            "{source}: {} planned, {} resident",
            plan.serve_ram_bytes,
            info.resident_bytes
        );
        assert!(plan.disk_bytes >= files && plan.peak_ram_bytes > plan.n * plan.dim as u64 / 8, "{source}: {plan:?}");
    }
}

#[test]
fn keys_are_on_the_bill() {
    let keys = KeyList::Strings((0..1500).map(|row| format!("{row:0>200}")).collect());
    let dir = scratch();
    let mut builder = Builder::new(Metric::L2).dataset(dataset("synth:n=1500,dim=8", Metric::L2)).keys(keys);
    let plan = builder.plan().unwrap();
    let report = builder.build(dir.path().join("index")).unwrap();
    assert!(near(plan.index_bytes, report.index_bytes), "{} planned, {}", plan.index_bytes, report.index_bytes);
}

#[test]
fn a_budget_too_small_is_refused_with_both_numbers_before_any_work() {
    let dir = scratch();
    let refused = |budget: Budget| {
        let builder = Builder::new(Metric::L2).budget(budget).dataset(dataset(SIFT_BASE, Metric::L2));
        let error = builder.build(dir.path().join("index")).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Budget, "{error}");
        let BuildError::Budget { needed, allowed, .. } = error else { panic!("{error}") };
        assert!(error.to_string().contains(&needed.to_string()) && error.to_string().contains(&allowed.to_string()), "{error}");
        (needed, allowed)
    };
    let plan = Builder::new(Metric::L2).dataset(dataset(SIFT_BASE, Metric::L2)).plan().unwrap();
    assert_eq!(refused(Budget::ram(1 << 20)), (plan.peak_ram_bytes, 1 << 20));
    assert_eq!(refused(Budget { disk: 1000, ..Budget::default() }), (plan.disk_bytes, 1000));
    assert_eq!(refused(Budget::ram(plan.peak_ram_bytes - 1)).1, plan.peak_ram_bytes - 1);
    assert!(names(dir.path()).is_empty());
    let exact = Budget { ram: plan.peak_ram_bytes, disk: plan.disk_bytes, vram: 0 };
    Builder::new(Metric::L2).budget(exact).dataset(dataset(SIFT_BASE, Metric::L2)).build(dir.path().join("index")).unwrap();
}

#[test]
fn a_build_needs_an_input() {
    assert!(matches!(Builder::new(Metric::L2).plan(), Err(BuildError::NoInput)));
    assert!(matches!(Builder::new(Metric::L2).build("nowhere"), Err(BuildError::NoInput)));
}

#[test]
fn memory_of_keys_is_on_the_bill() {
    let peak = |keys: Option<KeyList>| {
        let builder = Builder::new(Metric::L2).dataset(dataset("synth:n=1500,dim=8", Metric::L2));
        keys.into_iter().fold(builder, Builder::keys).plan().unwrap().peak_ram_bytes
    };
    assert_eq!(peak(Some(KeyList::Numbers((0..1500).collect()))) - peak(None), 1500 * 12);
    let texts = KeyList::Strings((0..1500).map(|row| format!("{row:0>200}")).collect());
    assert!(peak(Some(texts)) - peak(None) > 1500 * 240);
}
