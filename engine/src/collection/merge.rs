//! The merger: vectors of the delta move into the base where it lies, and the dead leave it, while it is searched.
//!
//! One round takes some of both. Each vector is searched for in the base; what was met on the way, and its like in the same round, are the candidates
//! of RobustPrune, and those that are kept get an edge back (FreshDiskANN, sections 4 and 5). Each dead node is searched for too; those whose lists hold
//! it, as far as the search meets them, get the nearest of its neighbors in its place (IP-DiskANN, algorithm 5), and of its own neighbors those that no
//! other list names get an edge from another. What is not met is an edge to an earlier use of a slot: it is recognised by its tag and falls out when
//! its list is next written. So the work is in proportion to what changed, and nothing is rewritten whole.
//!
//! All images of a round are computed before anything is written. Then, in this order: the files grow, durably; the redo file, durably; the images,
//! durably; one synced batch of the store; the snapshot. Whatever is cut off is done again at the next opening (`recover`).

mod change;
mod search;

use super::{
    Collection, CollectionError, Inner, KeyKind, PointKey, Snapshot,
    commit::Writer,
    delta::Slot,
    io, locked,
    processes::{self, Seen},
    redo::{self, Freed, Image, Merged, Plan},
    store::{EachRun, Fate, MERGED_TEXT, NO_NODE, SLOT_DEAD, SLOT_FREE, SLOT_GENERATION, Store, next_use, pages_of},
};
use crate::{Index, base::Base, disk::Disk, kept::Kept, live_pages::Pages};
use roxanne_core::{
    format::{
        self, FormatError, blob,
        manifest::Manifest,
        superblock::{FIRST_PAGE_OFFSET, Superblock},
    },
    id::{Key, NodeId},
};
use std::{
    collections::{BTreeSet, HashSet},
    path::Path,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

/// How long a round waits for searches that may still see what it would take away, and then takes nothing away; and for who is opening the
/// collection, and then does not begin.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long it waits for processes that are opening the collection.
const OPENING: Duration = Duration::from_secs(60);

/// Memory that the images of a round take at most, beside all that is counted.
const IMAGE_BYTES: u64 = 512 << 20;

/// How much one round of merging does. Where pages of all neighbors would take more than half a gigabyte of memory, it does less.
#[derive(Clone, Copy, Debug)]
pub struct MergeLimits {
    /// Vectors that come into the base at most.
    pub inserts: usize,
    /// Dead nodes that leave it at most.
    pub removals: usize,
    /// Threads that compute.
    pub threads: usize,
}

impl Default for MergeLimits {
    fn default() -> MergeLimits {
        // Asked once, as the answer is read from files.
        static CORES: LazyLock<usize> = LazyLock::new(|| std::thread::available_parallelism().map_or(1, usize::from));
        MergeLimits { inserts: 8192, removals: 8192, threads: *CORES }
    }
}

/// What a round of merging did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MergeReport {
    /// Vectors that came into the base.
    pub inserted: u64,
    /// Dead nodes that left it.
    pub removed: u64,
    /// Pages that were read for searches.
    pub reads: u64,
    /// Pages of graph.rx that were written.
    pub pages: u64,
    /// Bytes written, those of the redo file among them.
    pub bytes: u64,
    /// Wall time in microseconds.
    pub micros: u64,
}

/// A vector on its way into the base.
struct Insert {
    slot: Arc<Slot>,
    /// Its build code.
    row: Vec<u8>,
    /// Its PQ code, and where it lies among such.
    code: Vec<u8>,
    place: Vec<f32>,
    /// Whom it shall have edges to, and who of its round shall have it for a neighbor.
    edges: Vec<Target>,
    back: Vec<u32>,
    node: NodeId,
    generation: u8,
    record_key: Key,
}

/// Whom an edge leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Target {
    /// A node of the base.
    Node(NodeId),
    /// An insert of this round, by number.
    New(u32),
}

/// A dead node on its way out.
struct Victim {
    node: NodeId,
    record_key: Key,
    /// Its vector, and its neighbors.
    row: Vec<u8>,
    edges: Vec<NodeId>,
    /// Nodes near it that live.
    near: Vec<NodeId>,
    /// Those whose lists hold it.
    holders: Vec<NodeId>,
    /// Neighbors of it that no other list was seen to hold.
    orphans: Vec<NodeId>,
}

/// What a round works with.
struct Round<'a> {
    inner: &'a Inner,
    base: &'a Base,
    snapshot: &'a Snapshot,
    limits: MergeLimits,
    inserts: Vec<Insert>,
    victims: Vec<Victim>,
    leaving: HashSet<NodeId>,
    /// Nodes that there will be.
    n: u64,
    epoch: u64,
}

impl Collection {
    /// Merges some of what is in memory into the base, and takes some of what is dead out of it: one round. Searches and writes go on meanwhile. A base
    /// that was not made for it (`capacity` of a build) stays as it is; so does one that has no room left, and [`Collection::promote`] brings another.
    ///
    /// # Errors
    /// A failing disk, after which nothing is written until the collection is opened again; corruption; memory that searching for the merge would
    /// take beyond the budget.
    pub fn merge(&self, limits: &MergeLimits) -> Result<MergeReport, CollectionError> {
        let inner = self.inner();
        if inner.options.read_only {
            return Err(CollectionError::ReadOnly { path: inner.path.clone() });
        }
        inner.merge(limits)
    }

    /// Whether the base is one that [`Collection::merge`] changes in place.
    pub fn merges_in_place(&self) -> bool {
        self.inner().snapshot.load().base.as_ref().is_some_and(|base| base.base.live.is_some())
    }
}

/// What a round does, and with what it began.
struct Work {
    index: Index,
    snapshot: Arc<Snapshot>,
    /// Slots of the delta that come into the base.
    inserts: Vec<Arc<Slot>>,
    /// Nodes that leave it.
    victims: Vec<u32>,
}

/// Inserts, and as many removals, of a round whose images take no more than [`IMAGE_BYTES`], at a page for each neighbor.
fn changes_at_once(base: &Base) -> usize {
    let (page_bytes, pages) = (base.layout.page_bytes as u64, base.pages.page_count());
    if pages.saturating_mul(page_bytes) <= IMAGE_BYTES {
        return usize::MAX;
    }
    usize::try_from(IMAGE_BYTES / (2 * page_bytes * base.layout.max_degree as u64)).unwrap_or(usize::MAX).max(1)
}

/// Searches come first: this thread computes when nobody else wants to.
fn stand_back() {
    // Refused, it costs searches some time.
    let _ = rustix::process::nice(5);
}

impl Writer {
    /// Which slots of the base are used for how many times, and by none now, as the store knows it.
    pub(super) fn take_slots(
        &mut self,
        store: &Store,
        each_run: impl FnOnce(&mut EachRun<'_>) -> Result<(), CollectionError>,
    ) -> Result<(), CollectionError> {
        let Some(base) = self.base.clone() else { return Ok(()) };
        each_run(&mut |first, states| {
            for (node, &state) in (first..).zip(states).filter(|(_, state)| **state != 0) {
                let live = base.base.live.as_ref().filter(|_| node < self.base_n);
                let live = live.ok_or_else(|| store.damaged(format!("slot {node} of {} is said to have changed", self.base_n)))?;
                if state & SLOT_FREE == 0 {
                    live.set_generation(NodeId(node as u32), state & SLOT_GENERATION);
                } else {
                    live.leave(NodeId(node as u32), state & SLOT_GENERATION);
                }
                match state & (SLOT_FREE | SLOT_DEAD) {
                    0 => {}
                    SLOT_DEAD => self.stay_away(node as u32),
                    _ => self.vacate(node as u32),
                }
            }
            Ok(())
        })
    }
}

/// Does again what a merge was cut off in, before the base of that name is opened; gives the last merge into it.
pub(super) fn recover(
    collection: &Path,
    base: &str,
    store: &Store,
    merged: u64,
    disk: &dyn Disk,
    read_only: bool,
) -> Result<u64, CollectionError> {
    let directory = &*collection.join(base);
    let path = redo::path_in(directory);
    if read_only {
        return if path.exists() {
            Err(store.damaged("a merge was cut off in it; open it for writing once, which finishes it".to_string()))
        } else {
            Ok(merged)
        };
    }
    // Nobody opens it meanwhile.
    let _alone = if path.exists() { Some(processes::keep_out(collection, OPENING)?) } else { None };
    let generation = Manifest::read(directory).map_err(crate::OpenError::from)?.generation;
    let corrupt = |detail: String| {
        let path = path.clone();
        CollectionError::Open(FormatError::Corrupt { path, offset: 0, detail }.into())
    };
    let Some((plan, images)) = redo::read(disk, directory, generation).map_err(corrupt)? else { return Ok(merged) };
    if plan.epoch > merged {
        redo::apply(disk, directory, &images).map_err(io(directory))?;
        store.merge(&plan, &pages_of(&images), generation)?;
        disk.committed();
    }
    redo::remove(disk, directory).map_err(io(&path))?;
    Ok(merged.max(plan.epoch))
}

impl Inner {
    pub(super) fn merge(&self, limits: &MergeLimits) -> Result<MergeReport, CollectionError> {
        let begin = Instant::now();
        let _one_at_a_time = locked(&self.merging);
        // Processes that read and cannot follow have codes in RAM, which would no longer be those of the pages.
        drop(processes::keep_out(&self.path, PATIENCE)?);
        let Some(Work { index, snapshot, mut inserts, victims }) = self.choose_work(limits)? else { return Ok(MergeReport::default()) };
        // What is dead in this snapshot may live in an older one, here or in a process that follows.
        let seen = Seen { generation: index.info().generation, merged: snapshot.merged, sequence: snapshot.sequence };
        let undisturbed = self.pins.wait_for_older(&snapshot, PATIENCE) && processes::wait_for_readers(&self.path, seen, PATIENCE)?;
        let victims = if undisturbed { victims } else { Vec::new() };
        if !undisturbed {
            // Nor may slots be used again then.
            inserts.truncate(usize::try_from(index.base.room() - index.base.n()).unwrap_or(usize::MAX));
        }
        if inserts.is_empty() && victims.is_empty() {
            return Ok(MergeReport::default());
        }
        let base = &*index.base;
        let superblock = Superblock::read(base.pages.path()).map_err(crate::OpenError::from)?;
        let mut round = Round {
            inner: self,
            base,
            snapshot: &snapshot,
            limits: *limits,
            inserts: inserts.into_iter().map(|slot| Insert::new(base, slot)).collect(),
            leaving: victims.iter().map(|&node| NodeId(node)).collect(),
            victims: Vec::new(),
            n: base.n(),
            epoch: superblock.epoch + 1,
        };
        round.look_at_victims(&victims)?;
        let reads = round.search()?;
        let free = if undisturbed { locked(&self.writer).free.clone() } else { BTreeSet::new() };
        round.place(free);
        round.fill_codes();
        let mut images = round.graph_images()?;
        let pages = images.len() as u64;
        images.extend(round.code_images());
        let grown = Superblock { epoch: round.epoch, n: round.n, page_count: base.layout.page_count(round.n), ..superblock };
        let (offset, bytes) = grown.to_copy();
        images.insert(0, Image { file: 0, offset, bytes });
        let plan = round.plan()?;
        let report = MergeReport {
            inserted: plan.merged.len() as u64,
            removed: plan.freed.len() as u64,
            reads,
            pages,
            bytes: 2 * images.iter().map(|image| image.bytes.len() as u64).sum::<u64>(),
            micros: 0,
        };
        self.write_round(&round, &plan, &images)?;
        Ok(MergeReport { micros: begin.elapsed().as_micros() as u64, ..report })
    }

    /// What a round can do; `None` where the base is not changed in place.
    fn choose_work(&self, limits: &MergeLimits) -> Result<Option<Work>, CollectionError> {
        let writer = locked(&self.writer);
        writer.check(&self.path)?;
        let Some(index) = writer.base.clone().filter(|base| base.base.live.is_some()) else { return Ok(None) };
        let snapshot = self.snapshot.load_full();
        let room = index.base.room() - writer.base_n + writer.free.len() as u64;
        let at_once = changes_at_once(&index.base);
        let most = limits.inserts.min(at_once).min(usize::try_from(room).unwrap_or(usize::MAX));
        let living = (0..writer.len).filter(|&slot| !writer.delta_dead.contains(slot));
        let inserts = living.take(most).map(|at| Arc::clone(writer.delta.slot(at))).collect();
        let victims = writer.gone.iter().copied().take(limits.removals.min(at_once)).collect();
        Ok(Some(Work { index, snapshot, inserts, victims }))
    }

    /// The only code that overwrites pages: see the module for the order.
    fn write_round(&self, round: &Round<'_>, plan: &Plan, images: &[Image]) -> Result<(), CollectionError> {
        let base = round.base;
        let Some(live) = &base.live else { return Ok(()) };
        let (disk, directory) = (&*self.options.disk, &base.info.path);
        let poison = |error: CollectionError| {
            locked(&self.writer).poison(error.to_string());
            error
        };
        // Nobody opens it meanwhile.
        let _alone = processes::keep_out(&self.path, OPENING)?;
        // The batches that wrote these vectors come first, where they were not synced.
        self.store.sync()?;
        let page_count = base.layout.page_count(round.n);
        if round.n > base.n() {
            let graph = base.pages.path();
            let codes = directory.join(format::CODES_FILE);
            let code_bytes = blob::file_bytes(round.n * base.info.code_bytes as u64);
            disk.grow(graph, FIRST_PAGE_OFFSET + page_count * base.layout.page_bytes as u64)
                .and_then(|()| disk.sync(graph))
                .map_err(io(graph))?;
            disk.grow(&codes, code_bytes).and_then(|()| disk.sync(&codes)).map_err(io(&codes))?;
        }
        // A full disk is met before the images, where nothing has changed: their pages have room.
        if let Err(error) = redo::write(disk, directory, base.info.generation, plan, images) {
            return Err(self.withdraw(directory, error));
        }
        // What is kept of pages comes first: edges to what is not in sight yet lead nowhere, and what is in sight is there.
        if let Kept::All(pages) = &base.kept {
            written_pages(images, base).for_each(|(page, image)| pages.replace(page, &image.bytes));
            Pages::settle();
        }
        for insert in &round.inserts {
            live.set_generation(insert.node, insert.generation);
        }
        for freed in &plan.freed {
            live.leave(NodeId(freed.node), freed.generation);
        }
        base.codes.grow(round.n);
        base.pages.grow(page_count);
        redo::apply(disk, directory, images).map_err(io(directory)).map_err(poison)?;
        written_pages(images, base).for_each(|(page, _)| live.wrote(page, round.epoch));
        let mut writer = locked(&self.writer);
        writer.check(&self.path)?;
        let fates =
            self.store.merge(plan, &pages_of(images), base.info.generation).inspect_err(|error| writer.poison(error.to_string()))?;
        disk.committed();
        (writer.base_n, writer.merged) = (round.n, plan.epoch);
        for (insert, fate) in round.inserts.iter().zip(fates) {
            writer.settle(insert, fate);
        }
        plan.freed.iter().for_each(|freed| writer.leave(freed, self.config.keys));
        self.publish(&writer);
        drop(writer);
        // Most of the delta may be dead now.
        self.keeper.wake();
        redo::remove(disk, directory).map_err(io(directory)).map_err(poison)
    }

    /// A redo file that could not be written whole must not be found whole later.
    fn withdraw(&self, directory: &Path, error: std::io::Error) -> CollectionError {
        let error = io(directory)(error);
        let disk = &*self.options.disk;
        if redo::remove(disk, directory).and_then(|()| disk.sync_directory(directory)).is_err() {
            locked(&self.writer).poison(error.to_string());
        }
        error
    }
}

impl Writer {
    /// A vector has come into the base, whatever became of its point meanwhile.
    fn settle(&mut self, insert: &Insert, fate: Fate) {
        let (key, node) = (&insert.slot.key, insert.node.0);
        self.occupy(node);
        match fate {
            Fate::Merged => {
                if let Some(slot) = self.slots.remove(key) {
                    self.delta_dead.insert(slot);
                }
            }
            Fate::Rewritten => {
                // The newer one now replaces this node.
                if let Some(newer) = self.slots.get(key).map(|&slot| Arc::clone(self.delta.slot(slot))) {
                    self.append(key.clone(), newer.row.clone(), node);
                }
            }
            Fate::Deleted => self.stay_away(node),
        }
    }

    /// A dead node has left its slot.
    fn leave(&mut self, freed: &Freed, kind: KeyKind) {
        self.vacate(freed.node);
        let key = PointKey::from_bytes(kind, &freed.key);
        let named = key.and_then(|key| self.slots.get(&key)).map(|&slot| Arc::clone(self.delta.slot(slot)));
        if let Some(slot) = named.filter(|slot| slot.node == freed.node) {
            self.append(slot.key.clone(), slot.row.clone(), NO_NODE);
        }
    }
}

impl Round<'_> {
    /// Which use of its slot a node is.
    fn tag_of(&self, node: NodeId) -> u8 {
        let generation = self.base.live.as_ref().map_or(0, |live| live.generation(node));
        format::record::tag(generation)
    }

    /// Gives every insert a slot: a free one on the page of a neighbor, any free one, or one at the end. Those that lie near each other come one after
    /// the other, so that new pages hold such too.
    fn place(&mut self, mut free: BTreeSet<u32>) {
        let layout = self.base.layout;
        let nearest = |insert: &Insert| {
            insert.edges.iter().find_map(|edge| if let Target::Node(id) = edge { Some(id.0) } else { None }).unwrap_or(u32::MAX)
        };
        let mut order: Vec<usize> = (0..self.inserts.len()).collect();
        order.sort_by_key(|&at| nearest(&self.inserts[at]));
        for at in order {
            let pages =
                self.inserts[at].edges.iter().filter_map(|edge| if let Target::Node(id) = edge { Some(layout.page_of(*id)) } else { None });
            let beside = pages
                .map(|page| layout.first_node(page) as u32)
                .find_map(|first| free.range(first..first.saturating_add(layout.per_page as u32)).next().copied());
            let node = match beside.or_else(|| free.first().copied()) {
                Some(slot) => {
                    free.remove(&slot);
                    NodeId(slot)
                }
                None => {
                    self.n += 1;
                    NodeId((self.n - 1) as u32)
                }
            };
            let generation = self.base.live.as_ref().map_or(0, |live| live.generation(node));
            let insert = &mut self.inserts[at];
            (insert.node, insert.generation) = (node, generation);
            insert.record_key = match &insert.slot.key {
                PointKey::Number(number) => Key(*number),
                PointKey::Text(_) => Key(MERGED_TEXT | self.epoch << 32 | at as u64),
            };
        }
    }

    /// What this round means for the store.
    fn plan(&self) -> Result<Plan, CollectionError> {
        let merged = self.inserts.iter().map(|insert| Merged {
            key: insert.slot.key.to_bytes(),
            hash: Store::hash_of(insert.slot.node, &insert.slot.row),
            node: insert.node.0,
            replaces: insert.slot.node,
            record_key: insert.record_key.0,
        });
        let index = self.snapshot.base.as_ref();
        let freed = self.victims.iter().map(|victim| {
            let key = index.map(|base| self.inner.store.key_in(base, victim.record_key)).transpose()?;
            let generation = self.base.live.as_ref().map_or(0, |live| live.generation(victim.node));
            Ok(Freed { key: key.map(|key| key.to_bytes()).unwrap_or_default(), node: victim.node.0, generation: next_use(generation) })
        });
        Ok(Plan { epoch: self.epoch, n: self.n, merged: merged.collect(), freed: freed.collect::<Result<_, CollectionError>>()? })
    }
}

/// Those of the images that are pages of the graph, by their numbers.
fn written_pages<'a>(images: &'a [redo::Image], base: &'a Base) -> impl Iterator<Item = (u64, &'a redo::Image)> {
    let pages = images.iter().filter(|image| image.file == 0 && image.offset >= FIRST_PAGE_OFFSET);
    pages.map(|image| ((image.offset - FIRST_PAGE_OFFSET) / base.layout.page_bytes as u64, image))
}
