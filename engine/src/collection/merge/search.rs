//! What a round reads: the victims, and the neighborhoods of all that come and go.

use super::{Insert, Round, Target, Victim, stand_back};
use crate::{
    SearchParams, Searcher,
    base::Base,
    collection::{CollectionError, choose::Chooser, delta::Slot},
    io::AlignedBuf,
    searcher::MERGE_IN_FLIGHT,
    trace::Trace,
};
use roxanne_core::{
    distance::DistanceFn,
    element::ElementType,
    format::FormatError,
    id::{Key, NodeId},
    metric::Metric,
    prune::{Alpha, PruneParams},
    tile::{BuildMetric, NO_ENTRY, Rows, Tile, TopLists, entry_row},
};
use std::{collections::HashSet, sync::Arc, thread};

/// The list of a search for what is near a vector that comes or goes.
const LIST_SIZE: usize = 72;
/// What was met that RobustPrune chooses from, in the base and in the round.
const CANDIDATES: usize = 160;
const OF_THE_ROUND: usize = 16;
/// Nodes near a victim that may take its place in the lists of others.
const NEAR: usize = 24;

/// What a search of the round brought.
enum Found {
    Edges(Vec<Target>),
    Ways { near: Vec<NodeId>, holders: Vec<NodeId>, orphans: Vec<NodeId> },
}

impl Insert {
    pub(super) fn new(base: &Base, slot: Arc<Slot>) -> Insert {
        let (mut row, mut place, mut bits) = (Vec::new(), Vec::new(), Vec::new());
        base.codec.encode(&slot.row, &mut Vec::new(), &mut row);
        let pq_row = base.codec.pq_row(&row, &mut bits);
        let mut code = vec![0; base.info.code_bytes];
        base.codebook.encode_rows(pq_row, pq_row.len(), &mut code);
        base.codebook.place(pq_row, &mut place);
        let (edges, back, node, generation, record_key) = (Vec::new(), Vec::new(), NodeId(0), 0, Key(0));
        Insert { slot, row, code, place, edges, back, node, generation, record_key }
    }
}

/// The distance between build codes.
fn between_codes(base: &Base) -> Result<DistanceFn, CollectionError> {
    let stride = base.codec.stride();
    Ok(match base.codec.build_metric() {
        BuildMetric::L2 => DistanceFn::new(Metric::L2, ElementType::U8, stride)?,
        BuildMetric::Manhattan => DistanceFn::new(Metric::Manhattan, ElementType::U8, stride)?,
        BuildMetric::Hamming => DistanceFn::new(Metric::Hamming, ElementType::Binary, 8 * stride)?,
    })
}

impl Round<'_> {
    /// Neighbors as the base has them.
    pub(super) fn prune(&self) -> PruneParams {
        PruneParams { max_degree: self.base.layout.max_degree, alpha: Alpha { numerator: 12, denominator: 10 } }
    }

    /// Whether a node lives and stays.
    fn stays(&self, id: NodeId) -> bool {
        !self.snapshot.hidden.contains(id.0) && !self.leaving.contains(&id)
    }

    /// Reads those that leave.
    pub(super) fn look_at_victims(&mut self, victims: &[u32]) -> Result<(), CollectionError> {
        let base = self.base;
        let no_memory = |error| crate::SearchError::from(FormatError::Io { path: base.pages.path().to_path_buf(), error });
        let mut buffer = AlignedBuf::new(base.layout.page_bytes).map_err(no_memory)?;
        let mut there = None;
        for &node in victims {
            let node = NodeId(node);
            let page = base.layout.page_of(node);
            if there != Some(page) {
                base.read_page(page, &mut buffer)?;
                there = Some(page);
            }
            let record = base.layout.record(&buffer, base.layout.slot_of(node));
            let mut edges = Vec::new();
            base.neighbors(record, &mut edges).map_err(|error| crate::SearchError::from(base.bad_record(page, &error)))?;
            let (near, holders, orphans) = (Vec::new(), Vec::new(), Vec::new());
            self.victims.push(Victim { node, record_key: record.key(), row: record.vector().to_vec(), edges, near, holders, orphans });
        }
        Ok(())
    }

    /// Finds whom inserts shall have edges to, and what stands around victims; gives the pages read.
    pub(super) fn search(&mut self) -> Result<u64, CollectionError> {
        let jobs = self.inserts.len() + self.victims.len();
        let threads = self.limits.threads.clamp(1, jobs);
        let (this, companions) = (&*self, self.companions());
        let outcomes: Vec<_> = thread::scope(|scope| {
            let companions = &companions;
            let workers: Vec<_> = (0..threads).map(|first| scope.spawn(move || this.search_some(first, threads, companions))).collect();
            workers.into_iter().map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        });
        let mut reads = 0;
        for outcome in outcomes {
            let (found, read) = outcome?;
            reads += read;
            for (job, found) in found {
                match found {
                    Found::Edges(edges) => self.inserts[job].edges = edges,
                    Found::Ways { near, holders, orphans } => {
                        let victim = &mut self.victims[job - self.inserts.len()];
                        (victim.near, victim.holders, victim.orphans) = (near, holders, orphans);
                    }
                }
            }
        }
        for from in 0..self.inserts.len() {
            for at in 0..self.inserts[from].edges.len() {
                if let Target::New(to) = self.inserts[from].edges[at] {
                    self.inserts[to as usize].back.push(from as u32);
                }
            }
        }
        Ok(reads)
    }

    /// The nearest to each insert of those that come with it.
    fn companions(&self) -> TopLists {
        let (codec, mut rows, mut lists) = (&self.base.codec, Rows::default(), TopLists::default());
        let tile = Tile::new(codec.build_metric(), codec.stride());
        tile.load(self.inserts.iter().map(|insert| &insert.row[..]), &mut rows);
        tile.nearest_within(&rows, OF_THE_ROUND, &mut lists);
        lists
    }

    /// The jobs `first`, `first + step`, ...: inserts, then victims.
    fn search_some(&self, first: usize, step: usize, companions: &TopLists) -> Result<(Vec<(usize, Found)>, u64), CollectionError> {
        let Some(index) = &self.snapshot.base else { return Ok((Vec::new(), 0)) };
        stand_back();
        let info = &self.base.info;
        let mut searcher = Searcher::new(Arc::clone(&index.base), MERGE_IN_FLIGHT)?;
        let params = SearchParams { k: 1, list_size: LIST_SIZE, ..SearchParams::DEFAULT };
        let mut jobs = (first..self.inserts.len() + self.victims.len()).step_by(step);
        let (mut found, mut reads, mut vector, mut scratch) = (Vec::new(), 0, vec![0.0; info.dim], Scratch::new(self)?);
        loop {
            while searcher.has_room() {
                let Some(job) = jobs.next() else { break };
                let (row, trace) = match job.checked_sub(self.inserts.len()) {
                    None => (&self.inserts[job].slot.row[..], Trace::of_insert()),
                    Some(victim) => (&self.victims[victim].row[..], Trace::of_victim(self.victims[victim].node)),
                };
                info.element.decode(row, &mut vector);
                searcher.submit_traced(job as u64, &vector, &params, trace)?;
            }
            let mut ended = Vec::new();
            if searcher.wait(&mut |tag, outcome| ended.push((tag, outcome)))? == 0 {
                return Ok((found, reads));
            }
            for (tag, outcome) in ended {
                reads += outcome?.stats.reads;
                let (job, trace) = (tag as usize, searcher.take_trace(tag).unwrap_or_default());
                let outcome = match job.checked_sub(self.inserts.len()) {
                    None => Found::Edges(self.edges_of(job, &trace, companions, &mut scratch)),
                    Some(victim) => self.ways_around(&self.victims[victim], &trace),
                };
                found.push((job, outcome));
                // Between two ticks the kernel takes the core from nobody who does not offer it; who does gets it back late, which is for when little waits.
                if self.snapshot.delta_bytes <= self.inner.options.delta_bytes / 4 {
                    thread::yield_now();
                }
            }
        }
    }

    /// RobustPrune of what was met around a vector, and of what comes with it.
    fn edges_of(&self, number: usize, trace: &Trace, companions: &TopLists, scratch: &mut Scratch) -> Vec<Target> {
        let Scratch { between, codes, floats, chooser } = scratch;
        let insert = &self.inserts[number];
        let (base, row_bytes) = (self.base, self.base.layout.row_bytes);
        let mut targets = Vec::new();
        codes.clear();
        for place in trace.nearest(CANDIDATES, |id| self.stays(id)) {
            targets.push(Target::Node(trace.met[place].1));
            base.codec.encode(&trace.rows[place * row_bytes..][..row_bytes], floats, codes);
        }
        for &entry in companions.list(number).iter().filter(|entry| **entry != NO_ENTRY) {
            targets.push(Target::New(entry_row(entry)));
            codes.extend_from_slice(&self.inserts[entry_row(entry) as usize].row);
        }
        if targets.is_empty() {
            // All around is dead; those that searches begin at stay.
            return vec![Target::Node(base.entry)];
        }
        let stride = base.codec.stride();
        let code = |at: usize| &codes[at * stride..][..stride];
        let distances: Vec<f32> = (0..targets.len()).map(|at| between.distance(&insert.row, code(at))).collect();
        chooser.choose(&distances, &self.prune(), |a, b| between.distance(code(a), code(b))).map(|at| targets[at]).collect()
    }

    /// Who takes a victim's place, where, and for whom.
    fn ways_around(&self, victim: &Victim, trace: &Trace) -> Found {
        let near = trace.nearest(NEAR, |id| id != victim.node && self.stays(id)).into_iter().map(|place| trace.met[place].1).collect();
        let mut holders: Vec<NodeId> = trace.holders.iter().copied().filter(|id| !self.leaving.contains(id)).collect();
        holders.sort_unstable();
        holders.dedup();
        let staying = trace.listed.iter().filter(|(_, owner)| !self.leaving.contains(owner));
        let listed: HashSet<NodeId> = staying.map(|&(neighbor, _)| neighbor).collect();
        let orphans = victim.edges.iter().copied().filter(|id| self.stays(*id) && !listed.contains(id)).collect();
        Found::Ways { near, holders, orphans }
    }
}

/// What a thread uses again and again.
struct Scratch {
    between: DistanceFn,
    codes: Vec<u8>,
    floats: Vec<f32>,
    chooser: Chooser,
}

impl Scratch {
    fn new(round: &Round<'_>) -> Result<Scratch, CollectionError> {
        Ok(Scratch { between: between_codes(round.base)?, codes: Vec::new(), floats: Vec::new(), chooser: Chooser::default() })
    }
}
