//! A small index to be maltreated, and what it said while it was well.

use roxanne_builder::{BuildParams, Builder};
use roxanne_core::{Budget, ErrorClass, format::keys::KeyList, metric::Metric};
use roxanne_engine::{
    Index, OpenError, SearchParams,
    verify::{VerifyReport, verify},
};
use roxanne_tests::{contents, hits, rows, scratch_in_memory, small};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// The files of an index, as a test names them.
pub(crate) const FILES: [&str; 6] = ["MANIFEST", "codebook.rx", "codes.rx", "graph.rx", "keys.rx", "nav.rx"];
/// Where the vectors come from.
pub(crate) const SOURCE: &str = "synth:n=300,dim=24,type=u8,clusters=8";
/// How many there are.
pub(crate) const N: u64 = 300;

/// Everything that a user may learn from an index: hits of some queries, a vector by its key, names of keys.
#[derive(Debug, PartialEq)]
pub(crate) struct Said {
    hits: Vec<Vec<(u64, f32)>>,
    vector: Option<Vec<f32>>,
    found: Option<u64>,
    name: Option<String>,
}

/// An index, its files as they were written, and what it said then.
pub(crate) struct Victim {
    _dir: TempDir,
    pub(crate) path: PathBuf,
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) said: Said,
    queries: Vec<Vec<f32>>,
}

impl Victim {
    /// Built of [`SOURCE`] with string keys.
    pub(crate) fn new(seed: u64) -> Victim {
        let keys = KeyList::Strings((0..N).map(|row| format!("key {row}")).collect());
        Victim::of(SOURCE, keys, BuildParams { seed, ..small() })
    }

    /// Built of `source` with `keys`.
    pub(crate) fn of(source: &str, keys: KeyList, params: BuildParams) -> Victim {
        let dir = scratch_in_memory();
        let path = dir.path().join("index");
        Builder::new(Metric::L2).params(params).input(source).expect("the source").keys(keys).build(&path).expect("a built index");
        let queries = rows(source, Metric::L2).into_iter().step_by(61).take(5).collect();
        let (files, said) = (contents(&path), Said { hits: Vec::new(), vector: None, found: None, name: None });
        let mut victim = Victim { _dir: dir, path, files, said, queries };
        victim.said = victim.ask().expect("a whole index");
        assert!(victim.said.found.is_some() && victim.said.vector.is_some() && victim.verify().is_ok());
        victim
    }

    /// Asks the index on disk as it is now. The order of reads is fixed, so that equal files give equal answers.
    pub(crate) fn ask(&self) -> Result<Said, (ErrorClass, String)> {
        let opened = |error: OpenError| (error.class(), error.to_string());
        let searched = |error: roxanne_engine::SearchError| (error.class(), error.to_string());
        let index = Index::open(&self.path, Budget::default()).map_err(opened)?;
        let mut searcher = index.searcher().map_err(searched)?;
        let params = SearchParams { k: 10, list_size: 30, beam_width: 1, ..SearchParams::DEFAULT };
        let answer = |query: &Vec<f32>| searcher.search(query, &params).map(|answer| hits(&answer)).map_err(searched);
        let hits: Vec<Vec<(u64, f32)>> = self.queries.iter().map(answer).collect::<Result<_, _>>()?;
        let text = if index.info().string_keys { "key 123" } else { "123" };
        let vector = index.get(text).map_err(searched)?;
        let found = index.find(text).map_err(searched)?;
        let name = found.map_or(Ok(None), |key| index.key_name(key)).map_err(searched)?;
        Ok(Said { hits, vector, found: found.map(|key| key.0), name })
    }

    /// Verifies the index on disk as it is now.
    pub(crate) fn verify(&self) -> Result<VerifyReport, OpenError> {
        verify(&self.path, &mut |_, _| {})
    }

    /// Holds that `verify` finds corruption in `file`, and that asking gives an error or what was said before.
    pub(crate) fn is_caught(&self, file: &str, what: &str) {
        match self.verify() {
            Ok(report) => panic!("{file}, {what}: verified as {report:?}"),
            Err(error) => {
                assert_eq!(error.class(), ErrorClass::Corrupt, "{file}, {what}: {error}");
                assert!(error.to_string().contains(&*self.path.join(file).to_string_lossy()), "{file}, {what}: {error}");
            }
        }
        self.answers_rightly_or_not_at_all(&format!("{file}, {what}"));
    }

    /// Holds that asking gives corruption or what was said before.
    pub(crate) fn answers_rightly_or_not_at_all(&self, what: &str) {
        match self.ask() {
            Ok(said) => assert_eq!(said, self.said, "{what}: a wrong answer"),
            Err((class, text)) => assert_eq!(class, ErrorClass::Corrupt, "{what}: {text}"),
        }
    }

    /// Where a file lies.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Puts `bytes` in the place of a file for the time of `then`.
    pub(crate) fn with_file<T>(&self, name: &str, bytes: &[u8], then: impl FnOnce() -> T) -> T {
        fs::write(self.file(name), bytes).expect("a changed file");
        let result = then();
        fs::write(self.file(name), &self.files[name]).expect("a restored file");
        result
    }

    /// Puts everything back.
    pub(crate) fn heal(&self) {
        restore(&self.path, &self.files);
    }
}

/// Makes `directory` hold `files` and nothing else.
fn restore(directory: &Path, files: &BTreeMap<String, Vec<u8>>) {
    let _ = fs::remove_dir_all(directory);
    fs::create_dir(directory).expect("a directory");
    files.iter().for_each(|(name, bytes)| fs::write(directory.join(name), bytes).expect("a restored file"));
}
