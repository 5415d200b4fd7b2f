//! `search`: queries in, nearest keys out, one line a hit.

use super::{check_index, index_json, search_failure};
use crate::{
    failure::Failure,
    interrupt,
    parse::{self, QuerySource},
    queries::{self, Queries},
};
use roxanne_core::{Budget, id::Key};
use roxanne_engine::{Answer, Index, SearchParams};
use serde_json::{Value, json};
use std::{io::Write, path::PathBuf};

/// Queries in memory at a time.
const CHUNK: usize = 256;

/// Search an index
#[derive(clap::Args)]
#[command(after_help = "Examples:
  roxanne search my.rx -q query.u8bin -k 10 --list-size 64
  roxanne search my.rx -q 'v=0.1,0.2,0.3' -k 3
  roxanne search my.rx -q query.npy --limit 100 --json

Without --json a hit is a line: query, rank, key, distance, separated by tabs. In string keys a tab, a line end and a
backslash are written \\t, \\n and \\\\.")]
pub(crate) struct Args {
    /// The index directory
    #[arg(value_name = "IDX")]
    index: PathBuf,
    /// The queries: a file, synth:..., or one vector as v=0.1,0.2
    #[arg(long, short, value_name = "Q")]
    queries: QuerySource,
    /// Hits of each query
    #[arg(short, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    k: u32,
    /// Candidates kept while searching (L): more finds more and reads more
    #[arg(long, value_name = "L", default_value_t = 64, visible_aliases = ["ef", "complexity"], value_parser = clap::value_parser!(u32).range(1..))]
    list_size: u32,
    /// Reads in flight (W)
    #[arg(long, value_name = "W", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    beam_width: u32,
    /// Most memory for the index, such as 1G
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    ram: Option<u64>,
    /// The first queries only
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    interrupt::leaves_at_once();
    check_index(&args.index)?;
    let index = Index::open(&args.index, Budget::ram(args.ram.unwrap_or(u64::MAX)))?;
    if args.json {
        // Written piece by piece: answers to many queries need not fit in memory.
        write!(out, "{{\"index\":{},\"queries\":[", index_json(index.info()))?;
    }
    match &args.queries {
        QuerySource::Inline(values) => {
            queries::check_dim("v=...", values.len(), index.info())?;
            answer_all(args, &index, &Queries::inline(values), 0, out)?;
        }
        QuerySource::Rows(source) => {
            let dataset = queries::open(source, index.info(), args.limit)?;
            let mut first = 0;
            while first < dataset.n() {
                let count = CHUNK.min(usize::try_from(dataset.n() - first).unwrap_or(CHUNK));
                answer_all(args, &index, &Queries::read(&dataset, first, count)?, first, out)?;
                first += count as u64;
                // Whoever reads line by line need not wait for the end, and one that has gone away is noticed.
                out.flush()?;
            }
        }
    }
    if args.json {
        writeln!(out, "]}}")?;
    }
    Ok(())
}

/// Answers `queries`, the first of which is number `first`.
fn answer_all(args: &Args, index: &Index, queries: &Queries, first: u64, out: &mut dyn Write) -> Result<(), Failure> {
    let params = SearchParams { k: args.k as usize, list_size: args.list_size as usize, beam_width: args.beam_width as usize };
    let mut query = Vec::new();
    for (number, at) in (first..).zip(0..queries.len()) {
        queries.decode(at, &mut query);
        let answer = index.search(&query, &params).map_err(|e| search_failure(e, number))?;
        if args.json {
            let comma = if number == 0 { "" } else { "," };
            write!(out, "{comma}{}", answer_json(index, number, &answer)?)?;
            continue;
        }
        for (rank, hit) in (1..).zip(&answer.hits) {
            writeln!(out, "{number}\t{rank}\t{}\t{}", key_text(index, hit.key)?, hit.distance)?;
        }
    }
    Ok(())
}

fn answer_json(index: &Index, number: u64, answer: &Answer) -> Result<Value, Failure> {
    let hit = |hit: &roxanne_engine::Hit| -> Result<Value, Failure> {
        let key = index.key_name(hit.key)?.map_or_else(|| json!(hit.key.0), |name| json!(name));
        Ok(json!({"key": key, "distance": hit.distance}))
    };
    let hits = answer.hits.iter().map(hit).collect::<Result<Vec<_>, _>>()?;
    let stats = answer.stats;
    Ok(json!({
        "query": number, "hits": hits, "reads": stats.reads, "cache_hits": stats.cache_hits, "distances": stats.distances, "micros": stats.micros,
    }))
}

/// A key as it stands in a line: a string by its name, escaped.
fn key_text(index: &Index, key: Key) -> Result<String, Failure> {
    Ok(index.key_name(key)?.map_or_else(|| key.to_string(), |name| escape(&name)))
}

fn escape(name: &str) -> String {
    if !name.contains(['\\', '\t', '\n', '\r']) {
        return name.to_string();
    }
    name.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r")
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn a_string_key_stays_on_its_line() {
        assert_eq!((escape("doc 1"), escape("a\tb\\\n")), ("doc 1".to_string(), "a\\tb\\\\\\n".to_string()));
    }
}
