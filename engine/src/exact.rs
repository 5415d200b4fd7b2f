//! The exact nearest vectors, by reading every one: what all else is measured against.

use crate::{
    Answer, KeySet, SearchError, SearchStats, Way,
    base::Base,
    io::AlignedBuf,
    kept::Kept,
    params::{Hit, MAX_LIST_SIZE},
};
use roxanne_core::{
    build_codes::BuildCodec,
    format::FormatError,
    id::{Key, NodeId},
    neighbor::Distance,
    search::TopK,
};
use std::time::Instant;

/// Pages that are read in one call.
const PAGES_AT_ONCE: u64 = 256;

pub(crate) fn exact(base: &Base, queries: &[&[f32]], k: usize, filter: Option<&KeySet>) -> Result<Vec<Answer>, SearchError> {
    let start = Instant::now();
    if !(1..=MAX_LIST_SIZE).contains(&k) {
        return Err(SearchError::Param { name: "k", got: k, low: 1, high: MAX_LIST_SIZE });
    }
    let encode = |query: &&[f32]| -> Result<Vec<u8>, SearchError> {
        if query.len() != base.info.dim {
            return Err(SearchError::DimensionMismatch { path: base.info.path.clone(), found: base.info.dim, asked: query.len() });
        }
        BuildCodec::check_row(base.info.metric, query)?;
        let mut bytes = Vec::new();
        base.info.element.encode(query, &mut bytes)?;
        Ok(bytes)
    };
    let rows = queries.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
    let mut tops: Vec<TopK<(Distance, NodeId, Key)>> = rows.iter().map(|_| TopK::new(k.min(base.info.n as usize))).collect();
    let mut met = 0;
    let mut look_at = |number: u64, page: &[u8]| -> Result<(), SearchError> {
        let (first, live) = base.check_page(number, page)?;
        for slot in 0..live {
            let record = base.layout.record(page, slot);
            if filter.is_some_and(|keys| !keys.contains(record.key())) {
                continue;
            }
            met += 1;
            for (row, top) in rows.iter().zip(&mut tops) {
                let distance = Distance(base.distance.distance(row, record.vector()));
                top.offer((distance, NodeId((first + slot as u64) as u32), record.key()));
            }
        }
        Ok(())
    };
    let (page_bytes, page_count) = (base.layout.page_bytes, base.info.page_count);
    let mut reads = 0;
    if let Kept::All(pages) = &base.kept {
        (0..).zip(pages.chunks_exact(page_bytes)).try_for_each(|(number, page)| look_at(number, page))?;
    } else {
        let mut buffer = AlignedBuf::new(PAGES_AT_ONCE as usize * page_bytes)
            .map_err(|error| FormatError::Io { path: base.pages.path().to_path_buf(), error })?;
        for first in (0..page_count).step_by(PAGES_AT_ONCE as usize) {
            let part = &mut buffer[..PAGES_AT_ONCE.min(page_count - first) as usize * page_bytes];
            base.pages.read_pages_blocking(first, part)?;
            (first..).zip(part.chunks_exact(page_bytes)).try_for_each(|(number, page)| look_at(number, page))?;
        }
        reads = page_count;
    }
    let stats = SearchStats { way: Way::Scan, reads, distances: met, micros: start.elapsed().as_micros() as u64, ..SearchStats::default() };
    let answer = |mut top: TopK<(Distance, NodeId, Key)>| Answer {
        hits: top.drain_sorted().into_iter().map(|(distance, _, key)| Hit { key, distance: distance.0 }).collect(),
        complete: true,
        stats,
    };
    Ok(tops.into_iter().map(answer).collect())
}
