//! Indexes that hnswlib, faiss, USearch and DiskANN made (`data/foreign/make.py`), whole and damaged.

use roxanne_builder::{
    BuildError, BuildParams, Builder,
    foreign::{Foreign, ForeignError, Reading, System},
};
use roxanne_core::{element::ElementType, format::keys::KeyList, metric::Metric, random::CounterRng};
use roxanne_engine::{Budget, Index, SearchParams, verify::verify};
use roxanne_tests::{SIFT_BASE, rows, scratch, scratch_in_memory};
use std::{collections::BTreeMap, fs, path::PathBuf};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/foreign");
/// Rows and coordinates that were taken of the sample.
const N: usize = 240;
const DIM: usize = 32;

fn of_type(element: ElementType) -> Reading {
    Reading { element: Some(element), ..Reading::default() }
}

/// An index, and what is known of it.
struct Made {
    system: System,
    file: &'static str,
    element: ElementType,
    /// As its file says it.
    metric: Option<Metric>,
    /// Whether it has keys of its own, and lacks those that were deleted.
    has_keys: bool,
    has_deleted: bool,
}

impl Made {
    fn path(&self) -> PathBuf {
        PathBuf::from(DATA).join(self.file)
    }

    /// Vectors by key, as they should come out.
    fn vectors(&self) -> BTreeMap<u64, Vec<f32>> {
        let of_row = |row: usize| if self.has_keys { 2 * row as u64 + 5 } else { row as u64 };
        let lives = |row: &usize| !(self.has_deleted && row.is_multiple_of(12));
        let sample = rows(SIFT_BASE, Metric::L2);
        let vector = |row: usize| -> Vec<f32> {
            let values = sample[row][..DIM].iter();
            values.map(|&value| if self.element == ElementType::I8 { (value / 2.0).floor() } else { value }).collect()
        };
        (0..N).filter(lives).map(|row| (of_row(row), vector(row))).collect()
    }

    fn open(&self) -> Foreign {
        Foreign::open(self.system, &self.path(), &of_type(self.element)).expect(self.file)
    }
}

const fn made(system: System, file: &'static str, element: ElementType, metric: Option<Metric>, has_keys: bool, has_deleted: bool) -> Made {
    Made { system, file, element, metric, has_keys, has_deleted }
}

const ALL: [Made; 8] = [
    made(System::Hnswlib, "hnswlib.bin", ElementType::F32, None, true, true),
    made(System::Faiss, "faiss-map.index", ElementType::F32, Some(Metric::L2), true, false),
    made(System::Faiss, "faiss.index", ElementType::F32, Some(Metric::InnerProduct), false, false),
    made(System::Usearch, "f32.usearch", ElementType::F32, Some(Metric::Cosine), true, true),
    made(System::Usearch, "f16.usearch", ElementType::F16, Some(Metric::L2), true, false),
    made(System::Usearch, "i8.usearch", ElementType::I8, Some(Metric::InnerProduct), true, false),
    made(System::DiskAnn, "ann", ElementType::U8, None, true, false),
    made(System::DiskAnn, "ann_disk.index", ElementType::U8, None, false, false),
];

fn numbers(keys: &KeyList) -> Vec<u64> {
    match keys {
        KeyList::Rows(n) => (0..*n).collect(),
        KeyList::Numbers(keys) => keys.clone(),
        KeyList::Strings(_) => panic!("no system has strings"),
    }
}

#[test]
fn vectors_keys_and_edges_come_out_as_they_went_in() {
    for of in &ALL {
        let (foreign, expected) = (of.open(), of.vectors());
        let keys = numbers(&foreign.keys);
        assert_eq!((foreign.metric, foreign.dataset.element(), foreign.dataset.dim()), (of.metric, of.element, DIM), "{}", of.file);
        let mut values = Vec::new();
        foreign.dataset.read_rows_f32(0, keys.len(), &mut values).unwrap();
        let found: BTreeMap<u64, Vec<f32>> = keys.iter().copied().zip(values.chunks_exact(DIM).map(<[f32]>::to_vec)).collect();
        assert!(found == expected, "{}: {} vectors", of.file, found.len());
        let (n, edges) = (foreign.links.n(), foreign.links.edge_count());
        assert!(n == keys.len() && edges > 4 * n as u64 && edges <= 12 * n as u64, "{}: {edges} edges of {n}", of.file);
        assert_eq!((0..n).map(|row| foreign.links.row(row).len() as u64).sum::<u64>(), edges);
    }
}

#[test]
fn an_imported_index_finds_what_is_in_it() {
    for of in &ALL {
        let (dir, expected) = (scratch(), of.vectors());
        let metric = of.metric.unwrap_or(Metric::L2);
        let params = BuildParams { max_degree: 24, ..BuildParams::default() };
        let path = dir.path().join("my.rx");
        let builder = || Builder::new(metric).params(params.clone()).foreign(of.open());
        let report = builder().build(&path).unwrap();
        assert_eq!((report.n, report.shards), (expected.len() as u64, 1));
        // Of the same file it is the same index; of the vectors alone it would be another.
        assert!(builder().build(&path).unwrap().already_complete);
        let of_vectors = Builder::new(metric).params(params.clone()).dataset(of.open().dataset).keys(of.open().keys).build(&path);
        assert!(matches!(of_vectors, Err(BuildError::OutputExists { .. })), "{}", of.file);
        let verified = verify(&path, &mut |_, _| ()).unwrap();
        assert_eq!((verified.nodes, verified.unreachable), (expected.len() as u64, 0), "{}", of.file);

        let index = Index::open(&path, Budget::default()).unwrap();
        let (mut hits, mut of_all) = (0, 0);
        for vector in expected.values().step_by(3) {
            let params = SearchParams { k: 10, list_size: 40, ..SearchParams::default() };
            let found = index.search(vector, &params).unwrap().hits;
            let exact = index.exact(&[vector], 10, None).unwrap().remove(0).hits;
            let furthest = exact[9].distance;
            hits += found.iter().filter(|hit| hit.distance <= furthest).count();
            of_all += 10;
            let key = |hit: &roxanne_engine::Hit| hit.key.0;
            assert!(exact.iter().chain(&found).all(|hit| expected.contains_key(&key(hit))), "{}", of.file);
        }
        assert!(hits * 100 >= of_all * 98, "{}: {hits} of {of_all}", of.file);
    }
}

#[test]
fn what_was_cut_off_is_refused_with_its_place() {
    let dir = scratch_in_memory();
    for of in &ALL {
        let bytes = fs::read(of.path()).unwrap();
        let path = dir.path().join(of.file);
        for suffix in [".data", ".tags"] {
            let _ = fs::copy(PathBuf::from(format!("{}{suffix}", of.path().display())), format!("{}{suffix}", path.display()));
        }
        // Upper levels of hnswlib's are not looked at.
        let needed = if of.system == System::Hnswlib { 96 + N * 188 } else { bytes.len() };
        for len in (0..needed).step_by(17).chain([needed - 1]) {
            fs::write(&path, &bytes[..len]).unwrap();
            let error = Foreign::open(of.system, &path, &of_type(of.element)).unwrap_err();
            assert!(error.to_string().contains(of.file), "{error}");
        }
        // One of another system is none of this.
        for other in ALL.iter().filter(|other| other.system != of.system) {
            assert!(Foreign::open(of.system, &other.path(), &of_type(of.element)).is_err(), "{} as {}", other.file, of.system);
        }
        assert!(matches!(Foreign::open(of.system, &dir.path().join("none"), &Reading::default()), Err(ForeignError::Io { .. })));
        assert!(Foreign::open(of.system, dir.path(), &Reading::default()).is_err());
    }
    for (system, file, element) in [
        (System::Usearch, "f16.usearch", ElementType::F32),
        (System::Faiss, "faiss.index", ElementType::U8),
        (System::DiskAnn, "ann", ElementType::F32),
    ] {
        assert!(Foreign::open(system, &PathBuf::from(DATA).join(file), &of_type(element)).is_err(), "{file}");
    }
}

#[test]
fn whatever_bits_were_turned_nothing_is_believed() {
    let dir = scratch_in_memory();
    let rng = CounterRng::new(0xF0E1);
    let (mut refused, mut taken) = (0, 0);
    for (of, part) in ALL.iter().zip(0..) {
        let (rng, bytes, path) = (rng.part(part), fs::read(of.path()).unwrap(), dir.path().join(of.file));
        for suffix in [".data", ".tags"] {
            let _ = fs::copy(PathBuf::from(format!("{}{suffix}", of.path().display())), format!("{}{suffix}", path.display()));
        }
        for turn in 0..1500 {
            let mut bytes = bytes.clone();
            // Headers are small and decide most.
            let below = if rng.below(4 * turn, 2) == 0 { 200 } else { bytes.len() as u64 };
            let at = rng.below(4 * turn + 1, below) as usize;
            match rng.below(4 * turn + 2, 3) {
                0 => bytes[at] ^= 1 << rng.below(4 * turn + 3, 8),
                1 => bytes[at] = 0xFF,
                _ => bytes[at..].iter_mut().take(8).for_each(|byte| *byte = 0xFF),
            }
            fs::write(&path, &bytes).unwrap();
            if of.file == "ann" && turn % 3 > 0 {
                // Its other files are damaged as well.
                let suffix = [".data", ".tags"][turn as usize % 3 - 1];
                let mut other = fs::read(format!("{}{suffix}", of.path().display())).unwrap();
                let at = rng.below(4 * turn + 1, if turn % 2 == 0 { 8 } else { other.len() as u64 }) as usize;
                other[at] ^= 1 << rng.below(4 * turn + 3, 8);
                fs::write(format!("{}{suffix}", path.display()), &other[..other.len() - usize::from(turn % 7 == 0)]).unwrap();
                fs::copy(of.path(), &path).unwrap();
            }
            let Ok(foreign) = Foreign::open(of.system, &path, &of_type(of.element)) else {
                refused += 1;
                continue;
            };
            taken += 1;
            let n = foreign.links.n();
            assert!(n <= N && foreign.dataset.n() == n as u64 && foreign.keys.len() == n as u64);
            assert!((0..n).all(|row| foreign.links.row(row).iter().all(|id| id.index() < n)));
            if turn % 50 == 0 {
                let out = dir.path().join("my.rx");
                let built = Builder::new(foreign.metric.unwrap_or(Metric::L2)).foreign(foreign).threads(1).build(&out);
                if built.is_ok() {
                    assert_eq!(verify(&out, &mut |_, _| ()).unwrap().unreachable, 0);
                    fs::remove_dir_all(&out).unwrap();
                }
            }
        }
    }
    assert!(refused > 1000 && taken > 1000, "{refused} refused, {taken} taken");
}

#[test]
fn reading_keeps_to_its_memory_and_hears_a_stop() {
    for of in &ALL {
        let of_it = |how: Reading| Foreign::open(of.system, &of.path(), &Reading { element: Some(of.element), ..how });
        assert!(
            matches!(of_it(Reading { ram: 5000, ..Reading::default() }), Err(ForeignError::Budget { allowed: 5000, .. })),
            "{}",
            of.file
        );
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
        assert!(matches!(of_it(Reading { stop, ..Reading::default() }), Err(ForeignError::Stopped { .. })), "{}", of.file);
        assert!(of_it(Reading { ram: 100_000, ..Reading::default() }).is_ok(), "{}", of.file);
        assert!(Foreign::open(of.system, &of.path(), &of_type(ElementType::Binary)).is_err());
    }
    // Beside these an index on disk holds something else than it was given.
    let dir = scratch();
    let path = dir.path().join("ann_disk.index");
    fs::copy(PathBuf::from(DATA).join("ann_disk.index"), &path).unwrap();
    assert!(Foreign::open(System::DiskAnn, &path, &of_type(ElementType::U8)).is_ok());
    for suffix in ["_max_base_norm.bin", "_pq_pivots.bin"] {
        let other = dir.path().join(format!("ann_disk.index{suffix}"));
        fs::write(&other, [0]).unwrap();
        assert!(Foreign::open(System::DiskAnn, &path, &of_type(ElementType::U8)).unwrap_err().to_string().contains(suffix));
        fs::remove_file(other).unwrap();
    }
}
