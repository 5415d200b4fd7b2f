//! Yesterday's vectors and what has changed since, told by keys: which rows of which file make up today's input.
//!
//! A key that comes again replaces the vector it had, the last file wins, and a key on the list of deleted ones is gone whatever file
//! holds it. What is left keeps its order: rows of the base, then new rows file by file. So rows of the base lie in long runs, which are
//! read as a stream. Memory beside the keys follows what changed: 24 bytes a run, and a table of the changed keys while they are merged.

use crate::{dataset::Run, format::keys::KeyList};
use std::{collections::HashMap, hash::Hash};

/// What is left of all files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// Keys in the order of `runs`.
    pub keys: KeyList,
    /// The rows: part 0 is the base, part i the i-th file of changes.
    pub runs: Vec<Run>,
    /// What changed.
    pub counts: Counts,
}

/// How many keys met which fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Keys of the base that have another vector now.
    pub replaced: u64,
    /// Keys that the base does not have.
    pub added: u64,
    /// Keys of base or changes that are gone.
    pub deleted: u64,
    /// Keys that were to go, but stand in no file.
    pub unknown: u64,
}

/// String keys in a file of changes, where the base has numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its keys are strings, those of the base are numbers: one file of each kind cannot name the same rows")]
pub struct OtherKind {
    /// Which file of changes, from 1 on.
    pub file: usize,
}

/// Merges lists that each passed [`KeyList::check`]; of `deleted` nothing is asked. Numbers among strings are their decimal text; the rows of
/// a base without keys are named by their numbers.
///
/// # Errors
/// [`OtherKind`].
pub fn merge(base: KeyList, changes: Vec<KeyList>, deleted: KeyList) -> Result<Merged, OtherKind> {
    let is_text = |list: &KeyList| matches!(list, KeyList::Strings(keys) if !keys.is_empty());
    let of_base = if base.is_empty() { changes.iter().any(is_text) } else { is_text(&base) };
    let lists = std::iter::once(base).chain(changes);
    if of_base {
        let gone = into_strings(deleted);
        let (keys, runs, counts) = merge_lists(lists.map(into_strings).collect(), &gone);
        return Ok(Merged { keys: KeyList::Strings(keys), runs, counts });
    }
    let lists = lists.enumerate().map(|(file, list)| into_numbers(list).ok_or(OtherKind { file })).collect::<Result<_, _>>()?;
    // A text that is no number is a key that no file has.
    let (gone, strange) = match deleted {
        KeyList::Strings(keys) => {
            let numbers: Vec<u64> = keys.iter().filter_map(|key| KeyList::number(key)).collect();
            let strange = (keys.len() - numbers.len()) as u64;
            (numbers, strange)
        }
        other => (into_numbers(other).unwrap_or_default(), 0),
    };
    let (keys, runs, mut counts) = merge_lists(lists, &gone);
    counts.unknown += strange;
    Ok(Merged { keys: KeyList::Numbers(keys), runs, counts })
}

fn into_strings(list: KeyList) -> Vec<String> {
    match list {
        KeyList::Rows(n) => (0..n).map(|key| key.to_string()).collect(),
        KeyList::Numbers(keys) => keys.into_iter().map(|key| key.to_string()).collect(),
        KeyList::Strings(keys) => keys,
    }
}

fn into_numbers(list: KeyList) -> Option<Vec<u64>> {
    match list {
        KeyList::Rows(n) => Some((0..n).collect()),
        KeyList::Numbers(keys) => Some(keys),
        KeyList::Strings(keys) => keys.is_empty().then(Vec::new),
    }
}

/// The fate of a key that some file of changes holds, or that is to go.
struct Fate {
    /// The last file that holds it; [`NOBODY`] where it is to go.
    owner: u32,
    in_changes: bool,
    in_base: bool,
}

const NOBODY: u32 = u32::MAX;

/// Merges keys of one kind; list 0 is the base's.
fn merge_lists<K: Eq + Hash + Default>(lists: Vec<Vec<K>>, deleted: &[K]) -> (Vec<K>, Vec<Run>, Counts) {
    let mut fates: HashMap<&K, Fate> = HashMap::new();
    for (file, list) in lists.iter().enumerate().skip(1) {
        fates.extend(list.iter().map(|key| (key, Fate { owner: file as u32, in_changes: true, in_base: false })));
    }
    for key in deleted {
        fates.entry(key).or_insert(Fate { owner: NOBODY, in_changes: false, in_base: false }).owner = NOBODY;
    }
    let (mut runs, mut counts) = (Vec::new(), Counts::default());
    for (row, key) in (0..).zip(&lists[0]) {
        match fates.get_mut(key) {
            None => push(&mut runs, 0, row),
            Some(fate) => fate.in_base = true,
        }
    }
    for fate in fates.values() {
        match (fate.owner, fate.in_base, fate.in_changes) {
            (NOBODY, false, false) => counts.unknown += 1,
            (NOBODY, ..) => counts.deleted += 1,
            (_, true, _) => counts.replaced += 1,
            (_, false, _) => counts.added += 1,
        }
    }
    for (file, list) in lists.iter().enumerate().skip(1) {
        let rows = (0..).zip(list).filter(|(_, key)| fates[key].owner == file as u32);
        rows.for_each(|(row, _)| push(&mut runs, file as u32, row));
    }
    drop(fates);
    (gather(lists, &runs), runs, counts)
}

/// Adds a row, to the last run where it follows on it.
fn push(runs: &mut Vec<Run>, part: u32, row: u64) {
    match runs.last_mut() {
        Some(run) if run.part == part && run.start + run.count == row => run.count += 1,
        _ => runs.push(Run { part, start: row, count: 1 }),
    }
}

/// The keys of `runs`. The base's, which may be most of what memory holds, move together where they are.
fn gather<K: Default>(mut lists: Vec<Vec<K>>, runs: &[Run]) -> Vec<K> {
    let mut keys = std::mem::take(&mut lists[0]);
    let mut kept = 0;
    for run in runs.iter().take_while(|run| run.part == 0) {
        for row in run.start..run.start + run.count {
            keys.swap(kept, row as usize);
            kept += 1;
        }
    }
    keys.truncate(kept);
    for run in runs.iter().skip_while(|run| run.part == 0) {
        let some = &mut lists[run.part as usize][run.start as usize..][..run.count as usize];
        keys.extend(some.iter_mut().map(std::mem::take));
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(keys: &[u64]) -> KeyList {
        KeyList::Numbers(keys.to_vec())
    }

    fn strings(keys: &[&str]) -> KeyList {
        KeyList::Strings(keys.iter().map(|key| key.to_string()).collect())
    }

    fn run(part: u32, start: u64, count: u64) -> Run {
        Run { part, start, count }
    }

    #[test]
    fn the_last_file_wins_and_what_is_deleted_is_gone_whatever_holds_it() {
        let changes = vec![numbers(&[12, 50, 13]), numbers(&[60, 12, 51])];
        let merged = merge(numbers(&[10, 11, 12, 13, 14]), changes, numbers(&[10, 51, 99])).unwrap();
        assert_eq!(merged.keys, numbers(&[11, 14, 50, 13, 60, 12]));
        assert_eq!(merged.runs, [run(0, 1, 1), run(0, 4, 1), run(1, 1, 2), run(2, 0, 2)]);
        assert_eq!(merged.counts, Counts { replaced: 2, added: 2, deleted: 2, unknown: 1 });
    }

    #[test]
    fn a_night_without_changes_keeps_the_base_in_one_run() {
        let merged = merge(strings(&["a", "b", "c"]), vec![numbers(&[])], numbers(&[])).unwrap();
        assert_eq!((merged.keys, merged.runs), (strings(&["a", "b", "c"]), vec![run(0, 0, 3)]));
        let merged = merge(KeyList::Rows(4), vec![], numbers(&[2])).unwrap();
        assert_eq!((merged.keys, merged.runs), (numbers(&[0, 1, 3]), vec![run(0, 0, 2), run(0, 3, 1)]));
        let merged = merge(numbers(&[5]), vec![], numbers(&[5, 5])).unwrap();
        assert_eq!((merged.keys.len(), merged.runs.len(), merged.counts.deleted), (0, 0, 1));
    }

    #[test]
    fn numbers_among_strings_are_their_text_and_strings_among_numbers_are_refused() {
        let merged = merge(strings(&["doc", "7"]), vec![numbers(&[7, 8])], numbers(&[8])).unwrap();
        assert_eq!(merged.keys, strings(&["doc", "7"]));
        assert_eq!((merged.counts.replaced, merged.counts.deleted), (1, 1));
        assert_eq!(merge(numbers(&[7]), vec![numbers(&[1]), strings(&["x"])], numbers(&[])), Err(OtherKind { file: 2 }));
        // On the list of the deleted such a key is one that no file has.
        let merged = merge(numbers(&[7, 8]), vec![], strings(&["x", "8", "007"])).unwrap();
        assert_eq!((merged.keys, merged.counts.unknown), (numbers(&[7]), 2));
        assert_eq!(merge(numbers(&[]), vec![strings(&["x"])], numbers(&[])).unwrap().keys, strings(&["x"]));
    }
}
