//! Where a key is in the base, and which key a record has: what the base's own files say, and what merges have changed of it.

use super::{
    CollectionError, PointKey,
    store::{MERGED_TEXT, NO_NODE, Store},
};
use crate::Index;
use roxanne_core::id::Key;

impl Store {
    /// The key of a record of the base.
    pub(super) fn key_in(&self, base: &Index, key: Key) -> Result<PointKey, CollectionError> {
        if base.info().string_keys && key.0 >= MERGED_TEXT {
            let text = self
                .name_of(base.info().generation, key.0)?
                .ok_or_else(|| self.damaged(format!("number {key} of the base has no name")))?;
            return Ok(PointKey::Text(text.into()));
        }
        Ok(match base.key_name(key)? {
            Some(text) => PointKey::Text(text.into()),
            None => PointKey::Number(key.0),
        })
    }

    /// The node of the base under this key, dead or alive.
    pub(super) fn node_in(&self, base: Option<&Index>, key: &PointKey) -> Result<Option<u32>, CollectionError> {
        match self.node_of(&key.to_bytes())? {
            Some(node) => Ok(Some(node).filter(|&node| node != NO_NODE)),
            None => node_of(base, key),
        }
    }
}

/// The node that a base's own keys say.
pub(super) fn node_of(base: Option<&Index>, key: &PointKey) -> Result<Option<u32>, CollectionError> {
    let Some(base) = base else { return Ok(None) };
    Ok(match key {
        PointKey::Number(number) => base.node_of_number(*number)?,
        PointKey::Text(text) => base.node_of_text(text)?,
    })
}
