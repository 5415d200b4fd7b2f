//! A collection held against itself: the base's every byte, and that store and base say the same of every point.

use super::{Collection, CollectionError, PointKey, store::NO_NODE};
use crate::verify::{VerifyReport, verify};

/// What was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectionReport {
    /// Live points.
    pub points: u64,
    /// Scalars of payloads that filters find points by.
    pub terms: u64,
    /// Of the base, where there is one.
    pub base: Option<VerifyReport>,
}

impl Collection {
    /// Reads all of the collection and checks what can be checked: `progress(done, total)` counts pages of the base. Writes and merges that happen
    /// meanwhile would be taken for damage, so it is for a collection that is opened for it.
    ///
    /// # Errors
    /// The first damage, with its place.
    pub fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<CollectionReport, CollectionError> {
        let inner = self.inner();
        let snapshot = inner.snapshot.load_full();
        let mut in_base = 0;
        let base = match &snapshot.base {
            None => None,
            Some(base) => {
                let report = verify(&base.info().path, progress)?;
                base.each_record(snapshot.hidden.from, |node, key, _| {
                    if snapshot.hidden.contains(node) {
                        return Ok(());
                    }
                    in_base += 1;
                    let key = inner.store.key_in(base, key)?;
                    match inner.store.node_in(Some(base), &key)? {
                        Some(found) if found == node => Ok(()),
                        found => Err(inner.store.damaged(format!("key {key} is in node {node}, the store says {found:?}"))),
                    }
                })?;
                Some(report)
            }
        };
        let mut points = in_base;
        inner.store.each_vector(|key, node, row| {
            points += 1;
            let key = PointKey::from_bytes(inner.config.keys, key);
            let fits = row.len() == inner.config.element.row_bytes(inner.config.dim)
                && (node == NO_NODE || u64::from(node) < snapshot.hidden.from);
            if key.is_some() && fits { Ok(()) } else { Err(inner.store.damaged(format!("the vector of {key:?} is {} bytes", row.len()))) }
        })?;
        if points != snapshot.live() {
            return Err(inner.store.damaged(format!("{} points are live, {points} were found", snapshot.live())));
        }
        Ok(CollectionReport { points, terms: inner.store.check_terms()?, base })
    }
}
