//! The exact nearest vectors, by reading every one: what all else is measured against.

use crate::{
    Answer, SearchError, SearchStats, Way,
    base::Base,
    bits::Hidden,
    io::AlignedBuf,
    kept::Kept,
    key_set::Filter,
    params::{Hit, MAX_LIST_SIZE},
    ranker::Ranker,
};
use roxanne_core::{
    format::FormatError,
    id::{Key, NodeId},
    neighbor::Distance,
    search::TopK,
};
use std::time::Instant;

/// Pages that are read in one call.
const PAGES_AT_ONCE: u64 = 256;

pub(crate) fn exact(
    base: &Base,
    queries: &[&[f32]],
    k: usize,
    filter: Option<&Filter>,
    hidden: Option<&Hidden>,
    until: Option<Instant>,
) -> Result<Vec<Answer>, SearchError> {
    let start = Instant::now();
    if !(1..=MAX_LIST_SIZE).contains(&k) {
        return Err(SearchError::Param { name: "k", got: k, low: 1, high: MAX_LIST_SIZE });
    }
    let ranker = |query: &&[f32]| {
        let mut ranker = Ranker::default();
        ranker.take(base, query).map(|()| ranker)
    };
    let rankers = queries.iter().map(ranker).collect::<Result<Vec<_>, _>>()?;
    let mut tops: Vec<TopK<(Distance, NodeId, Key)>> = rankers.iter().map(|_| TopK::new(k.min(base.n() as usize))).collect();
    let mut met = 0;
    let mut look_at = |_: u64, (first, live): (u64, usize), page: &[u8]| -> Result<(), SearchError> {
        in_time(until)?;
        for slot in 0..live {
            let record = base.layout.record(page, slot);
            let is_hidden = hidden.is_some_and(|hidden| hidden.contains((first + slot as u64) as u32));
            if is_hidden || !base.is_used(record) {
                continue;
            }
            met += 1;
            let (node, key) = (NodeId((first + slot as u64) as u32), record.key());
            for (ranker, top) in rankers.iter().zip(&mut tops) {
                let item = (Distance(ranker.distance(base, record.vector())), node, key);
                if top.admits(&item) && filter.is_none_or(|filter| filter.admits(key, node)) {
                    top.offer(item);
                }
            }
        }
        Ok(())
    };
    each_page(base, hidden.map_or(base.n(), |hidden| hidden.from), &mut look_at)?;
    let reads = if matches!(base.kept, Kept::All(_)) { 0 } else { base.pages.page_count() };
    let stats = SearchStats { way: Way::Scan, reads, distances: met, micros: start.elapsed().as_micros() as u64, ..SearchStats::default() };
    let answer = |mut top: TopK<(Distance, NodeId, Key)>| Answer {
        hits: top.drain_sorted().into_iter().map(|(distance, _, key)| Hit { key, distance: distance.0 }).collect(),
        complete: true,
        stats,
    };
    Ok(tops.into_iter().map(answer).collect())
}

/// Refuses to go on behind `until`.
pub(crate) fn in_time(until: Option<Instant>) -> Result<(), SearchError> {
    if until.is_some_and(|until| Instant::now() > until) { Err(SearchError::Late) } else { Ok(()) }
}

/// What looks at a page, given its number, its nodes (the first and how many) and its bytes.
type Look<'a, E> = dyn FnMut(u64, (u64, usize), &[u8]) -> Result<(), E> + 'a;

/// Shows every page of the first `n` nodes, in their order, from RAM where all are there.
pub(crate) fn each_page<E: From<SearchError>>(base: &Base, n: u64, look_at: &mut Look<'_, E>) -> Result<(), E> {
    let (page_bytes, page_count) = (base.layout.page_bytes, base.layout.page_count(n));
    if let Kept::All(pages) = &base.kept {
        // A copy, where pages may be written: who looks may take long, and meanwhile nothing that was replaced would be let go.
        let mut copy = vec![0; if base.live.is_some() { page_bytes } else { 0 }];
        return (0..page_count).try_for_each(|number| {
            let guard = crossbeam_epoch::pin();
            let page = pages.page(number, &guard);
            if copy.is_empty() {
                return look_at(number, base.nodes_of(number, page), page);
            }
            copy.copy_from_slice(page);
            drop(guard);
            look_at(number, base.nodes_of(number, &copy), &copy)
        });
    }
    let mut buffer = AlignedBuf::new(PAGES_AT_ONCE as usize * page_bytes)
        .map_err(|error| SearchError::from(FormatError::Io { path: base.pages.path().to_path_buf(), error }))?;
    for first in (0..page_count).step_by(PAGES_AT_ONCE as usize) {
        let part = &mut buffer[..PAGES_AT_ONCE.min(page_count - first) as usize * page_bytes];
        base.pages.read_pages_blocking(first, part).map_err(SearchError::from)?;
        for (number, page) in (first..).zip(part.chunks_exact_mut(page_bytes)) {
            // A page that is being written is asked for by itself.
            let nodes = match base.check_page(number, page) {
                Ok(nodes) if base.is_fresh(number, page) => nodes,
                Err(error) if base.live.is_none() => return Err(SearchError::from(error).into()),
                _ => base.read_page(number, page)?,
            };
            look_at(number, nodes, page)?;
        }
    }
    Ok(())
}
