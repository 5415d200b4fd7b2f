//! The vectors of a command: a file, and what has changed since it was written.

use crate::{failure::Failure, key_file, progress::say, text};
use roxanne_core::{
    changes::{self, Counts, Merged},
    dataset::Dataset,
    format::keys::KeyList,
};
use std::{
    fmt::Display,
    path::{Path, PathBuf},
    str::FromStr,
};

/// Keys of the rows, and what has changed since.
#[derive(clap::Args)]
pub(crate) struct Changes {
    /// Your own keys of the rows: .npy of integers, or text with one key a line; without it keys are row numbers
    #[arg(long, value_name = "FILE")]
    pub(crate) keys: Option<PathBuf>,
    /// Keys are texts although all look like numbers, as those of collections are that were made over HTTP
    #[arg(long, requires = "keys")]
    pub(crate) string_keys: bool,
    /// Changed and new vectors with their keys, as often as there are files: a key that comes again replaces, the last file wins
    #[arg(long, value_name = "VECTORS:KEYS", requires = "keys")]
    changes: Vec<Change>,
    /// Keys that are gone, whatever file holds them
    #[arg(long, value_name = "FILE", requires = "keys")]
    deleted: Option<PathBuf>,
}

/// A file of vectors and the file of their keys.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    vectors: String,
    keys: PathBuf,
}

impl FromStr for Change {
    type Err = String;
    fn from_str(text: &str) -> Result<Change, String> {
        // The vectors may be `synth:...`, which has a colon of its own.
        match text.rsplit_once(':') {
            Some((vectors, keys)) if !vectors.is_empty() && !keys.is_empty() && vectors != "synth" => {
                Ok(Change { vectors: vectors.to_string(), keys: keys.into() })
            }
            _ => Err("a change replaces by key: write VECTORS:KEYS, such as tuesday.u8bin:tuesday.keys".into()),
        }
    }
}

impl Changes {
    /// The rows of `base` with all that changed, the first `limit` of them, and their keys where there are any.
    pub(crate) fn open(&self, base: &str, limit: Option<u64>) -> Result<(Dataset, Option<KeyList>), Failure> {
        let base = Dataset::open(base)?;
        let limited = limit.unwrap_or(u64::MAX);
        let Some(path) = &self.keys else { return Ok((base.limit(limited), None)) };
        if self.changes.is_empty() && self.deleted.is_none() {
            return Ok((base.limit(limited), Some(self.as_said(key_file::limited(key_file::read(path)?, limit)))));
        }
        let open = |change: &Change| Dataset::open(&change.vectors);
        let changes = self.changes.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        let merged = self.merge(path, Some(base.n()), &changes.iter().map(|change| Some(change.n())).collect::<Vec<_>>())?;
        let n = base.n();
        let whole = Dataset::of_parts(std::iter::once(base).chain(changes).collect(), &merged.runs)?;
        say(summary(n, whole.n(), &merged.counts));
        Ok((whole.limit(limited), Some(self.as_said(key_file::limited(merged.keys, limit)))))
    }

    /// The keys alone; `None` where none were given.
    pub(crate) fn keys(&self) -> Result<Option<KeyList>, Failure> {
        let Some(path) = &self.keys else { return Ok(None) };
        Ok(Some(self.as_said(self.merge(path, None, &vec![None; self.changes.len()])?.keys)))
    }

    fn as_said(&self, keys: KeyList) -> KeyList {
        match keys {
            KeyList::Numbers(numbers) if self.string_keys => KeyList::Strings(numbers.iter().map(u64::to_string).collect()),
            keys => keys,
        }
    }

    /// Merges keys; `base` and `changes` are the numbers of rows that they must name, where that is known.
    fn merge(&self, path: &Path, base: Option<u64>, changes: &[Option<u64>]) -> Result<Merged, Failure> {
        let checked = |path: &Path, rows: Option<u64>| -> Result<KeyList, Failure> {
            let keys = key_file::read(path)?;
            let proven = keys.check(rows.unwrap_or_else(|| keys.len()));
            proven.map_err(|error| Failure::input(format!("{}: {error}", path.display())))?;
            Ok(keys)
        };
        let of_base = checked(path, base)?;
        let of_change = |(change, &rows): (&Change, &Option<u64>)| checked(&change.keys, rows);
        let of_changes = self.changes.iter().zip(changes).map(of_change).collect::<Result<_, _>>()?;
        let deleted = self.deleted.as_deref().map_or(Ok(KeyList::Numbers(Vec::new())), key_file::read)?;
        changes::merge(of_base, of_changes, deleted)
            .map_err(|error| Failure::input(format!("{}: {error}", self.changes[error.file - 1].keys.display())))
    }
}

/// One line on what the changes were.
fn summary(base: u64, whole: u64, counts: &Counts) -> impl Display {
    let [base, whole, replaced, added, deleted] = [base, whole, counts.replaced, counts.added, counts.deleted].map(text::count);
    let unknown = match counts.unknown {
        0 => String::new(),
        unknown => format!(" ({} more keys to delete stand in no file)", text::count(unknown)),
    };
    format!("{base} vectors, {replaced} replaced, {added} added, {deleted} deleted{unknown}: {whole} now")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_vectors_and_keys() {
        let change = |vectors: &str, keys: &str| Ok(Change { vectors: vectors.into(), keys: keys.into() });
        assert_eq!("a.u8bin:a.keys".parse(), change("a.u8bin", "a.keys"));
        assert_eq!("synth:n=5,dim=2:k.txt".parse(), change("synth:n=5,dim=2", "k.txt"));
        for bad in ["a.u8bin", "a.u8bin:", ":k", "", "synth:n=5,dim=2"] {
            assert!(bad.parse::<Change>().unwrap_err().contains("VECTORS:KEYS"), "{bad}");
        }
    }
}
