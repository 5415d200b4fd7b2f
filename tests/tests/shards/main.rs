//! Builds in shards: as good as a build in one, the same bytes however often they were stopped, and never mistaken for another's.

use roxanne_builder::{BuildError, BuildParams, Builder, Device, Observer};
use roxanne_core::metric::Metric;
use roxanne_engine::verify::verify;
use roxanne_tests::{SIFT_BASE, SIFT_QUERIES, contents, dataset, names, open, recall, rows, scratch, truth};
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

const MIXTURE: &str = "synth:n=1500,dim=24,clusters=32,seed=5";

fn builder(source: &str, metric: Metric, shards: usize) -> Builder {
    let params = BuildParams { max_degree: 24, reservoir: 64, ..BuildParams::default() };
    Builder::new(metric).params(params).device(Device::Cpu).shards(shards).dataset(dataset(source, metric))
}

/// Every file of a build that nothing disturbed.
fn undisturbed(source: &str, metric: Metric, shards: usize) -> std::collections::BTreeMap<String, Vec<u8>> {
    let dir = scratch();
    builder(source, metric, shards).build(dir.path().join("index")).expect("a built index");
    contents(&dir.path().join("index"))
}

#[test]
fn an_index_in_shards_is_as_good_as_one_in_one_and_worse_without_the_inbox() {
    let (dir, queries) = (scratch(), rows(SIFT_QUERIES, Metric::L2));
    let truth = truth(SIFT_BASE, SIFT_QUERIES, Metric::L2);
    let quality = |name: &str, shards: usize, inbox: usize| {
        let path = dir.path().join(name);
        let params = BuildParams { inbox, ..BuildParams::default() };
        let report = builder(SIFT_BASE, Metric::L2, shards).params(params).build(&path).unwrap();
        assert_eq!((report.shards, report.ghosts > 0), (shards, shards > 1));
        assert_eq!(names(&path), ["MANIFEST", "codebook.rx", "codes.rx", "graph.rx", "keys.rx", "nav.rx"]);
        let verified = verify(&path, &mut |_, _| {}).unwrap();
        assert_eq!((verified.unreachable, verified.nodes), (0, 4000), "{name}");
        recall(&open(&path), &queries, &truth, 16)
    };
    let (one, eight, apart) = (quality("one", 1, 16), quality("eight", 8, 16), quality("apart", 8, 0));
    assert!(eight > one - 0.01, "{eight:.4} in eight shards, {one:.4} in one");
    assert!(apart < eight - 0.005, "{apart:.4} without the inbox, {eight:.4} with it");
}

#[test]
fn every_metric_and_type_has_shards() {
    for (source, metric) in [
        (MIXTURE, Metric::L2),
        (MIXTURE, Metric::Cosine),
        ("synth:n=900,dim=24,type=f16,clusters=32,seed=5", Metric::InnerProduct),
        ("synth:n=900,dim=24,type=i8,clusters=32,seed=5", Metric::Manhattan),
        ("synth:n=900,dim=24,type=u8,clusters=32,seed=5", Metric::Hamming),
    ] {
        let dir = scratch();
        let path = dir.path().join("index");
        builder(source, metric, 3).build(&path).unwrap();
        let verified = verify(&path, &mut |_, _| {}).unwrap();
        assert_eq!(verified.unreachable, 0, "{source} under {metric}");
        let queries = source.replacen("seed", "part=query,seed", 1).replace("n=1500", "n=50").replace("n=900", "n=50");
        let found = recall(&open(&path), &rows(&queries, metric), &truth(source, &queries, metric), 64);
        assert!(found > 0.9, "{source} under {metric}: recall {found:.4}");
    }
}

#[test]
fn shards_that_nothing_comes_to_and_rows_that_are_all_equal_are_no_harm() {
    let dir = scratch();
    let equal = roxanne_tests::write_fbin(&dir.path().join("equal.fbin"), &vec![vec![1.0; 8]; 700]);
    for (source, shards) in [(equal.as_str(), 5), ("synth:n=3,dim=8,seed=1", 4), ("synth:n=300,dim=8,clusters=4,seed=1", 40)] {
        let path = dir.path().join(format!("{shards}.rx"));
        builder(source, Metric::L2, shards).build(&path).unwrap();
        assert_eq!(verify(&path, &mut |_, _| {}).unwrap().unreachable, 0, "{source}");
    }
    assert!(matches!(builder(MIXTURE, Metric::L2, 0).build(dir.path().join("none")), Err(BuildError::Param { name: "shards", .. })));
}

#[test]
fn any_number_of_threads_writes_the_same_bytes() {
    let expected = undisturbed(MIXTURE, Metric::L2, 3);
    for threads in [1, 3] {
        let dir = scratch();
        builder(MIXTURE, Metric::L2, 3).threads(threads).build(dir.path().join("index")).unwrap();
        assert!(contents(&dir.path().join("index")) == expected, "{threads} threads");
    }
}

/// Stops a build at its n-th step.
struct StopsAt {
    left: AtomicU64,
    stop: Arc<AtomicBool>,
}

impl Observer for StopsAt {
    fn phase(&self, _: &'static str, _: u64, _: &'static str) {}
    fn advance(&self, _: u64) {
        if self.left.fetch_sub(1, Relaxed) == 1 {
            self.stop.store(true, Relaxed);
        }
    }
}

/// Builds until the n-th step; whether it was stopped.
fn stopped_at(step: u64, path: &Path, source: &str) -> bool {
    let stop = Arc::new(AtomicBool::new(false));
    let observer = Arc::new(StopsAt { left: AtomicU64::new(step), stop: stop.clone() });
    match builder(source, Metric::L2, 3).observer(observer).stop(stop).build(path) {
        Ok(_) => false,
        Err(BuildError::Paused { path: checkpoint }) => {
            assert!(checkpoint.join("JOURNAL").exists() && !path.exists());
            true
        }
        Err(BuildError::Stopped) => true,
        Err(error) => panic!("step {step}: {error}"),
    }
}

#[test]
fn a_build_stopped_anywhere_ends_with_the_same_bytes() {
    for source in [MIXTURE, "synth:n=1500,dim=24,type=u8,clusters=32,seed=5"] {
        let expected = undisturbed(source, Metric::L2, 3);
        let mut steps = 0;
        for step in 1.. {
            let dir = scratch();
            let path = dir.path().join("index");
            if !stopped_at(step, &path, source) {
                break;
            }
            // Stopped once more on its way, a little later, and then left in peace.
            stopped_at(3, &path, source);
            if !path.exists() {
                builder(source, Metric::L2, 3).build(&path).unwrap();
            }
            assert!(contents(&path) == expected, "{source}: stopped at step {step}");
            steps = step;
        }
        assert!(steps > 20, "{steps} steps are too few to be all of a build");
    }
}

#[test]
fn a_checkpoint_is_taken_for_its_own_build_alone() {
    let dir = scratch();
    let path = dir.path().join("index");
    assert!(stopped_at(12, &path, MIXTURE));
    let refused = |builder: Builder| match builder.build(&path) {
        Err(BuildError::OtherCheckpoint { path }) => assert!(path.join("JOURNAL").exists()),
        other => panic!("{other:?}"),
    };
    refused(builder(MIXTURE, Metric::L2, 4));
    refused(builder(MIXTURE, Metric::L2, 1));
    let other = builder(&MIXTURE.replace("seed=5", "seed=6"), Metric::L2, 3).build(&path);
    assert!(matches!(other, Err(BuildError::InputChanged { .. })), "{other:?}");
    let more = BuildParams { max_degree: 25, ..BuildParams::default() };
    refused(builder(MIXTURE, Metric::L2, 3).params(more.clone()));
    builder(MIXTURE, Metric::L2, 3).params(more).fresh().build(&path).unwrap();
    assert!(names(dir.path()).iter().all(|name| name == "index"), "{:?}", names(dir.path()));
}

#[test]
fn as_few_shards_are_planned_as_memory_allows_and_a_budget_below_all_is_refused() {
    let plan = |ram: u64| {
        let budget = roxanne_core::Budget::ram(ram);
        Builder::new(Metric::L2).budget(budget).dataset(dataset("synth:n=10000000,dim=128,type=u8", Metric::L2)).plan().unwrap()
    };
    let (all, two, one) = (plan(64 << 30), plan(2 << 30), plan(1 << 30));
    assert_eq!(all.shards, 1);
    assert!(two.shards > 5 && one.shards > two.shards, "{} and {} shards", two.shards, one.shards);
    assert!(two.peak_ram_bytes <= 2 << 30 && two.disk_bytes > two.index_bytes);
    let budget = roxanne_core::Budget::ram(100 << 20);
    let error = Builder::new(Metric::L2)
        .budget(budget)
        .dataset(dataset("synth:n=100000000,dim=128,type=u8", Metric::L2))
        .build(scratch().path().join("x"))
        .unwrap_err();
    assert!(matches!(error, BuildError::Budget { what: "memory", .. }), "{error}");
}

#[test]
fn a_shard_that_outgrows_its_plan_is_refused_with_the_number_that_would_do() {
    let dir = scratch();
    // All in one place: whatever the cuts are, most go to few shards. The budget is for even ones.
    let equal = roxanne_tests::write_fbin(&dir.path().join("equal.fbin"), &vec![vec![1.0; 32]; 150_000]);
    let budget = roxanne_core::Budget::ram(200 << 20);
    let error =
        Builder::new(Metric::L2).budget(budget).device(Device::Cpu).dataset(dataset(&equal, Metric::L2)).build(dir.path().join("x"));
    match error {
        Err(BuildError::ShardOutgrown { members, planned, shards, more }) => {
            assert!(members > planned && members <= 150_000 && more > shards as u64, "{members} of {planned}, {more} for {shards}");
        }
        other => panic!("{other:?}"),
    }
}

/// Overwrites the input when a phase begins.
struct Overwrites {
    path: std::path::PathBuf,
    phase: &'static str,
}

impl Observer for Overwrites {
    fn phase(&self, name: &'static str, _: u64, _: &'static str) {
        if name == self.phase {
            let mut bytes = std::fs::read(&self.path).expect("the input");
            // One bit of one row, in the middle.
            let at = bytes.len() / 2;
            bytes[at] ^= 1;
            std::fs::write(&self.path, bytes).expect("the input");
        }
    }
    fn advance(&self, _: u64) {}
}

#[test]
fn one_row_that_changes_between_two_readings_of_a_build_in_one_shard_is_noticed() {
    let dir = scratch();
    let path = dir.path().join("rows.fbin");
    let source = roxanne_tests::write_fbin(&path, &rows("synth:n=300,dim=8,seed=2", Metric::L2));
    let observer = Arc::new(Overwrites { path, phase: "prune" });
    let outcome = builder(&source, Metric::L2, 1).observer(observer).build(dir.path().join("index"));
    assert!(matches!(outcome, Err(BuildError::InputChanged { .. })), "{outcome:?}");
    assert_eq!(names(dir.path()), ["rows.fbin"]);
}
