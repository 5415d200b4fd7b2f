//! One stage at a time, on the shapes of `cases`, against the loops of `oracle`.

use crate::{
    cases::{Case, Effort, Pattern, cases, groups, sizes},
    oracle,
};
use roxanne_builder::backend::{Backend, BuildCodes, Groups, NO_LEADER, Run, Selection, moves as host};
use roxanne_core::{
    build_codes::BuildCodec,
    element::ElementType,
    id::NodeId,
    metric::Metric,
    pq::{TrainParams, train_best},
    prune::{Alpha, PruneParams},
    random::CounterRng,
    tile::BuildMetric,
};
use std::collections::BTreeSet;

/// Groups where the backend keeps them.
fn place<B: Backend>(backend: &B, groups: &Groups) -> Groups<B::Ids> {
    Groups { offsets: groups.offsets.clone(), members: backend.place(groups.members.clone()).unwrap() }
}

fn fetch<B: Backend>(backend: &B, groups: &Groups<B::Ids>) -> Groups {
    Groups { offsets: groups.offsets.clone(), members: backend.fetch(&groups.members).unwrap() }
}

pub(crate) fn assign<B: Backend>(backend: &B, effort: Effort) {
    for (seed, case) in (1..).zip(cases(effort)) {
        let codes = case.codes(310, seed);
        let rows = backend.load(&codes).unwrap();
        let sizes = sizes(effort, case.stride);
        let clusters = groups(310, sizes, seed);
        let leader_counts: Vec<usize> = [2, 64, 1, 65, 17, 129, 3].into_iter().cycle().take(sizes.len()).collect();
        let leaders = groups(310, &leader_counts, seed + 100);
        let expected = oracle::assign(&codes, &clusters, &leaders, case.k);
        let found = backend.assign(&rows, &place(backend, &clusters), &place(backend, &leaders), case.k).unwrap();
        assert!(backend.fetch(&found).unwrap() == expected, "{case:?}");
    }
}

pub(crate) fn leaf_knn<B: Backend>(backend: &B, effort: Effort) {
    for (seed, case) in (1..).zip(cases(effort)) {
        let codes = case.codes(310, seed);
        let leaves = groups(310, sizes(effort, case.stride), seed);
        lists_are_equal(backend, &codes, &leaves, case);
    }
    // More columns than a narrow key of 32 bits has ordinals for, at this length of rows.
    let case = Case { metric: BuildMetric::L2, stride: 256, pattern: Pattern::Any, k: 3 };
    lists_are_equal(backend, &case.codes(1100, 9), &groups(1100, &[1030], 9), case);
}

fn lists_are_equal<B: Backend>(backend: &B, codes: &BuildCodes, leaves: &Groups, case: Case) {
    let rows = backend.load(codes).unwrap();
    let lists = backend.leaf_knn(&rows, &place(backend, leaves), case.k).unwrap();
    assert!(backend.fetch_lists(&lists).unwrap() == oracle::leaf_knn(codes, leaves, case.k), "{case:?}");
}

/// Reservoirs of `n` rows filled from leaves that overlap a lot, in two batches, and the sets that they are the beginnings of.
fn filled<B: Backend>(
    backend: &B,
    codes: &BuildCodes,
    rows: &B::Rows<'_>,
    width: usize,
    (leaf_count, leaf_size, k): (usize, usize, usize),
) -> (B::Reservoirs, Vec<BTreeSet<u64>>) {
    let n = codes.n();
    let mut reservoirs = backend.reservoirs(n, width).unwrap();
    let mut sets = vec![BTreeSet::new(); n];
    for batch in 0..2 {
        let leaves = groups(n, &vec![leaf_size; leaf_count], batch);
        let on_device = place(backend, &leaves);
        let lists = backend.leaf_knn(rows, &on_device, k).unwrap();
        backend.merge(&on_device, &lists, k, &mut reservoirs).unwrap();
        oracle::merge(&leaves, &oracle::leaf_knn(codes, &leaves, k), k, &mut sets);
    }
    (reservoirs, sets)
}

fn beginning(set: &BTreeSet<u64>, width: usize) -> Vec<u64> {
    set.iter().copied().take(width).collect()
}

pub(crate) fn merge<B: Backend>(backend: &B, effort: Effort) {
    let widths: &[usize] = if effort == Effort::Whole { &[1, 2, 31, 32, 33, 96, 128, 200, 513, 1024] } else { &[1, 33, 96, 600] };
    for &width in widths {
        for pattern in [Pattern::Any, Pattern::Equal] {
            let case = Case { metric: BuildMetric::L2, stride: 32, pattern, k: 10 };
            let (n, codes) = (250, case.codes(250, 3));
            let rows = backend.load(&codes).unwrap();
            // The ends of lists of equal rows are the first members of their leaf: these rows are offered thousands.
            let (reservoirs, sets) = filled(backend, &codes, &rows, width, (40, 60, 10));
            let nodes: Vec<u32> = (0..n).rev().collect();
            let found = backend.candidates(&reservoirs, &nodes).unwrap();
            for (node, found) in nodes.into_iter().zip(found) {
                assert_eq!(found, beginning(&sets[node as usize], width), "width {width}, {pattern:?}, row {node}");
            }
        }
    }
}

pub(crate) fn prune<B: Backend>(backend: &B, effort: Effort) {
    let mut list = vec![
        (BuildMetric::L2, 128, Pattern::Any, 96, 48, 1.2),
        (BuildMetric::L2, 32, Pattern::Few, 64, 9, 1.5),
        (BuildMetric::L2, 64, Pattern::Equal, 40, 7, 1.2),
        (BuildMetric::L2, 768, Pattern::Extremes, 96, 64, 1.0),
        (BuildMetric::Manhattan, 96, Pattern::Any, 33, 200, 1.1),
        (BuildMetric::Hamming, 32, Pattern::Any, 50, 5, 10.0),
        (BuildMetric::L2, 8224, Pattern::Extremes, 20, 8, 1.37),
    ];
    if effort == Effort::Whole {
        list.extend([(BuildMetric::L2, 32, Pattern::Any, 1, 2, 1.2), (BuildMetric::L2, 160, Pattern::Any, 1024, 1024, 1.2)]);
    }
    for (metric, stride, pattern, width, max_degree, alpha) in list {
        let case = Case { metric, stride, pattern, k: 16 };
        let codes = case.codes(150, 7);
        let rows = backend.load(&codes).unwrap();
        let (reservoirs, sets) = filled(backend, &codes, &rows, width, if stride > 1024 { (3, 25, 8) } else { (6, 60, 16) });
        let params = PruneParams { max_degree, alpha: Alpha::from_f64(alpha).unwrap() };
        let graph = backend.prune(&rows, &reservoirs, &params, &|_| ()).unwrap();
        for node in 0..150 {
            let expected = oracle::prune(&codes, node, &beginning(&sets[node as usize], width), &params);
            assert_eq!(graph.neighbors(NodeId(node)), expected, "{case:?}, width {width}, R {max_degree}, alpha {alpha}, row {node}");
        }
    }
    // Rows without any candidate.
    let codes = Case { metric: BuildMetric::L2, stride: 32, pattern: Pattern::Any, k: 1 }.codes(3, 1);
    let rows = backend.load(&codes).unwrap();
    let params = PruneParams { max_degree: 4, alpha: Alpha::ONE };
    let graph = backend.prune(&rows, &backend.reservoirs(3, 10).unwrap(), &params, &|_| ()).unwrap();
    assert_eq!((graph.n(), graph.edge_count()), (3, 0));
}

/// Rows whose second half follows the first one: what a rotation is good for.
fn correlated(n: usize, dim: usize, seed: u64) -> Vec<u8> {
    let rng = CounterRng::new(seed);
    let value = |row: usize, j: usize| {
        let base = rng.below((row * dim + j % dim.div_ceil(2)) as u64, 200);
        (base + rng.part(j as u64).below(row as u64, 20)) as u8
    };
    (0..n * dim).map(|i| value(i / dim, i % dim)).collect()
}

pub(crate) fn encode<B: Backend>(backend: &B, effort: Effort) {
    let mut turned = Vec::new();
    let mut list = vec![
        (ElementType::U8, Metric::L2, 33, 5),
        (ElementType::U8, Metric::L2, 128, 32),
        (ElementType::U8, Metric::Manhattan, 100, 7),
        (ElementType::Binary, Metric::Hamming, 72, 9),
        (ElementType::U8, Metric::L2, 1, 1),
    ];
    if effort == Effort::Whole {
        list.extend([(ElementType::U8, Metric::L2, 3, 3), (ElementType::U8, Metric::L2, 384, 48), (ElementType::U8, Metric::L2, 1100, 20)]);
    }
    for (element, metric, dim, subspaces) in list {
        let codec = BuildCodec::learn(element, metric, dim, &[]).unwrap();
        // Rotations are tried where some thousands of rows can judge them; a part of those is enough to encode.
        let (trained, n) = (5000, 700);
        let mut bytes = vec![0; trained * codec.stride()];
        let values = correlated(trained, codec.build_dim(), 5);
        let parts = bytes.chunks_exact_mut(codec.stride()).zip(values.chunks_exact(codec.build_dim()));
        parts.for_each(|(row, values)| row[..values.len()].copy_from_slice(values));
        let codes = BuildCodes { metric: codec.build_metric(), stride: codec.stride(), bytes };
        let (mut sample, mut scratch) = (Vec::new(), Vec::new());
        (0..trained).for_each(|row| sample.extend_from_slice(codec.pq_row(codes.row(row as u32), &mut scratch)));
        let params = TrainParams { subspaces, allow_rotation: metric != Metric::Manhattan, seed: 2 };
        let (codebook, _) = train_best(&sample, codec.pq_dim(), codec.pq_dim(), &params).unwrap();
        turned.push(codebook.is_rotated());
        let mut expected = vec![0; n * subspaces];
        codebook.encode_rows(&sample[..n * codec.pq_dim()], codec.pq_dim(), &mut expected);
        let rows = backend.load(&codes).unwrap();
        for range in [0..n, 3..20, 699..700] {
            let found = backend.encode(&rows, &codec, &codebook, range.clone()).unwrap();
            assert!(
                found == expected[range.start * subspaces..range.end * subspaces],
                "{metric} dim {dim} subspaces {subspaces} {range:?}"
            );
        }
    }
    assert!(turned.contains(&true) && turned.contains(&false), "both kinds of codebook were meant to be tried");
}

pub(crate) fn moves<B: Backend>(backend: &B, effort: Effort) {
    let ids: Vec<u32> = (0..5000).map(|i| i * 7 % 5003).collect();
    let places: Vec<u64> = (0..700).map(|i| i * i % 5000).collect();
    let picked = backend.pick(&backend.place(ids.clone()).unwrap(), &places).unwrap();
    assert_eq!(backend.fetch(&picked).unwrap(), places.iter().map(|&at| ids[at as usize]).collect::<Vec<_>>());

    let n = if effort == Effort::Whole { 20_000 } else { 5000 };
    let rng = CounterRng::new(4);
    for (cells, fanout) in [(1u64, 1usize), (2, 2), (255, 10), (256, 3), (300, 10), (1000, 3)] {
        let choice: Vec<u32> = (0..n).flat_map(|row| rng.sample_some(row, cells, fanout)).collect();
        let tour: Vec<u32> = (0..cells as u32).rev().collect();
        let on_device = backend.place(choice.clone()).unwrap();
        let (order, renamed) = backend.order_by_cell(&on_device, fanout, &tour).unwrap();
        let expected = host::order_by_cell(&choice, fanout, &tour);
        assert!((order, backend.fetch(&renamed).unwrap()) == expected, "{cells} cells, fanout {fanout}");

        let clusters = Groups { offsets: vec![0, n], members: (0..n as u32).collect() };
        let children = backend.children(&place(backend, &clusters), &[0, cells], &on_device, fanout).unwrap();
        let expected = host::children(&clusters, &[0, cells], &choice, fanout);
        assert!(fetch(backend, &children) == expected, "{cells} cells, fanout {fanout}");
        // One run, several, all of it, none.
        let mut selection = Selection::default();
        let run = |cell: usize| Run { start: expected.offsets[cell], length: expected.size(cell) };
        let some: Vec<usize> = (0..expected.len()).filter(|&cell| (1..400).contains(&expected.size(cell))).collect();
        some.chunks(3).for_each(|cells| selection.push(&cells.iter().map(|&cell| run(cell)).collect::<Vec<_>>()));
        selection.push(&[Run { start: 1, length: expected.total() - 1 }]);
        assert!(fetch(backend, &backend.select(&children, &selection).unwrap()) == host::select(&expected, &selection));
        assert!(fetch(backend, &backend.select(&children, &Selection::default()).unwrap()).is_empty());
    }

    // Many clusters, some with fewer leaders than the fanout.
    let clusters = groups(900, &[1, 2, 129, 128, 40, 300, 5], 8);
    let leader_offsets = [0, 1, 3, 40, 41, 60, 200, 203];
    let mut choice = Vec::new();
    for c in 0..clusters.len() {
        let leaders = leader_offsets[c + 1] - leader_offsets[c];
        clusters.range(c).for_each(|at| choice.extend(rng.sample_some(at as u64, leaders, 3)));
    }
    let children = backend.children(&place(backend, &clusters), &leader_offsets, &backend.place(choice.clone()).unwrap(), 3).unwrap();
    assert!(fetch(backend, &children) == host::children(&clusters, &leader_offsets, &choice, 3));
}

/// Choices as `assign` makes them.
trait Choices {
    /// Up to `fanout` different leaders of `leaders`, `NO_LEADER` behind the last.
    fn sample_some(&self, member: u64, leaders: u64, fanout: usize) -> Vec<u32>;
}

impl Choices for CounterRng {
    fn sample_some(&self, member: u64, leaders: u64, fanout: usize) -> Vec<u32> {
        let chosen = self.part(member).sample(leaders, (fanout as u64).min(leaders));
        let mut chosen: Vec<u32> = chosen.into_iter().map(|leader| leader as u32).collect();
        let turn = member as usize % chosen.len();
        chosen.rotate_left(turn);
        chosen.resize(fanout, NO_LEADER);
        chosen
    }
}
