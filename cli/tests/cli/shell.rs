//! Running the binary, and directories to run it in.

use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tempfile::TempDir;

/// The binary under test.
pub(crate) const ROXANNE: &str = env!("CARGO_BIN_EXE_roxanne");
/// 4,000 SIFT descriptors of 128 bytes, and 200 queries to them.
pub(crate) const SIFT_BASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/sift-sample.base.u8bin");
pub(crate) const SIFT_QUERIES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/sift-sample.query.u8bin");
/// A set that is built in an instant.
pub(crate) const SMALL: &str = "synth:n=300,dim=8,clusters=8";

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn of(output: Output) -> Run {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
        let run = Run { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) };
        assert!(!run.stderr.contains("panicked"), "{run:?}");
        run
    }

    /// Holds that it went well.
    #[track_caller]
    pub(crate) fn well(self) -> Run {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// Holds that it ended with `code` and one line on stderr that holds all `words`.
    #[track_caller]
    pub(crate) fn failed(self, code: i32, words: &[&str]) -> Run {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.stderr.starts_with("error: ") && self.stderr.trim_end().lines().count() == 1, "one line: {self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not said: {self:?}");
        }
        self
    }

    /// As [`Run::failed`], where something was said before.
    #[track_caller]
    pub(crate) fn failed_last(mut self, code: i32, words: &[&str]) -> Run {
        self.stderr = self.stderr.trim_end().lines().last().unwrap_or_default().to_string();
        self.failed(code, words)
    }

    /// The one JSON object on stdout.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.stdout.lines().count(), 1, "one line: {self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Runs the binary to its end.
pub(crate) fn roxanne(args: &[&str]) -> Run {
    // Mesa's layer that chooses a screen's device has something to say on stderr where there is no screen.
    Run::of(Command::new(ROXANNE).args(args).env("NODEVICE_SELECT", "1").output().expect("the binary runs"))
}

/// A directory for one test.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Place {
        Place(tempfile::tempdir().expect("a temporary directory"))
    }

    pub(crate) fn root(&self) -> &Path {
        self.0.path()
    }

    /// The path of `name` in it, as an argument.
    pub(crate) fn at(&self, name: &str) -> String {
        self.root().join(name).to_str().expect("a path of UTF-8").to_string()
    }

    /// Writes a file and returns its path.
    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        fs::write(self.root().join(name), bytes).expect(name);
        self.at(name)
    }

    /// Builds `source` into `name` and returns its path.
    pub(crate) fn build(&self, source: &str, name: &str, more: &[&str]) -> String {
        let path = self.at(name);
        let mut args = vec!["build", source, "-o", &path, "--degree", "16"];
        args.extend(more);
        roxanne(&args).well();
        path
    }

    /// Names of what is in it, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        contents(self.root()).into_keys().map(|path| path.to_string_lossy().into_owned()).collect()
    }
}

/// Everything below `directory`, with the bytes of files.
pub(crate) fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display())) {
        let entry = entry.expect("a directory entry");
        let name = PathBuf::from(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            all.extend(contents(&entry.path()).into_iter().map(|(below, bytes)| (name.join(below), bytes)));
        }
        // A directory, or a link that leads nowhere, has no bytes.
        all.insert(name, fs::read(entry.path()).unwrap_or_default());
    }
    all
}

/// An fbin of `rows`.
pub(crate) fn fbin(rows: &[Vec<f32>]) -> Vec<u8> {
    let header = [rows.len() as u32, rows[0].len() as u32].into_iter().flat_map(u32::to_le_bytes);
    header.chain(rows.iter().flatten().flat_map(|value| value.to_le_bytes())).collect()
}

/// An fvecs of `rows`, each with its own dimension.
pub(crate) fn fvecs(rows: &[Vec<f32>]) -> Vec<u8> {
    let row = |row: &Vec<f32>| -> Vec<u8> {
        (row.len() as u32).to_le_bytes().into_iter().chain(row.iter().flat_map(|value| value.to_le_bytes())).collect()
    };
    rows.iter().flat_map(row).collect()
}

/// A .npy of that description over `values`.
pub(crate) fn npy(descr: &str, fortran: bool, shape: &str, values: &[u8]) -> Vec<u8> {
    let fortran = if fortran { "True" } else { "False" };
    let header = format!("{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), values].concat()
}
