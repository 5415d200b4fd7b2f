//! keys.rx: from the user's key to the node. Never held in RAM: a lookup is a binary search of page reads.
//!
//! Payload: `kind u64 (0 rows, 1 numbers, 2 strings) | n u64`, then
//! rows (no keys were given, so a row's number is its key): `node u32 [n]`.
//! numbers: `(key u64, node u64) [n]` sorted by key; records hold the key itself.
//! strings: `(offset u64, length u32, node u32) [n]` sorted by string, then `(offset u64, length u32, 0 u32) [n]` by number, then the heap;
//! records hold the number, which is the row of the input.

use super::FormatError;
use super::blob::{BlobReader, BlobWriter};
use crate::{
    aside::breathe,
    id::{Key, MAX_NODES, NodeId},
};
use rayon::prelude::*;

const HEAD_BYTES: u64 = 16;
const ENTRY_BYTES: u64 = 16;
const ROWS: u64 = 0;
const NUMBERS: u64 = 1;
const STRINGS: u64 = 2;
/// Longest string key, in bytes.
pub const MAX_KEY_BYTES: usize = 512;

/// The keys of all rows of an input, in row order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyList {
    /// The row's number is its key.
    Rows(u64),
    /// One number a row.
    Numbers(Vec<u64>),
    /// One string a row.
    Strings(Vec<String>),
}

/// Why a list of keys cannot name the rows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyListError {
    /// Not one key a row.
    #[error("{got} keys for {expected} vectors")]
    Count {
        /// Keys.
        got: u64,
        /// Rows.
        expected: u64,
    },
    /// More than one index can name.
    #[error("{got} keys; an index holds {MAX_NODES} vectors at most")]
    TooMany {
        /// Keys.
        got: u64,
    },
    /// A key that names two rows.
    #[error("key {key} stands at row {first} and again at row {second}")]
    Duplicate {
        /// The key.
        key: String,
        /// Its first row.
        first: u64,
        /// Its second.
        second: u64,
    },
    /// A string that is no key.
    #[error("row {row}: a key must be 1 to {MAX_KEY_BYTES} bytes long and hold no NUL; this one has {bytes} bytes")]
    Bad {
        /// Row.
        row: u64,
        /// Its length.
        bytes: usize,
    },
}

impl KeyList {
    /// Number of keys.
    pub fn len(&self) -> u64 {
        match self {
            KeyList::Rows(n) => *n,
            KeyList::Numbers(keys) => keys.len() as u64,
            KeyList::Strings(keys) => keys.len() as u64,
        }
    }

    /// True without keys.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Proves that there is one good, unique key for each of `n` rows.
    ///
    /// # Errors
    /// See [`KeyListError`].
    pub fn check(&self, n: u64) -> Result<(), KeyListError> {
        if self.len() != n {
            return Err(KeyListError::Count { got: self.len(), expected: n });
        }
        if n > MAX_NODES {
            return Err(KeyListError::TooMany { got: n });
        }
        if let KeyList::Strings(keys) = self
            && let Some(row) = keys.iter().position(|k| k.is_empty() || k.len() > MAX_KEY_BYTES || k.contains('\0'))
        {
            return Err(KeyListError::Bad { row: row as u64, bytes: keys[row].len() });
        }
        let (key, first, second) = match self {
            KeyList::Rows(_) => return Ok(()),
            KeyList::Numbers(keys) => match twice(keys) {
                Some([first, second]) => (keys[first].to_string(), first, second),
                None => return Ok(()),
            },
            KeyList::Strings(keys) => match twice(keys) {
                Some([first, second]) => (format!("{:?}", keys[first]), first, second),
                None => return Ok(()),
            },
        };
        Err(KeyListError::Duplicate { key, first: first as u64, second: second as u64 })
    }

    /// The number that `text` is, written as a program would: not `007`, which would come back as `7`.
    pub fn number(text: &str) -> Option<u64> {
        text.parse().ok().filter(|number: &u64| number.to_string() == text)
    }

    /// Memory of the list while it is held, and of the order of its keys while they are checked or written.
    pub fn ram_bytes(&self) -> u64 {
        // An allocation is rounded up, and knows its length.
        let heap = |key: &String| (key.len() as u64 + 8).next_multiple_of(16) + size_of::<String>() as u64;
        match self {
            KeyList::Rows(_) => 0,
            KeyList::Numbers(keys) => keys.len() as u64 * (8 + 4),
            KeyList::Strings(keys) => keys.len() as u64 * (8 + 4) + keys.iter().map(heap).sum::<u64>(),
        }
    }

    /// Bytes that [`KeyList::write`] will write.
    pub fn payload_bytes(&self) -> u64 {
        match self {
            KeyList::Rows(n) => HEAD_BYTES + 4 * n,
            KeyList::Numbers(_) => HEAD_BYTES + ENTRY_BYTES * self.len(),
            KeyList::Strings(keys) => HEAD_BYTES + 2 * ENTRY_BYTES * self.len() + keys.iter().map(|k| k.len() as u64).sum::<u64>(),
        }
    }

    /// One number for all of them, in order.
    pub fn fingerprint(&self) -> u64 {
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        match self {
            KeyList::Rows(n) => hash.update(&n.to_le_bytes()),
            KeyList::Numbers(keys) => keys.iter().for_each(|k| hash.update(&k.to_le_bytes())),
            KeyList::Strings(keys) => keys.iter().for_each(|k| {
                hash.update(k.as_bytes());
                hash.update(&[0]);
            }),
        }
        hash.digest()
    }

    /// What the record of `row` holds.
    pub fn record_key(&self, row: u64) -> Key {
        match self {
            KeyList::Numbers(keys) => Key(keys[row as usize]),
            KeyList::Rows(_) | KeyList::Strings(_) => Key(row),
        }
    }

    /// Writes the payload; `node_of(row)` is where each row went.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, blob: &mut BlobWriter, node_of: impl Fn(usize) -> NodeId) -> Result<(), FormatError> {
        let kind = match self {
            KeyList::Rows(_) => ROWS,
            KeyList::Numbers(_) => NUMBERS,
            KeyList::Strings(_) => STRINGS,
        };
        blob.write(&kind.to_le_bytes())?;
        blob.write(&self.len().to_le_bytes())?;
        match self {
            KeyList::Rows(n) => (0..*n as usize).try_for_each(|row| blob.write(&node_of(row).0.to_le_bytes()))?,
            KeyList::Numbers(keys) => {
                for row in sorted_rows(keys).into_iter().map(|row| row as usize) {
                    blob.write(&keys[row].to_le_bytes())?;
                    blob.write(&u64::from(node_of(row).0).to_le_bytes())?;
                }
            }
            KeyList::Strings(keys) => {
                let mut offset = HEAD_BYTES + 2 * ENTRY_BYTES * self.len();
                let offsets: Vec<u64> = keys
                    .iter()
                    .map(|key| {
                        let start = offset;
                        offset += key.len() as u64;
                        start
                    })
                    .collect();
                let mut entry = |row: usize, node: u32| {
                    blob.write(&offsets[row].to_le_bytes())?;
                    blob.write(&(keys[row].len() as u32).to_le_bytes())?;
                    blob.write(&node.to_le_bytes())
                };
                sorted_rows(keys).into_iter().map(|row| row as usize).try_for_each(|row| entry(row, node_of(row).0))?;
                (0..keys.len()).try_for_each(|row| entry(row, 0))?;
                keys.iter().try_for_each(|key| blob.write(key.as_bytes()))?;
            }
        }
        Ok(())
    }
}

/// Two rows of one key, the first such pair in the order of keys.
fn twice<T: Ord + Sync>(keys: &[T]) -> Option<[usize; 2]> {
    let pair = |w: &[u32]| [w[0] as usize, w[1] as usize];
    sorted_rows(keys).windows(2).map(pair).find(|&[a, b]| keys[a] == keys[b])
}

/// Rows in the order of their keys. There are no more than nodes, so 32 bits hold each.
fn sorted_rows<T: Ord + Sync>(keys: &[T]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..keys.len() as u32).collect();
    order.par_sort_unstable_by(|&a, &b| (&keys[a as usize], a).cmp(&(&keys[b as usize], b)));
    order
}

/// A key, of either kind; numbers by value, texts by their bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyName {
    /// A number, or the number of a row.
    Number(u64),
    /// A text.
    Text(String),
}

/// Pages of keys.rx that stay in memory: the middles that every search by halves begins with.
pub const KEPT_PAGES: usize = 32;

/// keys.rx, opened.
#[derive(Debug)]
pub struct Keys {
    blob: BlobReader,
    kind: u64,
    n: u64,
}

impl Keys {
    /// Opens the keys of an index of `n` nodes.
    ///
    /// # Errors
    /// Corruption, or a head that does not fit `n`.
    pub fn open(blob: BlobReader, n: u64) -> Result<Keys, FormatError> {
        Keys::open_keeping(blob, n, KEPT_PAGES)
    }

    /// The same, keeping so many of its pages in memory: those that were wanted last. Where it keeps all, a key costs no read.
    ///
    /// # Errors
    /// As [`Keys::open`].
    pub fn open_keeping(blob: BlobReader, n: u64, pages: usize) -> Result<Keys, FormatError> {
        let mut head = [0; HEAD_BYTES as usize];
        blob.read_at(0, &mut head)?;
        let (kind, count) = (word(&head, 0), word(&head, 8));
        let least = HEAD_BYTES
            + n * match kind {
                ROWS => 4,
                NUMBERS => ENTRY_BYTES,
                _ => 2 * ENTRY_BYTES,
            };
        if kind > STRINGS || count != n || blob.len() < least {
            return Err(blob.corrupt(0, format!("kind {kind} with {count} keys for {n} nodes in {} bytes", blob.len())));
        }
        Ok(Keys { blob: blob.keeping(pages), kind, n })
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.n
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.n == 0
    }

    /// True where keys are strings.
    pub fn are_strings(&self) -> bool {
        self.kind == STRINGS
    }

    /// True where keys are row numbers.
    pub fn are_rows(&self) -> bool {
        self.kind == ROWS
    }

    fn entry(&self, at: u64) -> Result<[u8; 16], FormatError> {
        let mut entry = [0; 16];
        self.blob.read_at(HEAD_BYTES + at * ENTRY_BYTES, &mut entry)?;
        Ok(entry)
    }

    fn search(&self, mut order: impl FnMut(&[u8; 16]) -> Result<std::cmp::Ordering, FormatError>) -> Result<Option<[u8; 16]>, FormatError> {
        let (mut low, mut high) = (0, self.n);
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = self.entry(middle)?;
            match order(&entry)? {
                std::cmp::Ordering::Equal => return Ok(Some(entry)),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Ok(None)
    }

    fn node(&self, id: u64) -> Result<Option<NodeId>, FormatError> {
        if id >= self.n {
            return Err(self.blob.corrupt(0, format!("a key leads to node {id} of {}", self.n)));
        }
        Ok(Some(NodeId(id as u32)))
    }

    /// The node of a number key.
    ///
    /// # Errors
    /// Corruption.
    pub fn find_number(&self, key: u64) -> Result<Option<NodeId>, FormatError> {
        if self.kind == STRINGS || (self.kind == ROWS && key >= self.n) {
            return Ok(None);
        }
        if self.kind == ROWS {
            let mut node = [0; 4];
            self.blob.read_at(HEAD_BYTES + 4 * key, &mut node)?;
            return self.node(u64::from(u32::from_le_bytes(node)));
        }
        let found = self.search(|entry| Ok(word(entry, 0).cmp(&key)))?;
        found.map_or(Ok(None), |entry| self.node(word(&entry, 8)))
    }

    /// The node of a string key.
    ///
    /// # Errors
    /// Corruption.
    pub fn find_string(&self, key: &str) -> Result<Option<NodeId>, FormatError> {
        if self.kind != STRINGS {
            return Ok(None);
        }
        let found = self.search(|entry| Ok(self.text(entry)?.as_bytes().cmp(key.as_bytes())))?;
        found.map_or(Ok(None), |entry| self.node(word(&entry, 8) >> 32))
    }

    fn text(&self, entry: &[u8]) -> Result<String, FormatError> {
        let (offset, length) = (word(entry, 0), (word(entry, 8) & 0xFFFF_FFFF) as usize);
        if length > MAX_KEY_BYTES {
            return Err(self.blob.corrupt(offset, format!("a key of {length} bytes")));
        }
        let mut bytes = vec![0; length];
        self.blob.read_at(offset, &mut bytes)?;
        String::from_utf8(bytes).map_err(|_| self.blob.corrupt(offset, "a key that is not UTF-8".to_string()))
    }

    /// The string that a record's number stands for; `None` where keys are numbers.
    ///
    /// # Errors
    /// Corruption.
    pub fn string_of(&self, record_key: Key) -> Result<Option<String>, FormatError> {
        if self.kind != STRINGS {
            return Ok(None);
        }
        if record_key.0 >= self.n {
            return Err(self.blob.corrupt(0, format!("a record names key {record_key} of {}", self.n)));
        }
        self.text(&self.entry(self.n + record_key.0)?).map(Some)
    }

    /// The place of the first key that is not before `key`, in their order; that of a key of the other kind is the end.
    ///
    /// # Errors
    /// Corruption.
    pub fn place_from(&self, key: &KeyName) -> Result<u64, FormatError> {
        let (mut low, mut high) = (0, self.n);
        match (key, self.kind) {
            (KeyName::Number(number), ROWS) => return Ok((*number).min(self.n)),
            (KeyName::Number(_), NUMBERS) | (KeyName::Text(_), STRINGS) => {}
            _ => return Ok(self.n),
        }
        while low < high {
            let middle = low + (high - low) / 2;
            if self.key_at(middle)?.0 < *key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// The key at a place below n, in the order of keys, and its node.
    ///
    /// # Errors
    /// Corruption.
    pub fn key_at(&self, place: u64) -> Result<(KeyName, NodeId), FormatError> {
        let nowhere = || self.blob.corrupt(0, format!("place {place} of {} keys has no node", self.n));
        if self.kind == ROWS {
            return Ok((KeyName::Number(place), self.find_number(place)?.ok_or_else(nowhere)?));
        }
        let entry = self.entry(place)?;
        let (name, node) = match self.kind {
            NUMBERS => (KeyName::Number(word(&entry, 0)), word(&entry, 8)),
            _ => (KeyName::Text(self.text(&entry)?), word(&entry, 8) >> 32),
        };
        Ok((name, self.node(node)?.ok_or_else(nowhere)?))
    }

    /// Checks every page, that entries are in rising order of keys, and that each leads to a node of its own, which bears that key:
    /// `record_key` gives that of a node's record; `None` where another node has come into the slot, or none, or it is not to be looked at.
    ///
    /// # Errors
    /// The first damaged place.
    pub fn verify(&self, record_key: impl Fn(usize) -> Option<u64>) -> Result<(), FormatError> {
        self.blob.verify()?;
        let mut seen = vec![false; self.n as usize];
        let mut last: Option<Vec<u8>> = None;
        let entry_bytes = if self.kind == ROWS { 4 } else { ENTRY_BYTES };
        self.each(HEAD_BYTES, entry_bytes, |offset, entry| {
            // Big-endian bytes are in the order of the numbers.
            let bytes = |number: u64| number.to_be_bytes().to_vec();
            let (key, node) = match self.kind {
                ROWS => (bytes((offset - HEAD_BYTES) / 4), u64::from(u32::from_le_bytes(entry.first_chunk().copied().unwrap_or_default()))),
                NUMBERS => (bytes(word(entry, 0)), word(entry, 8)),
                _ => (self.text(entry)?.into_bytes(), word(entry, 8) >> 32),
            };
            if node >= self.n || std::mem::replace(&mut seen[node as usize], true) {
                return Err(self.blob.corrupt(offset, format!("a key leads to node {node} of {}, or two do", self.n)));
            }
            if let Some(record_key) = record_key(node as usize) {
                let borne = match self.string_of(Key(record_key))? {
                    Some(text) => text.into_bytes(),
                    None => bytes(record_key),
                };
                if borne != key {
                    let detail = format!("its key leads to node {node}, which bears another (record key {record_key})");
                    return Err(self.blob.corrupt(offset, detail));
                }
            }
            if last.as_ref() >= Some(&key) {
                return Err(self.blob.corrupt(offset, "keys are not in rising order".to_string()));
            }
            last = Some(key);
            Ok(())
        })?;
        Ok(())
    }

    /// Calls `check(offset, entry)` for `n` entries of `entry_bytes` each, read in runs.
    fn each(&self, start: u64, entry_bytes: u64, mut check: impl FnMut(u64, &[u8]) -> Result<(), FormatError>) -> Result<(), FormatError> {
        let mut run = Vec::new();
        for first in (0..self.n).step_by(4096) {
            let offset = start + first * entry_bytes;
            run.resize(((self.n - first).min(4096) * entry_bytes) as usize, 0);
            self.blob.read_at(offset, &mut run)?;
            for (entry, i) in run.chunks_exact(entry_bytes as usize).zip(0..) {
                check(offset + i * entry_bytes, entry)?;
                if i % 256 == 0 {
                    breathe();
                }
            }
        }
        Ok(())
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk::<8>().map_or(0, |b| u64::from_le_bytes(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(list: &KeyList) -> Keys {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.rx");
        let mut writer = BlobWriter::create(&path, 1).unwrap();
        list.write(&mut writer, |row| NodeId((list.len() - 1) as u32 - row as u32)).unwrap();
        let bytes = writer.finish().unwrap();
        Keys::open(BlobReader::open(&path, 1, bytes).unwrap(), list.len()).unwrap()
    }

    #[test]
    fn numbers_and_strings_are_found_and_others_are_not() {
        let keys = stored(&KeyList::Numbers((0..1000).map(|i| i * 7919 % 10_007).collect()));
        for i in 0..1000u64 {
            assert_eq!(keys.find_number(i * 7919 % 10_007).unwrap(), Some(NodeId(999 - i as u32)));
        }
        for place in [0, 1, 500, 999] {
            let (name, node) = keys.key_at(place).unwrap();
            assert_eq!(keys.place_from(&name).unwrap(), place);
            assert!(matches!(name, KeyName::Number(number) if keys.find_number(number).unwrap() == Some(node)));
        }
        assert_eq!(keys.place_from(&KeyName::Text("x".into())).unwrap(), keys.n);
        assert_eq!((keys.find_number(10_008).unwrap(), keys.find_string("7").unwrap()), (None, None));
        let keys = stored(&KeyList::Rows(300));
        assert_eq!((keys.find_number(299).unwrap(), keys.find_number(300).unwrap()), (Some(NodeId(0)), None));
        let keys = stored(&KeyList::Strings((0..500).map(|i| format!("é{}", i * 31 % 500)).collect()));
        for i in 0..500u64 {
            let text = format!("é{}", i * 31 % 500);
            assert_eq!(keys.find_string(&text).unwrap(), Some(NodeId(499 - i as u32)));
            assert_eq!(keys.string_of(Key(i)).unwrap(), Some(text));
        }
        assert_eq!(keys.find_string("zzz").unwrap(), None);
        assert!(keys.string_of(Key(500)).is_err());
    }

    #[test]
    fn bad_lists_say_which_row() {
        assert_eq!(KeyList::Numbers(vec![1]).check(2), Err(KeyListError::Count { got: 1, expected: 2 }));
        assert_eq!(KeyList::Numbers(vec![5, 4, 5]).check(3), Err(KeyListError::Duplicate { key: "5".into(), first: 0, second: 2 }));
        assert_eq!(KeyList::Strings(vec!["a".into(), "".into()]).check(2), Err(KeyListError::Bad { row: 1, bytes: 0 }));
        assert_eq!(KeyList::Strings(vec!["a".into(), "b".into()]).check(2), Ok(()));
    }
}
