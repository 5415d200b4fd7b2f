#![allow(unsafe_code)]
//! What a round writes: pages with new lists, new nodes and empty slots, and the codes of what is new.

use super::{Round, Target, stand_back};
use crate::{
    OpenError,
    base::{Base, open_codes},
    collection::{
        CollectionError, Inner, io,
        redo::{Image, Plan},
        store::next_use,
    },
    io::AlignedBuf,
};
use roxanne_core::{
    distance::DistanceFn,
    element::ElementType,
    format::{
        self,
        blob::{self, BLOB_PAGE, BLOB_PAYLOAD},
        manifest::Manifest,
        page::{self, PageHeader},
        record,
        superblock::FIRST_PAGE_OFFSET,
    },
    id::NodeId,
    metric::Metric,
    tile::BuildMetric,
};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// Pages that are read in one call where so many of them change.
const WINDOW: u64 = 64;
const DENSE: usize = 12;
/// Neighbors of a new node that have it in their lists whatever else there is.
const FORCED: usize = 3;
/// Neighbors that come into a list for one that leaves it.
const IN_ITS_PLACE: usize = 3;

/// What happens to one slot.
#[derive(Clone, Default)]
struct SlotChange {
    /// The insert that comes in.
    put: Option<u32>,
    /// Whether its node leaves.
    frees: bool,
    /// Nodes that come into its list; the first `forced` stay whatever RobustPrune says.
    neighbors: Vec<NodeId>,
    forced: usize,
    /// Victims that leave its list, by number.
    without: Vec<u32>,
}

impl SlotChange {
    fn force(&mut self, id: NodeId) {
        if self.neighbors[..self.forced].contains(&id) {
            return;
        }
        self.neighbors.retain(|neighbor| *neighbor != id);
        self.neighbors.insert(self.forced, id);
        self.forced += 1;
    }
}

/// All changes of one page.
type PageChanges<'a> = (u64, Vec<(NodeId, &'a SlotChange)>);

/// Where vectors lie among codes, and what is new of them.
struct Places<'a> {
    round: &'a Round<'a>,
    new: HashMap<NodeId, u32>,
    distance: DistanceFn,
    dim: usize,
}

impl<'a> Places<'a> {
    fn new(round: &'a Round<'a>) -> Result<Places<'a>, CollectionError> {
        let dim = round.base.codebook.dim();
        let metric = if round.base.codec.build_metric() == BuildMetric::Manhattan { Metric::Manhattan } else { Metric::L2 };
        let new = (0..).zip(&round.inserts).map(|(number, insert)| (insert.node, number)).collect();
        Ok(Places { round, new, distance: DistanceFn::new(metric, ElementType::F32, dim)?, dim })
    }

    /// Appends the place `[dim]` of a node: exact of a new one, else that of its code.
    fn add(&self, id: NodeId, out: &mut Vec<f32>) {
        match self.new.get(&id) {
            Some(&number) => out.extend_from_slice(&self.round.inserts[number as usize].place),
            None => self.round.base.codebook.place_of_code(self.round.base.code(id), out),
        }
    }

    fn distance(&self, a: &[f32], b: &[f32]) -> f32 {
        self.distance.distance(bytemuck::cast_slice(a), bytemuck::cast_slice(b))
    }

    /// Those of `ids` nearest to `place`.
    fn nearest(&self, place: &[f32], ids: impl Iterator<Item = NodeId>, most: usize) -> Vec<NodeId> {
        let mut other = Vec::with_capacity(self.dim);
        let mut near: Vec<(f32, NodeId)> = ids
            .map(|id| {
                other.clear();
                self.add(id, &mut other);
                (self.distance(place, &other), id)
            })
            .collect();
        near.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        near.into_iter().take(most).map(|(_, id)| id).collect()
    }

    fn tag_of(&self, id: NodeId) -> u8 {
        self.new.get(&id).map_or_else(|| self.round.tag_of(id), |&number| record::tag(self.round.inserts[number as usize].generation))
    }
}

impl Inner {
    /// Fills in the codes that a merge of another process brought, from the file.
    pub(in super::super) fn take_codes(&self, base: &Base, plan: &Plan) -> Result<(), CollectionError> {
        let manifest = Manifest::read(&base.info.path).map_err(OpenError::from)?;
        let codes = open_codes(&base.info.path, &manifest, plan.n).map_err(OpenError::from)?;
        let mut code = vec![0; base.info.code_bytes];
        for merged in &plan.merged {
            base.read_code(&codes, NodeId(merged.node), &mut code).map_err(OpenError::from)?;
            // SAFETY: the slot is new, or was free in the state before which this process had said it looks at nothing any more, when the merge
            // began: no search here looks at its code, as for `Round::fill_codes`. The writer's lock is held, so nobody else sets codes.
            unsafe { base.codes.set(NodeId(merged.node), &code) };
        }
        Ok(())
    }
}

impl Round<'_> {
    fn id_of(&self, target: Target) -> NodeId {
        match target {
            Target::Node(id) => id,
            Target::New(number) => self.inserts[number as usize].node,
        }
    }

    /// The codes of new nodes come into RAM, where no search looks yet.
    pub(super) fn fill_codes(&self) {
        for insert in &self.inserts {
            // SAFETY: the slot is one beyond the last, or was empty in the snapshot of this round when all searches were over that had begun before
            // that snapshot (`Pins::wait_for_older`; where they were not, only slots beyond the last were given). A search that began later looks at
            // the codes of nodes it has an edge to, of pages it has read, and of those it begins at: edges to earlier uses of the slot carry
            // another tag, pages say that the slot is empty until this round has written them, and entries never leave. One round runs at a time.
            unsafe { self.base.codes.set(insert.node, &insert.code) };
        }
    }

    /// What happens where.
    fn changes(&self, places: &Places<'_>) -> BTreeMap<NodeId, SlotChange> {
        let mut changes: BTreeMap<NodeId, SlotChange> = BTreeMap::new();
        let most = self.base.layout.max_degree / 3;
        let mut anchored = vec![false; self.inserts.len()];
        for (number, insert) in (0..).zip(&self.inserts) {
            let change = changes.entry(insert.node).or_default();
            change.put = Some(number);
            change.neighbors.extend(insert.edges.iter().map(|&edge| self.id_of(edge)));
            change.neighbors.extend(insert.back.iter().map(|&from| self.inserts[from as usize].node));
            let nodes = insert.edges.iter().filter_map(|edge| if let Target::Node(id) = edge { Some(*id) } else { None });
            let mut ways = 0;
            for id in nodes {
                let change = changes.entry(id).or_default();
                // Some at least keep it, so that there are ways to it; none has to keep too many.
                if ways < FORCED && change.forced < most {
                    change.force(insert.node);
                    ways += 1;
                } else {
                    change.neighbors.push(insert.node);
                }
            }
            anchored[number as usize] = ways > 0;
        }
        // Where the neighbors have no room for all that came, those that have a way lead on to those that have none.
        loop {
            let mut more = false;
            for number in 0..self.inserts.len() {
                let insert = &self.inserts[number];
                let near = insert.edges.iter().filter_map(|edge| if let Target::New(near) = edge { Some(*near) } else { None });
                let leads = |near: &u32| {
                    anchored[*near as usize] && changes.get(&self.inserts[*near as usize].node).is_none_or(|c| c.forced < most)
                };
                if !anchored[number]
                    && let Some(near) = near.chain(insert.back.iter().copied()).find(leads)
                {
                    changes.entry(self.inserts[near as usize].node).or_default().force(insert.node);
                    (anchored[number], more) = (true, true);
                }
            }
            if !more {
                break;
            }
        }
        // What is left has no companion with a place either: many that are all alike. They lead from one to the next.
        let mut last = None;
        for (insert, anchored) in self.inserts.iter().zip(&anchored) {
            if !anchored {
                changes.entry(last.unwrap_or(self.base.entry)).or_default().force(insert.node);
            }
            last = Some(insert.node);
        }
        for (number, victim) in (0..).zip(&self.victims) {
            changes.entry(victim.node).or_default().frees = true;
            for &holder in &victim.holders {
                changes.entry(holder).or_default().without.push(number);
            }
            let mut place = Vec::new();
            for &orphan in &victim.orphans {
                place.clear();
                places.add(orphan, &mut place);
                let from = places.nearest(&place, victim.near.iter().copied().filter(|&id| id != orphan), 1);
                let from = from.first().copied().unwrap_or(self.base.entry);
                if from != orphan {
                    changes.entry(from).or_default().force(orphan);
                }
            }
        }
        changes
    }

    /// The pages as they shall be, in the order in which they are to be written.
    pub(super) fn graph_images(&self) -> Result<Vec<Image>, CollectionError> {
        let (places, layout) = (Places::new(self)?, self.base.layout);
        let changes = self.changes(&places);
        let mut pages: Vec<PageChanges<'_>> = Vec::new();
        for (&id, change) in &changes {
            let page = layout.page_of(id);
            match pages.last_mut().filter(|(last, _)| *last == page) {
                Some((_, changes)) => changes.push((id, change)),
                None => pages.push((page, vec![(id, change)])),
            }
        }
        let windows: Vec<&[PageChanges<'_>]> = pages.chunk_by(|(a, _), (b, _)| a / WINDOW == b / WINDOW).collect();
        let (next, images) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let work = || -> Result<(), CollectionError> {
            stand_back();
            let no_memory = io(self.base.pages.path());
            let mut buffer = AlignedBuf::new(WINDOW as usize * layout.page_bytes).map_err(no_memory)?;
            while let Some(window) = windows.get(next.fetch_add(1, Ordering::Relaxed)) {
                let changed = self.change_window(window, &places, &mut buffer)?;
                images.lock().unwrap_or_else(PoisonError::into_inner).extend(changed);
            }
            Ok(())
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..(2 * self.limits.threads).min(windows.len())).map(|_| scope.spawn(work)).collect();
            workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })?;
        let mut images = images.into_inner().unwrap_or_else(PoisonError::into_inner);
        // No page may lead to one that is not there yet: first those that are new, then the one that was the last, then the others.
        let page = |image: &Image| (image.offset - FIRST_PAGE_OFFSET) / layout.page_bytes as u64;
        let there = self.base.pages.page_count();
        images.sort_unstable_by_key(|image: &Image| (page(image) < there, page(image) + 1 < there, image.offset));
        Ok(images)
    }

    fn change_window(&self, window: &[PageChanges<'_>], places: &Places<'_>, buffer: &mut [u8]) -> Result<Vec<Image>, CollectionError> {
        let (base, page_bytes) = (self.base, self.base.layout.page_bytes);
        let there = base.pages.page_count();
        let first = window.first().map_or(0, |(page, _)| page / WINDOW * WINDOW);
        let together = window.len() >= DENSE;
        if together && first < there {
            let count = WINDOW.min(there - first) as usize;
            base.pages.read_pages_blocking(first, &mut buffer[..count * page_bytes]).map_err(crate::SearchError::from)?;
        }
        let mut images = Vec::new();
        for (number, changes) in window {
            let place = if together { (number - first) as usize * page_bytes } else { 0 };
            let bytes = &mut buffer[place..place + page_bytes];
            if *number >= there {
                bytes.fill(0);
            } else if !together || base.check_page(*number, bytes).is_err() || !base.is_fresh(*number, bytes) {
                base.read_page(*number, bytes)?;
            }
            if self.change_page(*number, bytes, changes, places)? {
                let offset = FIRST_PAGE_OFFSET + number * page_bytes as u64;
                images.push(Image { file: 0, offset, bytes: bytes.to_vec() });
            }
        }
        Ok(images)
    }

    /// Changes a page; false when nothing of it became other.
    fn change_page(
        &self,
        number: u64,
        bytes: &mut [u8],
        changes: &[(NodeId, &SlotChange)],
        places: &Places<'_>,
    ) -> Result<bool, CollectionError> {
        let (base, layout) = (self.base, self.base.layout);
        let mut changed = false;
        for (id, change) in changes {
            let slot = layout.slot_of(*id);
            if change.frees {
                let (generation, _) = layout.record(bytes, slot).slot_generation();
                layout.free(bytes, slot, next_use(generation));
                changed = true;
                continue;
            }
            let mut list = Vec::with_capacity(2 * layout.max_degree);
            let before = match change.put {
                Some(number) => {
                    let insert = &self.inserts[number as usize];
                    layout.put(bytes, slot, insert.generation, insert.record_key, &insert.slot.row);
                    changed = true;
                    0
                }
                None => {
                    let record = layout.record(bytes, slot);
                    base.neighbors(record, &mut list).map_err(|error| crate::SearchError::from(base.bad_record(number, &error)))?;
                    usize::from(record.packed().0)
                }
            };
            list.retain(|id| !self.leaving.contains(id));
            let mut change = Cow::Borrowed(*change);
            if !change.without.is_empty() {
                let near = self.in_its_place(&change, layout.record(bytes, slot).vector(), places, *id);
                change.to_mut().neighbors.extend(near);
            }
            let (gone, kept) = (before != list.len() && change.put.is_none(), list.clone());
            self.admit(&mut list, layout.record(bytes, slot).vector(), &change, places);
            if !gone && change.put.is_none() && list == kept {
                continue;
            }
            let edges: Vec<(NodeId, u8)> = list.iter().map(|&id| (id, places.tag_of(id))).collect();
            layout.set_edges(bytes, slot, &edges);
            changed = true;
        }
        if changed {
            let live = (self.n - layout.first_node(number)).min(layout.per_page as u64) as u16;
            page::seal(bytes, PageHeader { file_id: base.file_id, page: number, lsn: self.epoch, live, ..PageHeader::default() });
        }
        Ok(changed)
    }

    /// Where a vector lies.
    fn place_of(&self, vector: &[u8]) -> Vec<f32> {
        let (mut code, mut bits, mut place) = (Vec::new(), Vec::new(), Vec::new());
        self.base.codec.encode(vector, &mut Vec::new(), &mut code);
        self.base.codebook.place(self.base.codec.pq_row(&code, &mut bits), &mut place);
        place
    }

    /// The nearest to `owner` of those around each victim that left its list.
    fn in_its_place(&self, change: &SlotChange, vector: &[u8], places: &Places<'_>, owner: NodeId) -> Vec<NodeId> {
        let place = self.place_of(vector);
        let mut near: Vec<NodeId> = Vec::new();
        for &number in &change.without {
            let victim = &self.victims[number as usize];
            near.extend(places.nearest(&place, victim.near.iter().copied().filter(|&id| id != owner), IN_ITS_PLACE));
        }
        near.sort_unstable();
        near.dedup();
        near.retain(|id| !change.neighbors.contains(id));
        near
    }

    /// Takes `change.neighbors` into a list. Where it has no room, that goes which is best covered: to which the way through the other is shortest in proportion, of
    /// the newcomer and of those that it may cover. By where codes lie; those that were there are not held against each other again, they were when they
    /// came (RobustPrune), and distances between codes are too coarse to undo it.
    fn admit(&self, list: &mut Vec<NodeId>, vector: &[u8], change: &SlotChange, places: &Places<'_>) {
        let most = self.base.layout.max_degree;
        let new: Vec<(usize, NodeId)> =
            (0..).zip(change.neighbors.iter().copied()).filter(|(_, neighbor)| !list.contains(neighbor)).collect();
        if list.len() + new.len() <= most {
            return list.extend(new.into_iter().map(|(_, neighbor)| neighbor));
        }
        let (owner, dim, mut all) = (self.place_of(vector), places.dim, Vec::with_capacity((list.len() + new.len()) * places.dim));
        list.iter().chain(new.iter().map(|(_, neighbor)| neighbor)).for_each(|&id| places.add(id, &mut all));
        let at = |i: usize| &all[i * dim..][..dim];
        let far: Vec<f32> = (0..list.len() + new.len()).map(|i| places.distance(&owner, at(i)).max(f32::MIN_POSITIVE)).collect();
        // Places of those that are kept, each with whether it must be.
        let mut kept: Vec<(usize, bool)> = (0..list.len()).map(|i| (i, change.neighbors[..change.forced].contains(&list[i]))).collect();
        for (newcomer, &(rank, _)) in (list.len()..).zip(&new) {
            let forced = rank < change.forced;
            let full = kept.len() >= most;
            kept.push((newcomer, forced));
            if !full {
                continue;
            }
            let mut covered = (f32::INFINITY, None);
            let mut of_newcomer = f32::INFINITY;
            for (place, &(other, must)) in kept[..kept.len() - 1].iter().enumerate() {
                let between = places.distance(at(newcomer), at(other));
                if far[other] <= far[newcomer] {
                    of_newcomer = of_newcomer.min(between / far[newcomer]);
                } else if !must && between / far[other] < covered.0 {
                    covered = (between / far[other], Some(place));
                }
            }
            let last = kept.len() - 1;
            let goes = match covered {
                (share, Some(place)) if share < of_newcomer => place,
                // What must come in, and covers none, takes the place of the farthest.
                _ if forced => {
                    let loose = (0..last).filter(|&place| !kept[place].1);
                    loose.max_by(|&a, &b| far[kept[a].0].total_cmp(&far[kept[b].0])).unwrap_or(last)
                }
                _ => last,
            };
            kept.swap_remove(goes);
        }
        let ids: Vec<NodeId> = list.iter().copied().chain(new.iter().map(|&(_, neighbor)| neighbor)).collect();
        *list = kept.into_iter().map(|(i, _)| ids[i]).collect();
    }

    /// The pages of codes.rx in which a code is new; the codes must have been filled in.
    pub(super) fn code_images(&self) -> Vec<Image> {
        let code_bytes = self.base.info.code_bytes;
        let end = self.n as usize * code_bytes;
        let range = |insert: &super::Insert| insert.node.index() * code_bytes..(insert.node.index() + 1) * code_bytes;
        let pages: BTreeSet<usize> =
            self.inserts.iter().map(range).flat_map(|range| range.start / BLOB_PAYLOAD..=(range.end - 1) / BLOB_PAYLOAD).collect();
        let file_id = format::file_id(self.base.info.generation, format::CODES_FILE);
        let image = |number: usize| {
            let from = number * BLOB_PAYLOAD;
            // SAFETY: codes are set by this round alone, which has set them.
            let payload = unsafe { self.base.codes.range(from, (from + BLOB_PAYLOAD).min(end)) };
            let bytes = blob::page_image(file_id, number as u64, self.epoch, payload);
            Image { file: 1, offset: (number * BLOB_PAGE) as u64, bytes }
        };
        pages.into_iter().map(image).collect()
    }
}
