//! Every stage against a plain loop, on whatever adapter there is (lavapipe on a machine without a graphics card).

use super::{
    device::{Gpu, GpuError},
    rows::{Resident, Rows},
};
use roxanne_core::{
    id::NodeId,
    neighbor::Neighbor,
    pq::Tables,
    prune::{Alpha, PruneParams, robust_prune},
    random::CounterRng,
    tile::{BuildMetric, NO_ENTRY, entry, entry_distance, entry_row},
};

const METRICS: [BuildMetric; 3] = [BuildMetric::L2, BuildMetric::Manhattan, BuildMetric::Hamming];

/// The best adapter, or why there is none.
fn gpu() -> Option<Gpu> {
    match Gpu::open(None) {
        Ok(gpu) => Some(gpu),
        Err(reason) => {
            println!("SKIPPED wgpu: {reason}");
            None
        }
    }
}

/// Rows of bytes below `span`: 1 makes all equal, few make many ties.
fn bytes(n: usize, stride: usize, span: u64) -> Vec<u8> {
    let rng = CounterRng::new(7);
    (0..n * stride).map(|i| rng.below(i as u64, span) as u8).collect()
}

fn row(bytes: &[u8], stride: usize, id: u32) -> &[u8] {
    &bytes[id as usize * stride..][..stride]
}

/// Groups of these sizes, of ids that rise within each; they overlap.
fn groups(sizes: &[usize], n: usize) -> (Vec<u32>, Vec<u64>) {
    let (mut members, mut offsets) = (Vec::new(), vec![0]);
    for (g, &size) in sizes.iter().enumerate() {
        let first = (g * 37) % (n - size + 1);
        members.extend((0..size).map(|i| (first + i) as u32));
        offsets.push(members.len() as u64);
    }
    (members, offsets)
}

/// The `k` nearest of `columns` to `of` by (distance, place), `NO_ENTRY` behind; `except` is left out.
fn nearest(metric: BuildMetric, bytes: &[u8], stride: usize, of: u32, columns: &[u32], except: Option<usize>, k: usize) -> Vec<u64> {
    let distance = |id: u32| metric.distance(row(bytes, stride, of), row(bytes, stride, id));
    let mut all: Vec<u64> = (0..columns.len()).filter(|&p| Some(p) != except).map(|p| entry(distance(columns[p]), p as u32)).collect();
    all.sort_unstable();
    all.resize(k.max(all.len()), NO_ENTRY);
    all.truncate(k);
    all
}

/// Runs `test` with rows that are gathered in batches of every size, and with resident ones.
fn in_every_way(gpu: &mut Gpu, bytes: &[u8], batch_bytes: &[u64], mut test: impl FnMut(&Gpu, Option<&Resident>)) {
    let resident = gpu.load(bytes).unwrap();
    assert!(resident.is_some());
    for &batch_bytes in batch_bytes {
        gpu.batch_bytes = batch_bytes;
        test(gpu, None);
        test(gpu, resident.as_ref());
    }
}

#[test]
fn leaf_knn_equals_a_plain_loop() {
    let Some(mut gpu) = gpu() else { return };
    for (metric, stride, span, k, sizes) in [
        (BuildMetric::L2, 32, 256, 5, &[1, 2, 63, 64, 65][..]),
        (BuildMetric::L2, 128, 2, 10, &[300, 33]),
        (BuildMetric::L2, 96, 1, 3, &[65, 5]),
        (BuildMetric::L2, 768, 256, 16, &[64, 2, 17]),
        (BuildMetric::Manhattan, 96, 256, 1, &[255, 1]),
        (BuildMetric::Manhattan, 32, 3, 10, &[100]),
        (BuildMetric::Hamming, 32, 256, 16, &[256, 3]),
        (BuildMetric::Hamming, 128, 2, 5, &[90]),
    ] {
        let bytes = bytes(320, stride, span);
        let (members, offsets) = groups(sizes, 320);
        let mut expected = Vec::new();
        for leaf in offsets.windows(2) {
            let members = &members[leaf[0] as usize..leaf[1] as usize];
            for (place, &id) in members.iter().enumerate() {
                expected.extend(nearest(metric, &bytes, stride, id, members, Some(place), k));
            }
        }
        in_every_way(&mut gpu, &bytes, &[1, 64 << 20], |gpu, resident| {
            let rows = Rows::new(&bytes, stride, resident).unwrap();
            let lists = gpu.leaf_knn(metric, rows, &members, &offsets, k).unwrap();
            assert!(lists == expected, "{metric:?} stride {stride} span {span} k {k} sizes {sizes:?}");
        });
    }
}

#[test]
fn assign_equals_a_plain_loop() {
    let Some(mut gpu) = gpu() else { return };
    for (metric, stride, span, fanout, sizes, leader_counts) in [
        (BuildMetric::L2, 32, 256, 10, &[1, 2, 63, 64, 65, 300][..], &[1usize, 2, 5, 33, 40, 64][..]),
        (BuildMetric::L2, 128, 2, 3, &[256, 7], &[31, 0]),
        (BuildMetric::L2, 768, 256, 1, &[40], &[32]),
        (BuildMetric::L2, 32, 1, 16, &[70], &[50]),
        (BuildMetric::Manhattan, 96, 256, 5, &[65], &[40]),
        (BuildMetric::Hamming, 32, 256, 16, &[255], &[17]),
    ] {
        let bytes = bytes(320, stride, span);
        let (members, offsets) = groups(sizes, 320);
        let (leaders, leader_offsets) = groups(leader_counts, 311);
        let mut expected = Vec::new();
        for (cluster, led) in offsets.windows(2).zip(leader_offsets.windows(2)) {
            let leaders = &leaders[led[0] as usize..led[1] as usize];
            for &id in &members[cluster[0] as usize..cluster[1] as usize] {
                expected.extend(nearest(metric, &bytes, stride, id, leaders, None, fanout).into_iter().map(entry_row));
            }
        }
        in_every_way(&mut gpu, &bytes, &[1, 7000, 64 << 20], |gpu, resident| {
            let rows = Rows::new(&bytes, stride, resident).unwrap();
            let found = gpu.assign(metric, rows, &members, &offsets, &leaders, &leader_offsets, fanout).unwrap();
            assert!(found == expected, "{metric:?} stride {stride} span {span} fanout {fanout} sizes {sizes:?}");
        });
    }
}

#[test]
fn merge_keeps_the_nearest_distinct() {
    let Some(mut gpu) = gpu() else { return };
    let rng = CounterRng::new(11);
    for (width, n, most_offers, span) in [
        (1, 5, 3, 9),
        (10, 40, 70, 20),
        (32, 9, 64, 1000),
        (33, 9, 200, 1000),
        (96, 30, 300, 150),
        (200, 6, 900, 2000),
        (512, 4, 1500, 5000),
    ] {
        let (mut reservoirs, mut lengths) = (vec![0xABCD_ABCD_ABCD_ABCD; n * width], vec![0u32; n]);
        let mut counter = 0;
        let mut draw = |below: u64| {
            counter += 1;
            rng.below(counter, below)
        };
        for row in 0..n {
            let mut run: Vec<u64> = (0..draw(width as u64 + 1)).map(|_| entry(draw(span) as u32, draw(span) as u32)).collect();
            run.sort_unstable();
            run.dedup();
            lengths[row] = run.len() as u32;
            reservoirs[row * width..][..run.len()].copy_from_slice(&run);
        }
        let rows: Vec<u32> = (0..n as u32).filter(|r| r % 4 != 2).collect();
        let (mut offers, mut offsets) = (Vec::new(), vec![0]);
        for _ in &rows {
            offers.extend((0..draw(most_offers + 1)).map(|_| entry(draw(span) as u32, draw(span) as u32)));
            offsets.push(offers.len() as u64);
        }
        let (mut expected, mut expected_lengths) = (reservoirs.clone(), lengths.clone());
        for (&row, offered) in rows.iter().zip(offsets.windows(2)) {
            let row = row as usize;
            let mut all = expected[row * width..][..lengths[row] as usize].to_vec();
            all.extend_from_slice(&offers[offered[0] as usize..offered[1] as usize]);
            all.sort_unstable();
            all.dedup();
            all.truncate(width);
            expected_lengths[row] = all.len() as u32;
            expected[row * width..][..all.len()].copy_from_slice(&all);
        }
        for batch_bytes in [1, 3000, 64 << 20] {
            gpu.batch_bytes = batch_bytes;
            let (mut found, mut found_lengths) = (reservoirs.clone(), lengths.clone());
            gpu.merge(width, &mut found, &mut found_lengths, &rows, &offsets, &offers).unwrap();
            assert_eq!(found_lengths, expected_lengths, "width {width}");
            assert!(found == expected, "width {width} batch {batch_bytes}");
        }
    }
}

#[test]
fn prune_equals_the_textbook() {
    let Some(mut gpu) = gpu() else { return };
    for (metric, n, stride, span, width, alpha, max_degree) in [
        (BuildMetric::L2, 80, 32, 256, 40, 1.2, 9),
        (BuildMetric::L2, 70, 32, 3, 69, 1.5, 48),
        (BuildMetric::L2, 70, 32, 1, 40, 1.2, 4),
        (BuildMetric::L2, 30, 768, 256, 10, 1.37, 40),
        (BuildMetric::L2, 150, 128, 256, 130, 10.0, 64),
        (BuildMetric::L2, 20, 96, 256, 1, 1.0, 1),
        (BuildMetric::Manhattan, 97, 96, 256, 64, 1.1, 12),
        (BuildMetric::Hamming, 97, 32, 256, 65, 1.1, 12),
    ] {
        let bytes = bytes(n, stride, span);
        let all: Vec<u32> = (0..n as u32).collect();
        let (mut reservoirs, mut lengths) = (Vec::new(), Vec::new());
        for id in 0..n {
            // Row 3 has no candidates, row 4 has one.
            let length = [width, 0, 1][usize::from(id == 3) + 2 * usize::from(id == 4)].min(n - 1);
            reservoirs.extend(nearest(metric, &bytes, stride, id as u32, &all, Some(id), width));
            lengths.push(length as u32);
        }
        let params = PruneParams { max_degree, alpha: Alpha::from_f64(alpha).unwrap() };
        let distance = |a: NodeId, b: NodeId| metric.distance(row(&bytes, stride, a.0), row(&bytes, stride, b.0));
        let first = 2;
        let (mut degrees, mut neighbors) = (Vec::new(), Vec::new());
        for id in first..n {
            let run = &reservoirs[id * width..][..lengths[id] as usize];
            let mut candidates: Vec<_> = run.iter().map(|&e| Neighbor { distance: entry_distance(e), id: NodeId(entry_row(e)) }).collect();
            let mut kept = Vec::new();
            robust_prune(NodeId(id as u32), &mut candidates, &params, distance, &mut kept);
            degrees.push(kept.len() as u16);
            kept.resize(max_degree, NodeId(0));
            neighbors.extend(kept);
        }
        in_every_way(&mut gpu, &bytes, &[20_000, 64 << 20], |gpu, resident| {
            let rows = Rows::new(&bytes, stride, resident).unwrap();
            // Poisoned: all that is not written shows.
            let (mut found, mut out) = (vec![0xABCD; n - first], vec![NodeId(0xABCD_ABCD); (n - first) * max_degree]);
            gpu.prune(metric, rows, first, &reservoirs, &lengths, width, &params, &mut found, &mut out).unwrap();
            assert_eq!(found, degrees, "{metric:?} n {n} width {width}");
            assert!(out == neighbors, "{metric:?} n {n} width {width}");
        });
    }
}

/// Centroids [dim x 256]; the second hundred repeats the first, so that ties abound.
fn centroids(dim: usize, hostile: bool) -> Vec<i16> {
    let rng = CounterRng::new(17);
    let span = if hostile { 32768 } else { 3000 };
    let mut centroids: Vec<i16> = (0..dim as u64 * 256).map(|i| (rng.below(i, 2 * span) as i64 - span as i64) as i16).collect();
    centroids.chunks_exact_mut(256).for_each(|of_coordinate| of_coordinate.copy_within(..100, 100));
    centroids
}

/// Tables about those centroids; with `hostile` ones sums wrap.
fn tables(centroids: &[i16], subspaces: usize, rotated: bool, hostile: bool) -> Tables<'_> {
    let (rng, dim) = (CounterRng::new(13), centroids.len() / 256);
    let draw = |i: usize, span: u64| rng.below(i as u64, 2 * span) as i64 - span as i64;
    let mut starts: Vec<i32> = (0..subspaces * 256).map(|i| draw(i, if hostile { 1 << 31 } else { 2 }) as i32).collect();
    starts.chunks_exact_mut(256).for_each(|of_subspace| of_subspace.copy_within(..100, 100));
    Tables {
        offsets: (0..=subspaces).map(|s| (s * (dim / subspaces) + s.min(dim % subspaces)) as u32).collect(),
        fraction_bits: if hostile { 7 } else { 3 },
        rotation: rotated.then(|| (0..dim * dim).map(|i| draw(i, if hostile { 32768 } else { 3000 }) as i16).collect()),
        centroids,
        starts,
    }
}

/// The codes of one row: the definition in shaders/encode.wgsl, in wrapping i32.
fn code(tables: &Tables<'_>, spread: bool, row: &[u8]) -> Vec<u8> {
    let (dim, subspaces) = (tables.centroids.len() / 256, tables.offsets.len() - 1);
    let coordinate = |j: usize| match spread {
        true => 255 * i32::from(row[j / 8] >> (j % 8) & 1),
        false => i32::from(row[j]),
    };
    let x: Vec<i32> = (0..dim).map(|j| coordinate(j) - 128).collect();
    let y = |i: usize| match &tables.rotation {
        None => x[i] << tables.fraction_bits,
        Some(entries) => {
            let entries = &entries[i * dim..][..dim];
            let sum = entries.iter().zip(&x).fold(0i32, |sum, (&r, &x)| sum.wrapping_add(i32::from(r).wrapping_mul(x)));
            let shift = 14 - tables.fraction_bits;
            (sum.wrapping_add(1 << (shift - 1)) >> shift).clamp(-32767, 32767)
        }
    };
    let y: Vec<i32> = (0..dim).map(y).collect();
    let score = |s: usize, c: usize| {
        (tables.offsets[s] as usize..tables.offsets[s + 1] as usize)
            .fold(tables.starts[s * 256 + c], |score, j| score.wrapping_add(y[j].wrapping_mul(i32::from(tables.centroids[j * 256 + c]))))
    };
    (0..subspaces).map(|s| (0..256).rev().max_by_key(|&c| score(s, c)).unwrap() as u8).collect()
}

#[test]
fn encode_equals_a_plain_loop() {
    let Some(mut gpu) = gpu() else { return };
    for (dim, stride, subspaces, spread, rotated, hostile) in [
        (32, 32, 8, false, false, false),
        (33, 64, 5, false, true, false),
        (31, 32, 31, false, true, true),
        (90, 96, 1, false, false, true),
        (128, 128, 16, false, true, false),
        (40, 32, 7, true, false, false),
        (1, 32, 1, false, false, false),
    ] {
        let bytes = bytes(53, stride, 256);
        let centroids = centroids(dim, hostile);
        let tables = tables(&centroids, subspaces, rotated, hostile);
        let expected: Vec<u8> = bytes.chunks_exact(stride).skip(3).flat_map(|row| code(&tables, spread, row)).collect();
        in_every_way(&mut gpu, &bytes, &[1000, 64 << 20], |gpu, resident| {
            let rows = Rows::new(&bytes, stride, resident).unwrap();
            assert_eq!(
                gpu.encode(&tables, spread, rows, 3..53).unwrap(),
                expected,
                "dim {dim} M {subspaces} spread {spread} rotated {rotated}"
            );
        });
    }
}

#[test]
fn nothing_to_do_is_done() {
    let Some(gpu) = gpu() else { return };
    let rows = Rows::new(&[], 32, None).unwrap();
    for metric in METRICS {
        assert_eq!(gpu.assign(metric, rows, &[], &[0], &[], &[0], 3), Ok(vec![]));
        assert_eq!(gpu.leaf_knn(metric, rows, &[], &[0, 0], 3), Ok(vec![]));
        let params = PruneParams { max_degree: 3, alpha: Alpha::ONE };
        assert_eq!(gpu.prune(metric, rows, 0, &[], &[], 4, &params, &mut [], &mut []), Ok(()));
    }
    assert_eq!(gpu.merge(4, &mut [], &mut [], &[], &[0], &[]), Ok(()));
    assert_eq!(gpu.encode(&tables(&[0; 512], 1, false, false), false, rows, 0..0), Ok(vec![]));
}

#[test]
fn shapes_that_disagree_are_refused() {
    let Some(gpu) = gpu() else { return };
    let bytes = bytes(4, 32, 256);
    assert!(Rows::new(&bytes, 33, None).is_err() && Rows::new(&bytes[1..], 32, None).is_err());
    let rows = Rows::new(&bytes, 32, None).unwrap();
    let l2 = BuildMetric::L2;
    let refused = |result: Result<Vec<u64>, GpuError>| matches!(result, Err(GpuError::Other(_)));
    assert!(refused(gpu.leaf_knn(l2, rows, &[0, 4], &[0, 2], 3)), "a row that does not exist");
    assert!(refused(gpu.leaf_knn(l2, rows, &[0, 1], &[0, 3], 3)), "offsets beyond the members");
    assert!(refused(gpu.leaf_knn(l2, rows, &[0, 1], &[0, 2], 17)), "a list that is too long");
    assert!(gpu.assign(l2, rows, &[0], &[0, 1], &[0], &[0], 3).is_err());
    assert!(gpu.merge(513, &mut [0; 513], &mut [0], &[], &[0], &[]).is_err());
    assert!(gpu.merge(4, &mut [0; 4], &mut [5], &[], &[0], &[]).is_err(), "a run that is longer than its reservoir");
    let params = PruneParams { max_degree: 2, alpha: Alpha { numerator: 1, denominator: 2 } };
    assert!(gpu.prune(l2, rows, 0, &[0; 4], &[0], 4, &params, &mut [0], &mut [NodeId(0); 2]).is_err(), "alpha below 1");
    assert!(gpu.encode(&tables(&centroids(33, false), 1, false, false), false, rows, 0..4).is_err(), "more coordinates than a row has");
}

#[test]
fn a_batch_that_does_not_fit_is_halved_and_one_that_cannot_be_is_refused() {
    let Some(mut gpu) = gpu() else { return };
    let bytes = bytes(320, 32, 256);
    let rows = Rows::new(&bytes, 32, None).unwrap();
    let (members, offsets) = groups(&[20; 12], 320);
    let expected = gpu.leaf_knn(BuildMetric::L2, rows, &members, &offsets, 3).unwrap();
    gpu.room = 5000;
    assert_eq!(gpu.leaf_knn(BuildMetric::L2, rows, &members, &offsets, 3), Ok(expected));
    assert!(gpu.load(&bytes).unwrap().is_none(), "rows without room are gathered");
    gpu.room = 500;
    assert_eq!(gpu.leaf_knn(BuildMetric::L2, rows, &members, &offsets, 3), Err(GpuError::OutOfMemory));
}

#[test]
fn a_lost_device_says_so_and_stays_lost() {
    let Some(gpu) = gpu() else { return };
    let bytes = bytes(100, 32, 256);
    let resident = gpu.load(&bytes).unwrap();
    let (members, offsets) = groups(&[100], 100);
    assert!(!gpu.is_lost());
    gpu.destroy();
    assert!(gpu.is_lost());
    for resident in [None, resident.as_ref()] {
        let rows = Rows::new(&bytes, 32, resident).unwrap();
        assert!(matches!(gpu.leaf_knn(BuildMetric::L2, rows, &members, &offsets, 3), Err(GpuError::Lost(_))));
        assert!(matches!(gpu.encode(&tables(&centroids(8, false), 2, false, false), false, rows, 0..9), Err(GpuError::Lost(_))));
    }
    assert!(matches!(gpu.load(&bytes), Err(GpuError::Lost(_))));
}

#[test]
fn a_device_lost_in_the_middle_gives_a_right_result_or_none() {
    let Some(gpu) = gpu() else { return };
    let bytes = bytes(320, 32, 256);
    let rows = Rows::new(&bytes, 32, None).unwrap();
    let (members, offsets) = groups(&[64; 200], 320);
    let ask = |gpu: &Gpu| gpu.leaf_knn(BuildMetric::L2, rows, &members, &offsets, 3);
    let expected = ask(&gpu).unwrap();
    // Many small batches, so that some are on their way whenever the device goes.
    for delay_us in [0, 300, 1000, 3000] {
        let Some(mut gpu) = self::gpu() else { return };
        gpu.batch_bytes = 1;
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| ask(&gpu));
            std::thread::sleep(std::time::Duration::from_micros(delay_us));
            gpu.destroy();
            match asked.join().unwrap() {
                Ok(lists) => assert!(lists == expected),
                Err(error) => assert!(matches!(error, GpuError::Lost(_)), "{error}"),
            }
        });
        assert!(matches!(ask(&gpu), Err(GpuError::Lost(_))));
    }
}
