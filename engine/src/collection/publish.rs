//! A finished generation becomes the base of a collection that is being written: nothing written since it was begun is lost, and nothing deleted
//! since comes back.
//!
//! The generation holds the collection as it was after some batch, its *sequence*. What was put later stays in the delta, in the place of the node of
//! its key; what was deleted later stays away. One batch of the store says all of it, and the name of the base; before it nothing has happened, after
//! it everything.

use super::{
    Collection, CollectionConfig, CollectionError, KeyKind, PointKey,
    commit::Writer,
    delta::{Delta, Slot},
    handover::{Notice, PromoteMode, Way},
    io,
    keys::node_of,
    locked, redo,
    store::{Batch, Before, NO_NODE},
};
use crate::{Index, verify::verify_within};
use roxanne_core::{
    aside::aside,
    element::ElementType,
    format::{
        GRAPH_FILE,
        manifest::Manifest,
        record::Stored,
        superblock::{BUILT, Superblock},
    },
    metric::Metric,
};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Points of the old base of which none may be missing in the new one; looking for all would take longer than building did.
const PROBED: u64 = 1000;
/// What directories of bases begin with.
const BASE: &str = "base-";

/// What becomes of the base that a promotion replaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Previous {
    /// It stays on the disk, so that [`Collection::rollback`] can bring it back; what was kept of an earlier one goes.
    #[default]
    Keep,
    /// It goes.
    Remove,
}

/// Says of the opened index whether it may become the base, and why not.
pub type Gate<'a> = dyn Fn(&Index) -> Result<(), String> + 'a;

/// How an index becomes the base.
#[derive(Clone, Copy, Default)]
pub struct Promotion<'a> {
    /// What becomes of the base that is there.
    pub previous: Previous,
    /// Whose memory it takes.
    pub mode: PromoteMode,
    /// Hears that searches are about to be refused, where `mode` does so.
    pub notice: Option<&'a Notice<'a>>,
    /// Looks at it last.
    pub gate: Option<&'a Gate<'a>>,
}

/// The name of a base's directory.
pub(super) fn name_of(base: &Index) -> String {
    format!("{BASE}{:016x}", base.info().generation)
}

/// Proves that an index holds vectors of the collection's shape, as they were given.
fn check_shape(config: &CollectionConfig, dim: usize, element: ElementType, metric: Metric, stored: Stored) -> Result<(), String> {
    if (dim, element, metric) != (config.dim, config.element, config.metric) {
        let CollectionConfig { dim: ours, element: our_element, metric: our_metric, .. } = config;
        return Err(format!(
            "it has {dim} {element} coordinates under {metric}, the collection has {ours} {our_element} coordinates under {our_metric}"
        ));
    }
    if stored == Stored::Full { Ok(()) } else { Err("its records do not hold vectors as they were given".to_string()) }
}

/// Proves that `base`, in a directory `name`, is of the collection's shape and kind of keys.
pub(super) fn check_base(base: &Index, config: &CollectionConfig, name: &str) -> Result<(), String> {
    let info = base.info();
    check_shape(config, info.dim, info.element, info.metric, info.stored)?;
    let kind = if info.string_keys { KeyKind::Strings } else { KeyKind::Numbers };
    if kind != config.keys {
        return Err(format!("its keys are {}, the collection's are {}", kind.name(), config.keys.name()));
    }
    let its = name_of(base);
    if its == name { Ok(()) } else { Err(format!("{name} holds what belongs into {its}")) }
}

/// Refuses a base that is older than the one it would replace: what came between is no longer known.
fn check_age(sequence: u64, of_base: u64) -> Result<(), String> {
    if sequence >= of_base { Ok(()) } else { Err(format!("it holds batch {sequence}, the base holds batch {of_base}")) }
}

/// Removes the base that `name` has replaced, where that was cut off. What else lies here is somebody's: a base that was moved here and never
/// counted can be promoted from here.
pub(super) fn remove_replaced(directory: &Path, name: &str, replaced: Option<&str>) {
    if let Some(replaced) = replaced.filter(|replaced| *replaced != name && is_name(replaced)) {
        let _ = fs::remove_dir_all(directory.join(replaced));
    }
}

/// Whether a directory is named as a base is.
fn is_name(name: &str) -> bool {
    name.strip_prefix(BASE).is_some_and(|number| number.len() == 16 && number.bytes().all(|b| b.is_ascii_hexdigit()))
}

impl Collection {
    /// Shows every live point of this moment, and gives the batch that it stands after: what a rebuild is made of.
    ///
    /// # Errors
    /// A failing disk; corruption; what `each` says.
    pub fn export(&self, mut each: impl FnMut(PointKey, &[u8]) -> Result<(), CollectionError>) -> Result<u64, CollectionError> {
        let snapshot = self.inner().snapshot.load_full();
        if let Some(base) = &snapshot.base {
            base.each_record(snapshot.hidden.from, |node, key, row| {
                if snapshot.hidden.contains(node) {
                    return Ok(());
                }
                each(self.inner().store.key_in(base, key)?, row)
            })?;
        }
        for slot in (0..snapshot.len).filter(|&slot| !snapshot.delta_dead.contains(slot)) {
            let slot = snapshot.delta.slot(slot);
            each(slot.key.clone(), &slot.row)?;
        }
        Ok(snapshot.sequence)
    }

    /// Makes the finished index at `source` the base, which is moved into the collection's directory (and so must be on its file system). It holds
    /// the collection as it was after batch `sequence`; keys that it has and the collection never had are points from now on. Searches go on
    /// meanwhile, writes wait.
    /// A kept old base takes its room on the disk until another promotion keeps another, or [`Collection::forget_previous`].
    ///
    /// # Errors
    /// `Rejected` where the index is damaged, of another shape, or lacks points of the base that it replaces; a failing disk. The old base serves
    /// on then.
    pub fn promote(&self, source: impl AsRef<Path>, sequence: u64, previous: Previous) -> Result<(), CollectionError> {
        self.promote_with(source, sequence, &Promotion { previous, mode: self.inner().options.mode, ..Promotion::default() })
    }

    /// The same with every choice.
    ///
    /// # Errors
    /// As [`Collection::promote`]; what gate and notice say, `Rejected`; too little disk for what the old base hands over; `InUse`.
    /// Merges wait as long as the gate looks.
    pub fn promote_with(&self, source: impl AsRef<Path>, sequence: u64, promotion: &Promotion) -> Result<(), CollectionError> {
        self.promote_over(source.as_ref(), sequence, promotion, None)
    }

    /// The same of an index that was built of this collection's own points ([`Collection::export`]) while its base was the generation `of`, `None` for none:
    /// refused where another has become the base meanwhile. The old one goes; where nothing was written since, and the same base was made again, that stays, and the new one goes.
    /// As nobody knows of it before, it refuses no searches: where bases are drained
    /// this one comes by halves.
    ///
    /// # Errors
    /// As [`Collection::promote`].
    pub fn replace(&self, source: impl AsRef<Path>, sequence: u64, of: Option<u64>) -> Result<(), CollectionError> {
        let mode = match self.inner().options.mode {
            PromoteMode::Drain => PromoteMode::Half,
            mode => mode,
        };
        let promotion = Promotion { previous: Previous::Remove, mode, ..Promotion::default() };
        self.promote_over(source.as_ref(), sequence, &promotion, Some(of))
    }

    /// The number of the base that is there.
    pub fn base_generation(&self) -> Option<u64> {
        self.inner().snapshot.load().base.as_ref().map(|base| base.info().generation)
    }

    fn promote_over(&self, source: &Path, sequence: u64, promotion: &Promotion, of: Option<Option<u64>>) -> Result<(), CollectionError> {
        let inner = self.inner();
        if inner.options.read_only {
            return Err(CollectionError::ReadOnly { path: inner.path.clone() });
        }
        let rejected = |detail: String| CollectionError::Rejected { path: source.to_path_buf(), detail };
        let manifest = self.judge(source, sequence)?;
        let name = format!("{BASE}{:016x}", manifest.generation);
        let target = inner.path.join(&name);
        let no_merge = locked(&inner.merging);
        let is_base = || locked(&inner.writer).base.as_ref().map(name_of).as_ref() == Some(&name);
        let is_elsewhere = || fs::canonicalize(source).ok() != fs::canonicalize(&target).ok();
        if is_base() {
            // Nothing was written since: what was built again is what is there. Where something was, it waits, and must be merged.
            let is_all = of.is_some() && sequence == locked(&inner.writer).base_sequence && is_elsewhere();
            return if is_all {
                fs::remove_dir_all(source).map_err(io(source))
            } else {
                Err(rejected("it is the base already".to_string()))
            };
        }
        if inner.store.before()?.is_some_and(|before| before.name == name) {
            return Err(rejected(
                "it is the base before the last promotion, which is kept: go back to it (rollback), or keep it no more".to_string(),
            ));
        }
        // It lies there already where an earlier promotion was cut off; another of that name is the same, left by another.
        if is_elsewhere() {
            let _ = fs::remove_dir_all(&target);
            fs::rename(source, &target).map_err(io(source))?;
        }
        let outcome = File::open(&inner.path).and_then(|directory| directory.sync_all()).map_err(io(&inner.path)).and_then(|()| {
            self.open_in_place(&target, Way { mode: promotion.mode, notice: promotion.notice }, &no_merge, |base| {
                self.check_keys(&base, sequence).map_err(rejected)?;
                promotion.gate.map_or(Ok(()), |gate| gate(&base)).map_err(rejected)?;
                self.replace_base(base, &name, sequence, promotion.previous, of)
            })
        });
        match outcome {
            Ok(old) => {
                // Searches that still use it have its files open.
                old.into_iter().for_each(|old| drop(fs::remove_dir_all(old)));
                Ok(())
            }
            // The store may name it.
            Err(error @ CollectionError::WriteOutcomeUnknown { .. }) => Err(error),
            Err(error) => {
                // Back to where it was; what is in the way is told by the error that came first.
                let _ = fs::rename(&target, source);
                Err(error)
            }
        }
    }

    /// Proves that the index at `source` is whole and of the collection's shape.
    fn judge(&self, source: &Path, sequence: u64) -> Result<Manifest, CollectionError> {
        let (config, snapshot) = (self.config(), self.inner().snapshot.load_full());
        let rejected = |detail: String| CollectionError::Rejected { path: source.to_path_buf(), detail };
        let manifest = Manifest::read(source).map_err(|error| rejected(error.to_string()))?;
        let stored = manifest.stored(source).map_err(|error| rejected(error.to_string()))?;
        check_shape(config, manifest.dim, manifest.element, manifest.metric, stored).map_err(rejected)?;
        if sequence > snapshot.sequence {
            return Err(rejected(format!("it is said to hold batch {sequence}, the collection's last is {}", snapshot.sequence)));
        }
        check_age(sequence, locked(&self.inner().writer).base_sequence).map_err(rejected)?;
        let superblock = Superblock::read(&source.join(GRAPH_FILE)).map_err(|error| rejected(error.to_string()))?;
        if superblock.epoch > BUILT || redo::path_in(source).exists() {
            return Err(rejected("it was the base of a collection and was changed; what is in it is known there alone".to_string()));
        }
        // It has a quarter as much as serving.
        let ram = self.inner().options.base.budget.ram / 4;
        let report = aside(|| verify_within(source, ram, &mut |_, _| ())).map_err(|error| rejected(error.to_string()))?;
        if report.unreachable > 0 {
            return Err(rejected(format!("{} of its nodes cannot be reached", report.unreachable)));
        }
        Ok(manifest)
    }

    /// Proves that keys are of the collection's kind, and by a sample that none of the old base is missing.
    fn check_keys(&self, base: &Index, sequence: u64) -> Result<(), String> {
        let snapshot = self.inner().snapshot.load_full();
        check_base(base, self.config(), &name_of(base))?;
        let Some(old) = &snapshot.base else { return Ok(()) };
        for (key, _) in old.sample(PROBED, snapshot.sequence).map_err(|error| error.to_string())? {
            let store = &self.inner().store;
            let key = store.key_in(old, key).map_err(|error| error.to_string())?;
            // Those replaced or deleted since may be missing for that reason.
            let node = store.node_in(Some(old), &key).map_err(|error| error.to_string())?;
            // And those that were merged into the old base since.
            let written_at = store.written_at(&key.to_bytes()).map_err(|error| error.to_string())?.unwrap_or_default();
            let lives = written_at <= sequence && node.is_some_and(|node| !snapshot.hidden.contains(node));
            if lives && node_of(Some(base), &key).map_err(|error| error.to_string())?.is_none() {
                return Err(format!("it lacks key {key}, which the base has that it is to replace"));
            }
        }
        Ok(())
    }

    /// Puts `base` in the place of the old one; returns the directory that is not needed any more.
    fn replace_base(
        &self,
        base: Index,
        name: &str,
        sequence: u64,
        previous: Previous,
        of: Option<Option<u64>>,
    ) -> Result<Option<PathBuf>, CollectionError> {
        let inner = self.inner();
        let mut writer = locked(&inner.writer);
        writer.check(&inner.path)?;
        // Another may have been faster.
        check_age(sequence, writer.base_sequence).map_err(|detail| CollectionError::Rejected { path: base.info().path.clone(), detail })?;
        if of.is_some_and(|of| writer.base.as_ref().map(|base| base.info().generation) != of) {
            let detail = "it was built of the points of a base that another has replaced since".to_string();
            return Err(CollectionError::Rejected { path: base.info().path.clone(), detail });
        }
        let (mut batch, old) = (Batch::default(), writer.base.as_ref().map(name_of));
        let kept = old.clone().filter(|_| previous == Previous::Keep);
        let before = inner.store.before()?;
        // Who goes back behind this promotion, be it to an earlier base, must know of all deletions since.
        let keeps_deletions = kept.is_some() || before.is_some();
        let gone = if kept.is_some() { before.map(|before| before.name) } else { old };
        if let Some(name) = kept.clone() {
            let before = Before { name, sequence: writer.base_sequence, merged: writer.merged, promoted: sequence };
            inner.store.put_before(&mut batch, &before)?;
        }
        inner.store.put_base(&mut batch, name, sequence, gone.as_deref());
        let delta = Arc::new(Delta::new(inner.distance, inner.config.metric));
        let mut next = Writer::new(writer.sequence, Some(base), sequence, delta);
        inner.store.each_deleted(|key, deleted_at, node| {
            if deleted_at <= sequence {
                if keeps_deletions {
                    inner.store.keep_deletion(&mut batch, key, deleted_at, node);
                }
                inner.store.forget_deleted(&mut batch, key);
                return Ok(());
            }
            let Some(key_of) = PointKey::from_bytes(inner.config.keys, key) else {
                return Err(inner.store.damaged(format!("a deleted key of {} bytes", key.len())));
            };
            let node = node_of(next.base.as_ref(), &key_of)?.unwrap_or(NO_NODE);
            next.stay_away(node);
            inner.store.put_deleted(&mut batch, key, deleted_at, node);
            Ok(())
        })?;
        for slot in (0..writer.len).filter(|&slot| !writer.delta_dead.contains(slot)) {
            let slot = writer.delta.slot(slot);
            let key = slot.key.to_bytes();
            let node = node_of(next.base.as_ref(), &slot.key)?.unwrap_or(NO_NODE);
            let written_at = inner.store.written_at(&key)?.unwrap_or(u64::MAX);
            if written_at <= sequence && kept.is_some() {
                // What the new base lacks too: it may be merged into it, or built into another.
                inner.store.keep_vector(&mut batch, &key, slot.node, &slot.row);
            }
            if written_at <= sequence && node != NO_NODE {
                inner.store.forget_vector(&mut batch, &key);
                continue;
            }
            inner.store.put_vector(&mut batch, &key, node, &slot.row);
            let same = slot.node == node;
            next.append_slot(if same { Arc::clone(slot) } else { Arc::new(Slot { key: slot.key.clone(), row: slot.row.clone(), node }) });
        }
        // What was merged into the old base since is no less new for it.
        if let Some(old) = &writer.base {
            inner.store.each_merged_after(sequence, |key| {
                let key_of = PointKey::from_bytes(inner.config.keys, key);
                let key_of = key_of.ok_or_else(|| inner.store.damaged(format!("the key of a point is {} bytes", key.len())))?;
                let Some(node) = inner.store.node_in(Some(old), &key_of)? else { return Ok(()) };
                let row: Box<[u8]> = old.row_of(node)?.into();
                let node = node_of(next.base.as_ref(), &key_of)?.unwrap_or(NO_NODE);
                inner.store.put_vector(&mut batch, key, node, &row);
                next.append(key_of, row, node);
                Ok(())
            })?;
        }
        inner.store.commit_synced(batch).map_err(|error| writer.outcome_unknown(&inner.path, &error))?;
        *writer = next;
        inner.publish(&writer);
        drop(writer);
        inner.keeper.wake();
        Ok(gone.map(|gone| inner.path.join(gone)))
    }
}
