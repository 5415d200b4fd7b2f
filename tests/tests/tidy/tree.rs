//! The repository as the judges see it: paths and texts, read once, or made up by a test.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

/// Text files beyond this many bytes are too big to keep, and their words are not read.
pub(crate) const MAX_FILE_BYTES: u64 = 1 << 20;

/// A file: its length, and its text where it is UTF-8 and not too big.
pub(crate) struct File {
    pub(crate) bytes: u64,
    pub(crate) text: Option<String>,
}

/// Files by their path from the root, `/` between the parts.
#[derive(Default)]
pub(crate) struct Tree(pub(crate) BTreeMap<String, File>);

impl Tree {
    /// What git knows of the checkout around this test, and what it would know after `git add .`. Without git: what a walk finds.
    pub(crate) fn of_repository() -> Tree {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ stands in the repository");
        let mut tree = Tree::default();
        for path in listed_by_git(root).unwrap_or_else(|| walked(root)) {
            // Git also lists what was deleted and not committed yet.
            let Ok(metadata) = fs::symlink_metadata(root.join(&path)) else { continue };
            let bytes = metadata.len();
            let readable = metadata.is_file() && bytes <= MAX_FILE_BYTES;
            let text = readable.then(|| fs::read(root.join(&path)).expect("a listed file can be read"));
            tree.0.insert(path, File { bytes, text: text.and_then(|bytes| String::from_utf8(bytes).ok()) });
        }
        tree
    }

    /// A made-up tree.
    pub(crate) fn of(files: &[(&str, &str)]) -> Tree {
        let file = |text: &str| File { bytes: text.len() as u64, text: Some(text.to_string()) };
        Tree(files.iter().map(|&(path, text)| (path.to_string(), file(text))).collect())
    }

    /// Path and text of every text file.
    pub(crate) fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter_map(|(path, file)| Some((path.as_str(), file.text.as_deref()?)))
    }

    /// Path and text of every Rust file.
    pub(crate) fn rust(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts().filter(|(path, _)| path.ends_with(".rs"))
    }
}

fn listed_by_git(root: &Path) -> Option<Vec<String>> {
    if !root.join(".git").exists() {
        return None;
    }
    let list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let output = Command::new("git").arg("-C").arg(root).args(list).output().ok()?;
    let paths = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| paths.split_terminator('\0').map(String::from).collect())
}

/// All files but those in folders that are not ours: build outputs, data beside the checkout, and hidden ones.
fn walked(root: &Path) -> Vec<String> {
    let (mut found, mut folders) = (Vec::new(), vec![String::new()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder)).expect("a folder can be read").flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
            let kept = matches!(name.as_str(), ".ci" | ".config" | ".gitignore");
            let skipped = name.starts_with('.') && !kept || matches!(name.as_str(), "target" | "shared" | "__pycache__");
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && !skipped => folders.push(path),
                Ok(kind) if kind.is_file() && !skipped => found.push(path),
                _ => {}
            }
        }
    }
    found
}

#[test]
fn the_repository_is_seen_whole() {
    let tree = Tree::of_repository();
    for path in ["Cargo.toml", "Makefile", ".ci/run", "core/src/lib.rs", "tests/tests/tidy/tree.rs"] {
        assert!(tree.0.get(path).is_some_and(|file| file.text.is_some()), "{path} is not seen");
    }
    assert!(tree.rust().count() > 20);
}

#[test]
fn a_walk_finds_what_git_lists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ stands in the repository");
    let walked = walked(root);
    let tree = Tree::of_repository();
    let missed: Vec<_> = tree.rust().filter(|(path, _)| !walked.iter().any(|w| w == path)).map(|(path, _)| path).collect();
    assert!(missed.is_empty(), "{missed:?}");
}
