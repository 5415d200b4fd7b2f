//! Whole graphs and whole indexes, equal to those of the plainest CPU code.

use crate::{
    cases::{Case, Effort, Pattern},
    cuda_host,
    present::{cpu, present},
};
use roxanne_builder::{
    BuildError, BuildParams, Builder, Device, Observer,
    backend::{Backend, BackendError, BuildCodes, wgpu::Wgpu},
    graph_build::{BuiltGraph, build_graph},
    progress::{Silent, Watch},
};
use roxanne_core::{dataset::Dataset, metric::Metric, tile::BuildMetric};
use roxanne_tests::{SIFT_BASE, contents};
use std::sync::atomic::AtomicBool;

fn built<B: Backend>(codes: BuildCodes, params: &BuildParams, backend: &B) -> Result<BuiltGraph, BuildError> {
    let graph = params.graph(codes.stride)?;
    build_graph(codes, &graph, backend, &Watch::new(&Silent, &AtomicBool::new(false)))
}

/// Rows of the sample, which the binary carries: it may run on a machine that has nothing else of the repository.
fn sift(n: usize) -> BuildCodes {
    let file = include_bytes!("../../data/sift-sample.base.u8bin");
    BuildCodes { metric: BuildMetric::L2, stride: 128, bytes: file[8..][..n * 128].to_vec() }
}

pub(crate) fn graphs<B: Backend>(backend: &B, effort: Effort) {
    let small = |n: usize, metric, stride, pattern| Case { metric, stride, pattern, k: 1 }.codes(n, 6);
    let mut inputs = vec![
        small(1, BuildMetric::L2, 32, Pattern::Any),
        small(2, BuildMetric::L2, 32, Pattern::Any),
        small(257, BuildMetric::L2, 64, Pattern::Equal),
        small(500, BuildMetric::Hamming, 32, Pattern::Any),
        small(400, BuildMetric::Manhattan, 32, Pattern::Any),
        sift(if effort == Effort::Whole { 4000 } else { 900 }),
    ];
    if effort == Effort::Whole {
        inputs.extend([small(255, BuildMetric::L2, 96, Pattern::Any), small(3000, BuildMetric::L2, 32, Pattern::Few)]);
    }
    let params = BuildParams { max_degree: 20, reservoir: 48, ..BuildParams::default() };
    for codes in inputs {
        let what = format!("{} x {} under {:?}", codes.n(), codes.stride, codes.metric);
        let expected = built(codes.clone(), &params, &cpu("scalar").unwrap()).unwrap();
        let found = built(codes, &params, backend).unwrap();
        assert!(found.order == expected.order && found.codes.bytes == expected.codes.bytes, "{what}: another order");
        assert!(found.graph == expected.graph && found.entry == expected.entry, "{what}: another graph");
    }
}

#[test]
fn an_index_built_on_a_wgpu_adapter_is_the_same_bytes() {
    present("wgpu", crate::present::wgpu(), |_| {
        let folder = tempfile::tempdir().unwrap();
        let build = |name: &str, device: Device| {
            let dataset = Dataset::open(SIFT_BASE).unwrap().limit(600);
            let report = Builder::new(Metric::L2).device(device).dataset(dataset).build(folder.path().join(name)).unwrap();
            (contents(&folder.path().join(name)), report.backend)
        };
        let (expected, _) = build("cpu.rx", Device::Cpu);
        let (found, backend) = build("wgpu.rx", Device::Wgpu(None));
        assert!(backend.starts_with("wgpu") && found == expected, "{backend}");
    });
}

#[test]
fn an_index_of_awkward_shape_is_the_same_bytes() {
    present("wgpu", crate::present::wgpu(), |_| {
        let folder = tempfile::tempdir().unwrap();
        // (metric, vectors, dimensions, their type)
        for (metric, n, dim, element) in [
            (Metric::L2, 1, 31, "u8"),
            (Metric::L2, 2, 1, "f32"),
            (Metric::L2, 300, 3, "u8"),
            (Metric::Cosine, 300, 33, "f32"),
            (Metric::InnerProduct, 300, 100, "f32"),
            (Metric::Manhattan, 270, 1024, "u8"),
            (Metric::Hamming, 300, 9, "u8"),
        ] {
            let build = |device: Device| {
                let path = folder.path().join(format!("{metric}-{n}-{dim}-{device}"));
                let source = format!("synth:n={n},dim={dim},type={element},seed=4,clusters=3");
                let report = Builder::new(metric).device(device).input(&source).unwrap().build(&path).unwrap();
                (contents(&path), report.backend)
            };
            let (expected, _) = build(Device::Cpu);
            let (found, backend) = build(Device::Wgpu(None));
            assert!(found == expected && !backend.contains("failed"), "{metric} {n} x {dim}: {backend}");
        }
    });
}

/// Loses the device when a phase begins.
struct LosesAt<'a>(&'a Wgpu, &'static str);

impl Observer for LosesAt<'_> {
    fn phase(&self, name: &'static str, _: u64, _: &'static str) {
        if name == self.1 {
            self.0.gpu().destroy();
        }
    }
    fn advance(&self, _: u64) {}
}

#[test]
fn a_device_lost_in_the_middle_leaves_the_rest_to_the_cpu_with_the_same_result() {
    let params = BuildParams { max_degree: 20, reservoir: 48, ..BuildParams::default() };
    let expected = built(sift(900), &params, &cpu("scalar").unwrap()).unwrap();
    for phase in ["cells", "graph", "prune"] {
        present("wgpu", crate::present::wgpu(), |wgpu| {
            let (loses, stop) = (LosesAt(&wgpu, phase), AtomicBool::new(false));
            let found = build_graph(sift(900), &params.graph(128).unwrap(), &wgpu, &Watch::new(&loses, &stop)).unwrap();
            assert!(found.graph == expected.graph, "lost at {phase}");
            assert!(wgpu.name().contains("cpu") && wgpu.name().contains("lost"), "{}", wgpu.name());
        });
    }
}

#[test]
fn a_cuda_device_lost_at_any_launch_ends_the_build_with_the_reason() {
    let params = BuildParams { max_degree: 20, reservoir: 48, ..BuildParams::default() };
    let opened = || cuda_host::open_with(800, 100 << 20);
    present("cuda-host", opened(), |(cuda, driver)| {
        built(sift(300), &params, &cuda).unwrap();
        let launches = driver.launches();
        for lost_at in [1, 2, launches / 4, launches / 2, launches - 1, launches] {
            let (cuda, driver) = opened().unwrap();
            driver.lose_at(lost_at);
            let error = built(sift(300), &params, &cuda).err().unwrap();
            assert!(
                matches!(&error, BuildError::Backend(BackendError::Device { detail, .. }) if detail.contains("lost: as the test wanted it")),
                "launch {lost_at} of {launches}: {error}"
            );
            drop(cuda);
            assert_eq!((driver.launches(), driver.left()), (lost_at, 0), "nothing is asked of a lost device, and nothing of it is kept");
        }
    });
}

#[test]
fn batches_are_halved_until_they_fit_and_refused_when_none_does() {
    present("cuda-host", cuda_host::open_with(800, 100 << 20), |(roomy, driver)| {
        let params = BuildParams { max_degree: 20, reservoir: 48, ..BuildParams::default() };
        let codes = sift(900);
        let in_one = roomy.with_batch(u64::MAX);
        let expected = built(codes.clone(), &params, &in_one).unwrap();
        // A little more than rows and reservoirs take: all clusters at once do not fit.
        let (tight, tight_driver) = cuda_host::open_with(800, 1900 << 10).unwrap();
        let found = built(codes.clone(), &params, &tight.with_batch(u64::MAX)).unwrap();
        assert!(found.graph == expected.graph && tight_driver.launches() > driver.launches());
        let (hopeless, _) = cuda_host::open_with(800, 400 << 10).unwrap();
        let error = built(codes, &params, &hopeless).err().unwrap();
        assert!(matches!(&error, BuildError::Backend(BackendError::OutOfMemory { .. })) && error.to_string().contains("--vram"), "{error}");
    });
}
