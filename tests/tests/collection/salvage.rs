//! What is read past damage: all but the points of pages that cannot be read, and those are named.

use super::{
    merge::{Kind, Model, PLAIN, merge_all, step},
    *,
};
use roxanne_engine::collection::{MergeLimits, Salvage, SalvageReport};
use std::{collections::BTreeMap, fs, path::PathBuf};

fn read(path: &Path) -> (SalvageReport, Model) {
    let mut found = BTreeMap::new();
    let report = Salvage::open(path).unwrap().each(|point| {
        assert!(found.insert(point.key, point.vector).is_none(), "a point twice");
        Ok(())
    });
    (report.unwrap(), found)
}

fn base_file(path: &Path, name: &str) -> PathBuf {
    let mut bases = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    bases.find(|base| base.join("MANIFEST").exists()).unwrap().join(name)
}

fn flip(path: &Path, at: u64) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at as usize] ^= 4;
    fs::write(path, bytes).unwrap();
}

#[test]
fn damage_costs_the_points_of_its_pages_and_no_others() {
    for kind in [PLAIN, Kind { keys: KeyKind::Strings, ..PLAIN }] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c");
        let (collection, mut model) = kind.based(&path, 600, 1400, &FAST());
        // Some of all kinds: built, merged, replaced, deleted, in memory.
        collection.write(step(&kind, &mut model, 1, (0..700).step_by(3))).unwrap();
        merge_all(&collection, &MergeLimits { inserts: 100, removals: 60, threads: 1 });
        collection.write(step(&kind, &mut model, 2, (0..700).step_by(5))).unwrap();
        drop(collection);
        let (report, found) = read(&path);
        assert_eq!((&found, report.points, report.damage.len(), report.lost.len()), (&model, model.len() as u64, 0, 0));

        let graph = base_file(&path, "graph.rx");
        let whole = fs::read(&graph).unwrap();
        for page in [0u64, 3, 7] {
            flip(&graph, 65536 + page * 4096 + 1000);
        }
        let (report, found) = read(&path);
        assert_eq!(report.damage.len(), 3, "{report:?}");
        assert!(report.damage[1].contains("page 3") && report.damage[1].contains("graph.rx"), "{report:?}");
        let lost: Model =
            model.iter().filter(|(key, _)| !found.contains_key(key)).map(|(key, vector)| (key.clone(), vector.clone())).collect();
        assert!(!lost.is_empty() && lost.keys().eq(report.lost.iter()), "{report:?}");
        assert!(found.iter().all(|(key, vector)| model.get(key) == Some(vector)) && report.lost_unnamed == 0);
        fs::write(&graph, whole).unwrap();

        // What is made of the records costs nothing, though nothing can be opened.
        for name in ["codes.rx", "nav.rx", "codebook.rx"] {
            let file = base_file(&path, name);
            let whole = fs::read(&file).unwrap();
            flip(&file, 300);
            assert!(Collection::open(&path, &FAST()).is_err(), "{name}");
            let (report, found) = read(&path);
            assert!(found == model && report.lost.is_empty() && report.damage[0].contains(name), "{report:?}");
            fs::write(&file, whole).unwrap();
        }
        // Names of texts are nowhere else; numbers stand in their records.
        let file = base_file(&path, "keys.rx");
        flip(&file, 300);
        let (report, found) = read(&path);
        let missing = (model.len() - found.len()) as u64;
        assert!(found.iter().all(|(key, vector)| model.get(key) == Some(vector)) && report.damage.len() == 1, "{report:?}");
        match kind.keys {
            KeyKind::Numbers => assert_eq!((missing, report.lost_unnamed), (0, 0)),
            KeyKind::Strings => assert!(missing > 300 && report.lost_unnamed >= missing, "{missing} {report:?}"),
        }
    }
}
