//! What a promotion kept of the base before it, so that the collection can go back to it: where the store stood that speaks of its nodes, and the
//! vectors and deletions that the new base made unnecessary.

use super::{BEFORE, Batch, CollectionError, DELETED, META, NODES, POINTS, SLOTS, Store, parse_base};
use rocksdb::{Direction, IteratorMode};

/// What keys of the family begin with.
const NODE: u8 = b'n';
const RUN_OF: u8 = b's';
const VECTOR: u8 = b'v';
const DELETION: u8 = b'd';

/// The base before a promotion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Before {
    /// Its directory, within that of the collection.
    pub(in super::super) name: String,
    /// The last batch that it was built of.
    pub(in super::super) sequence: u64,
    /// The last merge into it.
    pub(in super::super) merged: u64,
    /// The last batch that the base was built of that was promoted then.
    pub(in super::super) promoted: u64,
}

fn named(kind: u8, key: &[u8]) -> Vec<u8> {
    [&[kind], key].concat()
}

impl Store {
    /// The base before, where one is kept.
    pub(in super::super) fn before(&self) -> Result<Option<Before>, CollectionError> {
        let Some(bytes) = self.meta(BEFORE)? else { return Ok(None) };
        let parsed = String::from_utf8(bytes).ok().and_then(|text| {
            let (base, numbers) = text.rsplit_once(';')?;
            let (name, sequence) = parse_base(base.as_bytes().to_vec())?;
            let (merged, promoted) = numbers.split_once(' ')?;
            Some(Before { name, sequence, merged: merged.parse().ok()?, promoted: promoted.parse().ok()? })
        });
        parsed.map(Some).ok_or_else(|| self.damaged("what it says of the base before makes no sense".to_string()))
    }

    /// Keeps where the store stands that speaks of the nodes of this base, in the place of what was kept of another.
    pub(in super::super) fn put_before(&self, batch: &mut Batch, before: &Before) -> Result<(), CollectionError> {
        self.forget_before(batch);
        let Before { name, sequence, merged, promoted } = before;
        batch.0.put_cf(self.family(META), BEFORE, format!("{name} {sequence};{merged} {promoted}"));
        for (family, kind) in [(NODES, NODE), (SLOTS, RUN_OF)] {
            for entry in self.db.iterator_cf(self.family(family), IteratorMode::Start) {
                let (key, value) = entry.map_err(|error| self.failed(&error))?;
                batch.0.put_cf(self.family(BEFORE), named(kind, &key), value);
            }
        }
        Ok(())
    }

    /// The base before is kept no more.
    pub(in super::super) fn forget_before(&self, batch: &mut Batch) {
        batch.0.delete_cf(self.family(META), BEFORE);
        batch.0.delete_range_cf(self.family(BEFORE), &[0u8][..], &[0xFF][..]);
    }

    /// The base before is gone.
    pub(in super::super) fn lose_before(&self) -> Result<(), CollectionError> {
        let mut batch = Batch::default();
        self.forget_before(&mut batch);
        self.commit(batch).map_err(|error| self.failed(&error))
    }

    /// A vector that the new base has, and the base before lacks.
    pub(in super::super) fn keep_vector(&self, batch: &mut Batch, key: &[u8], node: u32, row: &[u8]) {
        batch.0.put_cf(self.family(BEFORE), named(VECTOR, key), [&node.to_le_bytes(), row].concat());
    }

    /// A deletion that the new base has made, and the base before has not.
    pub(in super::super) fn keep_deletion(&self, batch: &mut Batch, key: &[u8], sequence: u64, node: u32) {
        batch.0.put_cf(self.family(BEFORE), named(DELETION, key), [&sequence.to_le_bytes()[..], &node.to_le_bytes()].concat());
    }

    /// The base before takes the place of the one that is there, by the batch `sequence`; and what the store kept of it.
    pub(in super::super) fn put_back(
        &self,
        batch: &mut Batch,
        before: &Before,
        sequence: u64,
        replaced: &str,
    ) -> Result<(), CollectionError> {
        self.put_base(batch, &before.name, sequence, Some(replaced));
        self.put_sequence(batch, sequence);
        batch.0.put_cf(self.family(META), "merged", before.merged.to_le_bytes());
        for (family, kind) in [(NODES, NODE), (SLOTS, RUN_OF)] {
            self.each_before(kind, |key, value| {
                batch.0.put_cf(self.family(family), key, value);
                Ok(())
            })?;
        }
        self.forget_before(batch);
        Ok(())
    }

    /// The node of a key in the base before, where that is not what its own keys say.
    pub(in super::super) fn node_before(&self, key: &[u8]) -> Result<Option<u32>, CollectionError> {
        let value = self.db.get_pinned_cf(self.family(BEFORE), named(NODE, key)).map_err(|error| self.failed(&error))?;
        value.map(|value| self.parse_node(key, &value)).transpose()
    }

    /// As [`Store::each_run`], of the base before.
    pub(in super::super) fn each_run_before(
        &self,
        mut each: impl FnMut(u64, &[u8]) -> Result<(), CollectionError>,
    ) -> Result<(), CollectionError> {
        self.each_before(RUN_OF, |key, value| self.parse_run(key, value, &mut each))
    }

    /// The vectors that the base before lacks, as [`Store::each_vector`].
    pub(in super::super) fn each_vector_before(
        &self,
        mut each: impl FnMut(&[u8], &[u8]) -> Result<(), CollectionError>,
    ) -> Result<(), CollectionError> {
        self.each_before(VECTOR, |key, value| each(key, value.get(4..).unwrap_or_default()))
    }

    /// The deletions that the base before has not made, each with its batch.
    pub(in super::super) fn each_deleted_before(
        &self,
        mut each: impl FnMut(&[u8], u64) -> Result<(), CollectionError>,
    ) -> Result<(), CollectionError> {
        self.each_before(DELETION, |key, value| {
            let sequence = value.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes));
            each(key, sequence.ok_or_else(|| self.damaged(format!("the deletion of key {key:?} is {} bytes", value.len())))?)
        })
    }

    fn each_before(&self, kind: u8, mut each: impl FnMut(&[u8], &[u8]) -> Result<(), CollectionError>) -> Result<(), CollectionError> {
        for entry in self.db.iterator_cf(self.family(BEFORE), IteratorMode::From(&[kind], Direction::Forward)) {
            let (key, value) = entry.map_err(|error| self.failed(&error))?;
            match key.split_first() {
                Some((first, key)) if *first == kind => each(key, &value)?,
                _ => break,
            }
        }
        Ok(())
    }

    /// Whether a key is neither put nor deleted here.
    pub(in super::super) fn is_untouched(&self, key: &[u8]) -> Result<bool, CollectionError> {
        let is_absent = |family: &str| {
            let value = self.db.get_pinned_cf(self.family(family), key).map_err(|error| self.failed(&error));
            value.map(|value| value.is_none())
        };
        Ok(is_absent(POINTS)? && is_absent(DELETED)?)
    }
}
