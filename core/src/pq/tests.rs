use super::*;
use crate::id::NodeId;
use crate::random::CounterRng;

/// Rows of a mixture of 20 clusters with `inner` directions of variance, mixed over all coordinates.
fn mixture(n: usize, dim: usize, inner: usize, seed: u64) -> Vec<u8> {
    println!("mixture of seed {seed}");
    let rng = CounterRng::new(seed);
    let normal = |part: u64, at: usize| (0..4).map(|i| rng.part(part).below(4 * at as u64 + i, 2001) as f64 / 1000.0 - 1.0).sum::<f64>();
    let mix: Vec<f64> = (0..dim * inner).map(|i| normal(0, i)).collect();
    let centers: Vec<f64> = (0..20 * inner).map(|i| 1.5 * normal(1, i)).collect();
    (0..n)
        .flat_map(|row| {
            let cluster = rng.part(2).below(row as u64, 20) as usize;
            let inside: Vec<f64> = (0..inner).map(|i| centers[cluster * inner + i] + normal(3, row * inner + i) / (1 + i) as f64).collect();
            let mixed = (0..dim).map(|j| inside.iter().zip(&mix[j * inner..]).map(|(a, b)| a * b).sum::<f64>() / (inner as f64).sqrt());
            mixed.map(|v| (128.0 + 25.0 * v).round().clamp(0.0, 255.0) as u8).collect::<Vec<u8>>()
        })
        .collect()
}

fn params(subspaces: usize, allow_rotation: bool) -> TrainParams {
    TrainParams { subspaces, allow_rotation, seed: 11 }
}

fn codebook(rows: &[u8], dim: usize, subspaces: usize, rotated: bool) -> Codebook {
    let kernels = Kernels::detected();
    let layout = Layout::new(dim, subspaces);
    let rotation = rotated.then(|| rotation::principal_axes(kernels, rows, &layout));
    let points = kmeans::Points::new(kernels, rows, &layout, rotation.as_ref());
    let first = kmeans::first_centroids(&points, &layout, CounterRng::new(2));
    let (subspaces, _) = kmeans::improve(kernels, &points, &layout, first, 4);
    Codebook::from_subspaces(layout, rotation, subspaces)
}

/// The code of `row` by the definitions alone.
fn code_by_definition(codebook: &Codebook, row: &[u8]) -> Vec<u8> {
    let bits = codebook.layout.fraction_bits(codebook.is_rotated());
    let centered: Vec<i64> = row.iter().map(|&x| i64::from(x) - 128).collect();
    let y: Vec<i64> = (0..row.len())
        .map(|i| match &codebook.rotation {
            None => centered[i] << bits,
            Some(rotation) => {
                let sum: i64 = rotation.entries(i).iter().zip(&centered).map(|(&r, x)| i64::from(r) * x).sum();
                (sum + (1 << (13 - bits))) >> (14 - bits)
            }
        })
        .collect();
    (0..codebook.subspaces())
        .map(|s| {
            let score = |k: usize| {
                let c = |j: usize| i64::from(codebook.centroids[j * CENTROIDS + k]);
                let coordinates = codebook.layout.coordinates(s);
                coordinates.clone().map(|j| y[j] * c(j)).sum::<i64>() - coordinates.map(|j| c(j) * c(j)).sum::<i64>() / 2
            };
            (0..CENTROIDS).max_by_key(|&k| (score(k), std::cmp::Reverse(k))).unwrap() as u8
        })
        .collect()
}

const SHAPES: [(usize, usize); 12] =
    [(1, 1), (2, 1), (3, 2), (8, 8), (24, 3), (31, 5), (32, 4), (33, 4), (100, 7), (100, 20), (130, 1), (256, 128)];

#[test]
fn every_level_gives_the_codes_of_the_definition() {
    for (dim, subspaces) in SHAPES {
        let mut rows = mixture(203, dim, 3, dim as u64);
        rows[..dim].fill(0);
        rows[dim..2 * dim].fill(255);
        for rotated in [false, true] {
            let codebook = codebook(&rows, dim, subspaces, rotated);
            let expected: Vec<u8> = rows.chunks_exact(dim).flat_map(|row| code_by_definition(&codebook, row)).collect();
            for kernels in Kernels::available() {
                let mut codes = vec![0; expected.len()];
                codebook.encode_rows_with(kernels, &rows, dim, &mut codes);
                assert_eq!(codes, expected, "{kernels:?}, dim {dim}, {subspaces} subspaces, rotated {rotated}");
            }
        }
    }
}

#[test]
fn how_rows_are_cut_and_padded_changes_no_code() {
    let (dim, stride, subspaces) = (10, 13, 4);
    let rows = mixture(70, dim, 3, 1);
    let padded: Vec<u8> = rows.chunks_exact(dim).flat_map(|row| row.iter().copied().chain([7, 8, 9])).collect();
    let codebook = codebook(&rows, dim, subspaces, true);
    let mut whole = vec![0; 70 * subspaces];
    codebook.encode_rows(&rows, dim, &mut whole);
    for cut in [1, 5, 16, 17, 70] {
        let mut pieces = vec![0; 70 * subspaces];
        for (rows, codes) in padded.chunks(cut * stride).zip(pieces.chunks_mut(cut * subspaces)) {
            codebook.encode_rows(rows, stride, codes);
        }
        assert_eq!(pieces, whole, "cut every {cut} rows");
    }
    codebook.encode_rows(&[], stride, &mut []);
}

#[test]
fn equal_centroids_give_the_smallest_number() {
    let codebook = Codebook::new(Layout::new(4, 2), None, vec![5; 4 * CENTROIDS]);
    for kernels in Kernels::available() {
        let mut codes = [9; 2 * 20];
        codebook.encode_rows_with(kernels, &[200; 4 * 20], 4, &mut codes);
        assert_eq!(codes, [0; 2 * 20]);
    }
}

#[test]
fn training_gives_the_same_bytes_on_any_number_of_threads_and_every_level() {
    let (dim, subspaces) = (20, 6);
    let rows = mixture(4200, dim, 5, 4);
    let run = |threads: usize, kernels: Kernels| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let (codebook, report) = pool.install(|| train::train_best_with(kernels, &rows, dim, dim, &params(subspaces, true)).unwrap());
        (codebook.to_bytes(), report.candidates.iter().map(|c| (c.turn, c.quality)).collect::<Vec<_>>())
    };
    let expected = run(1, Kernels::available()[0]);
    assert_eq!(expected.1.len(), 3);
    for kernels in Kernels::available() {
        for threads in [1, 2] {
            assert!(run(threads, kernels) == expected, "{kernels:?}, {threads} threads");
        }
    }
}

#[test]
fn a_rotation_is_kept_where_variance_is_mixed_over_the_subspaces_and_never_where_it_may_not() {
    let rows = mixture(6000, 32, 6, 5);
    let (codebook, report) = train_best(&rows, 32, 32, &params(4, true)).unwrap();
    assert!(codebook.is_rotated() && report.chosen != Turn::None, "{report:?}");
    let (codebook, report) = train_best(&rows, 32, 32, &params(4, false)).unwrap();
    assert!(!codebook.is_rotated() && report.candidates.len() == 1, "{report:?}");
}

#[test]
fn few_distinct_rows_are_kept_exactly() {
    for (n, dim, subspaces) in [(1, 1, 1), (1, 7, 3), (2, 3, 3), (100, 1, 1), (256, 5, 2), (300, 4, 4)] {
        let rng = CounterRng::new(n as u64);
        let distinct = mixture(n.min(100), dim, 2, 6);
        let rows: Vec<u8> =
            (0..n).flat_map(|i| distinct[rng.below(i as u64, n.min(100) as u64) as usize * dim..][..dim].to_vec()).collect();
        let (codebook, report) = train_best(&rows, dim, dim, &params(subspaces, true)).unwrap();
        assert_eq!((report.rows, report.queries, report.chosen), (n, 0, Turn::None));
        let mut codes = vec![0; n * subspaces];
        codebook.encode_rows(&rows, dim, &mut codes);
        for (row, code) in rows.chunks_exact(dim).zip(codes.chunks_exact(subspaces)) {
            for (s, &k) in code.iter().enumerate() {
                for j in codebook.layout.coordinates(s) {
                    let exact = (i16::from(row[j]) - CENTER) << codebook.layout.fraction_bits(false);
                    assert_eq!(codebook.centroids[j * CENTROIDS + usize::from(k)], exact, "n {n}, dim {dim}");
                }
            }
        }
    }
}

#[test]
fn many_equal_rows_train_with_and_without_rotation() {
    let rows = [77; 5000 * 3];
    let (codebook, _) = train_best(&rows, 3, 3, &params(2, true)).unwrap();
    let mut codes = [1; 2];
    codebook.encode_rows(&rows[..3], 3, &mut codes);
    assert_eq!(codes, [0, 0]);
}

#[test]
fn shapes_that_cannot_be_trained_are_refused() {
    let refusal = |rows: &[u8], stride, dim, subspaces| train_best(rows, stride, dim, &params(subspaces, true)).unwrap_err();
    assert_eq!(refusal(&[], 4, 4, 2), TrainError::NoRows);
    assert!(matches!(refusal(&[0; 7], 4, 4, 2), TrainError::Shape { bytes: 7, .. }));
    assert!(matches!(refusal(&[0; 8], 2, 4, 2), TrainError::Shape { .. }));
    assert!(matches!(refusal(&[0; 8], 0, 0, 1), TrainError::Shape { .. }));
    assert!(matches!(refusal(&[0; 8225], 8225, 8225, 8), TrainError::Shape { dim: 8225, .. }));
    assert!(matches!(refusal(&[0; 8], 4, 4, 0), TrainError::Subspaces { .. }));
    assert!(matches!(refusal(&[0; 8], 4, 4, 5), TrainError::Subspaces { .. }));
}

#[test]
fn bytes_read_back_as_the_same_codebook() {
    for (dim, subspaces) in SHAPES {
        for rotated in [false, true] {
            let codebook = codebook(&mixture(50, dim, 2, 7), dim, subspaces, rotated);
            assert_eq!(Codebook::from_bytes(&codebook.to_bytes()).unwrap(), codebook);
        }
    }
}

#[test]
fn hostile_bytes_are_refused_or_harmless() {
    let good = codebook(&mixture(50, 6, 2, 8), 6, 4, true).to_bytes();
    for length in 0..good.len() {
        assert!(matches!(Codebook::from_bytes(&good[..length]), Err(CodebookError::Length { .. })));
    }
    assert!(matches!(Codebook::from_bytes(&[&good[..], &[0]].concat()), Err(CodebookError::Length { .. })));
    for (at, word) in [(0, 0), (0, 8225), (0, u32::MAX), (4, 0), (4, 7), (8, 2), (12, 1)] {
        let mut bytes = good.clone();
        bytes[at..at + 4].copy_from_slice(&u32::to_le_bytes(word));
        assert!(matches!(Codebook::from_bytes(&bytes), Err(CodebookError::Header { .. })), "{word} at {at}");
    }
    let mut bytes = good.clone();
    bytes[16 + 12..16 + 24].fill(0x7f);
    assert_eq!(Codebook::from_bytes(&bytes), Err(CodebookError::Rotation { row: 1 }));
    for fill in [0x7f, 0x80, 0xff] {
        let mut bytes = good.clone();
        bytes[16 + 72..].fill(fill);
        let codebook = Codebook::from_bytes(&bytes).unwrap();
        let answers: Vec<[u8; 80]> = Kernels::available()
            .into_iter()
            .map(|kernels| {
                let mut codes = [0; 80];
                codebook.encode_rows_with(kernels, &[255; 120], 6, &mut codes);
                codes
            })
            .collect();
        assert!(answers.iter().all(|a| a == &answers[0]));
        let mut table = LookupTable::new();
        table.fill(&codebook, LookupKind::L2, &[f32::NAN, f32::INFINITY, 1e38, -1e38, 0.0, 1.0], &mut LookupScratch::default());
        table.distance(&answers[0][..4]);
    }
}

/// What a table approximates.
fn true_distance(kind: LookupKind, query: &[f32], row: &[u8]) -> f32 {
    let terms = query.iter().zip(row).map(|(&q, &x)| match kind {
        LookupKind::L2 => (q - f32::from(x)).powi(2),
        LookupKind::InnerProduct => -q * f32::from(x),
        LookupKind::Manhattan => (q - f32::from(x)).abs(),
    });
    terms.sum()
}

#[test]
fn distances_by_code_rank_like_true_distances() {
    let (dim, subspaces, n) = (24, 12, 3000);
    let all = mixture(n + 100, dim, 6, 9);
    let (rows, queries) = all.split_at(n * dim);
    for (kind, rotated) in [
        (LookupKind::L2, false),
        (LookupKind::L2, true),
        (LookupKind::InnerProduct, false),
        (LookupKind::InnerProduct, true),
        (LookupKind::Manhattan, false),
    ] {
        let codebook = codebook(rows, dim, subspaces, rotated);
        let mut codes = vec![0; n * subspaces];
        codebook.encode_rows(rows, dim, &mut codes);
        let (mut table, mut distances) = (LookupTable::new(), Vec::new());
        let ids: Vec<NodeId> = (0..n as u32).map(NodeId).collect();
        let mut found = 0;
        for query in queries.chunks_exact(dim) {
            let center = if kind == LookupKind::InnerProduct { 128.0 } else { 0.0 };
            let query: Vec<f32> = query.iter().map(|&x| f32::from(x) - center).collect();
            table.fill(&codebook, kind, &query, &mut LookupScratch::default());
            table.distances(&codes, &ids, &mut distances);
            let mut by_truth: Vec<usize> = (0..n).collect();
            by_truth.sort_by(|&a, &b| {
                let distance = |i: usize| true_distance(kind, &query, &rows[i * dim..][..dim]);
                distance(a).total_cmp(&distance(b))
            });
            let mut by_code: Vec<usize> = (0..n).collect();
            by_code.sort_by_key(|&i| distances[i]);
            found += by_truth[..10].iter().filter(|t| by_code[..20].contains(t)).count();
        }
        assert!(found >= 950, "{kind:?}, rotated {rotated}: {found} of 1000 true neighbors among the first 20 by code");
    }
}

#[test]
fn every_level_fills_the_same_table() {
    for (dim, subspaces) in SHAPES {
        let rows = mixture(60, dim, 3, 10);
        let query: Vec<f32> = rows[..dim].iter().map(|&x| f32::from(x) * 1.01 - 3.3).collect();
        for (kind, rotated) in [(LookupKind::L2, true), (LookupKind::InnerProduct, true), (LookupKind::Manhattan, false)] {
            let codebook = codebook(&rows, dim, subspaces, rotated);
            let tables: Vec<Vec<u32>> = Kernels::available()
                .into_iter()
                .map(|kernels| {
                    let mut table = LookupTable::new();
                    table.fill_with(kernels, &codebook, kind, &query, &mut LookupScratch::default());
                    (0..=255).flat_map(|k| (1..=subspaces).map(move |len| (k, len))).map(|(k, len)| table.distance(&vec![k; len])).collect()
                })
                .collect();
            assert!(tables.iter().all(|t| t == &tables[0]), "dim {dim}, {kind:?}");
        }
    }
}

#[test]
fn distances_are_those_of_each_code_and_unknown_ids_are_farthest() {
    let rows = mixture(40, 9, 3, 12);
    let codebook = codebook(&rows, 9, 9, false);
    let mut codes = vec![0; 40 * 9];
    codebook.encode_rows(&rows, 9, &mut codes);
    let mut table = LookupTable::new();
    table.fill(&codebook, LookupKind::L2, &[100.0; 9], &mut LookupScratch::default());
    let ids: Vec<NodeId> = [39, 0, 7, 40, u32::MAX, 7].map(NodeId).to_vec();
    let mut out = vec![1, 2, 3];
    table.distances(&codes, &ids, &mut out);
    let one = |i: usize| table.distance(&codes[i * 9..][..9]);
    assert_eq!(out, [one(39), one(0), one(7), u32::MAX, u32::MAX, one(7)]);
    let by_hand: u32 = (0..9).map(|s| table.distance(&codes[..9][..s + 1]) - table.distance(&codes[..9][..s])).sum();
    assert_eq!(by_hand, one(0));
    LookupTable::new().distances(&codes, &ids, &mut out);
    assert_eq!(out, [0; 6]);
}
