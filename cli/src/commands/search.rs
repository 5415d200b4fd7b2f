//! `search`: queries in, nearest keys out, one line a hit.

use super::{Memory, check_index, collection::Asked, index_json, search_failure};
use crate::{
    failure::Failure,
    interrupt, key_file,
    parse::{self, Effort, QuerySource},
    progress::say,
    queries::{self, Queries},
};
use roxanne_core::{format::keys::KeyList, id::Key};
use roxanne_engine::{Answer, Index, KeySet, OpenOptions, SearchError, SearchParams, Searcher, collection::is_collection};
use serde_json::{Value, json};
use std::{io::Write, path::PathBuf, sync::Arc, time::Duration};

/// Queries in memory at a time.
const CHUNK: usize = 256;

/// Search an index
#[derive(clap::Args)]
#[command(after_help = "Examples:
  roxanne search my.rx -q query.u8bin -k 10 --list-size 64
  roxanne search my.rx -q 'v=0.1,0.2,0.3' -k 3
  roxanne search my.rx -q query.npy --limit 100 --json
  roxanne search my.rx --key 'doc 7' -k 10                    near a vector of the index
  roxanne search my.rx -q query.npy --among keys.txt          among these keys only
  roxanne search docs -q query.npy --filter @english.json        among points whose payload passes
  roxanne search my.rx -q query.npy --radius 0.3              all that are as near as this
  roxanne search my.rx -q query.npy --recall 0.98             the effort that tune found to give it

Without --json a hit is a line: query, rank, key, distance, separated by tabs. In string keys a tab, a line end and a
backslash are written \\t, \\n and \\\\.")]
pub(crate) struct Args {
    /// The directory of an index or a collection
    #[arg(value_name = "IDX")]
    index: PathBuf,
    /// The queries: a file, synth:..., or one vector as v=0.1,0.2
    #[arg(long, short, value_name = "Q", required_unless_present = "key")]
    queries: Option<QuerySource>,
    /// Search near the vector of this key instead, which is the first hit itself
    #[arg(long, value_name = "KEY", conflicts_with = "queries")]
    key: Option<String>,
    /// Hits of each query
    #[arg(short, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    k: u32,
    /// Candidates kept while searching (L): more finds more and reads more
    #[arg(long, value_name = "L", default_value_t = 64, visible_aliases = ["ef", "complexity"], value_parser = clap::value_parser!(u32).range(1..))]
    list_size: u32,
    /// Instead of a list of fixed length: go on while candidates are at most 1 + S times as far as the k-th hit; fewer reads for the same recall
    #[arg(long, value_name = "S", conflicts_with = "list_size", value_parser = parse::slack)]
    slack: Option<f32>,
    /// The slack that `roxanne tune` found to give this recall (0 to 1)
    #[arg(long, value_name = "R", conflicts_with_all = ["list_size", "slack"], value_parser = parse::share)]
    recall: Option<f64>,
    /// All vectors within this distance, not the nearest k
    #[arg(long, value_name = "D", allow_negative_numbers = true, conflicts_with_all = ["k", "exact"])]
    radius: Option<f32>,
    /// Compare with every vector: slow, and certain
    #[arg(long)]
    exact: bool,
    /// Among the keys of this file alone: .npy of integers, or text with one key a line
    #[arg(long, value_name = "FILE")]
    among: Option<PathBuf>,
    /// Of a collection: among points whose payload passes alone; JSON as Qdrant has it, or @FILE
    #[arg(long, value_name = "JSON|@FILE")]
    filter: Option<String>,
    /// End each search after so many milliseconds, with what it has found
    #[arg(long, value_name = "MS")]
    deadline: Option<u64>,
    /// Reads in flight (W)
    #[arg(long, value_name = "W", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    beam_width: u32,
    /// The same answers in every run, whatever order reads come back in
    #[arg(long)]
    deterministic: bool,
    #[command(flatten)]
    memory: Memory,
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
    if is_collection(&args.index) {
        return search_collection(args, out);
    }
    if args.filter.is_some() {
        return Err(Failure::usage("--filter is for a collection: an index has no payloads; --among takes keys"));
    }
    let options = OpenOptions { searchers: 1, ..args.memory.options() };
    let index = Index::open_with(&args.index, &options)?;
    let mut ask = Ask { params: params(args, &index)?, args, filter: filter(args, &index)?, searcher: index.searcher()?, index: &index };
    if args.json {
        // Written piece by piece: answers to many queries need not fit in memory.
        write!(out, "{{\"index\":{},\"queries\":[", index_json(index.info()))?;
    }
    match (&args.queries, &args.key) {
        (Some(QuerySource::Inline(values)), _) => {
            queries::check_dim("v=...", values.len(), index.info())?;
            ask.all(&Queries::inline(values), 0, out)?;
        }
        (Some(QuerySource::Rows(source)), _) => {
            let dataset = queries::open(source, index.info(), args.limit)?;
            let mut first = 0;
            while first < dataset.n() {
                let count = CHUNK.min(usize::try_from(dataset.n() - first).unwrap_or(CHUNK));
                ask.all(&Queries::read(&dataset, first, count)?, first, out)?;
                first += count as u64;
                // Whoever reads line by line need not wait for the end, and one that has gone away is noticed.
                out.flush()?;
            }
        }
        (None, key) => {
            let key = key.as_deref().unwrap_or_default();
            let vector = index.get(key)?.ok_or_else(|| Failure::input(format!("{}: holds no key {key:?}", args.index.display())))?;
            ask.all(&Queries::inline(&vector), 0, out)?;
        }
    }
    if args.json {
        writeln!(out, "]}}")?;
    }
    Ok(())
}

fn search_collection(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let without = [("--recall", args.recall.is_some()), ("--radius", args.radius.is_some()), ("--among", args.among.is_some())];
    if let Some((flag, _)) = without.into_iter().find(|(_, given)| *given) {
        return Err(Failure::usage(format!("{flag} is for an index; a collection does not have it yet")));
    }
    let asked = Asked {
        directory: &args.index,
        queries: args.queries.as_ref(),
        key: args.key.as_deref(),
        exact: args.exact,
        filter: args.filter.as_deref(),
        memory: &args.memory,
        limit: args.limit,
        json: args.json,
    };
    super::collection::search(&asked, &with_effort(args, asked_effort(args)), out)
}

/// The effort that was asked for, in numbers.
fn params(args: &Args, index: &Index) -> Result<SearchParams, Failure> {
    let mut effort = asked_effort(args);
    if let Some(recall) = args.recall {
        let path = args.index.display();
        let untuned = || Failure::input(format!("{path}: nobody has measured its recall; run `roxanne tune {path}` first"));
        let calibration = index.calibration()?.ok_or_else(untuned)?;
        let best = calibration.points.last().map_or(0.0, |point| point.1);
        effort = calibration.slack(recall).map(Effort::Slack).ok_or_else(|| {
            Failure::input(format!(
                "{path}: tune measured recall up to {best:.4}, not {recall}; tune it with larger slacks, or ask for less"
            ))
        })?;
    }
    Ok(with_effort(args, effort))
}

/// What flags say of it.
fn asked_effort(args: &Args) -> Effort {
    args.slack.map_or(Effort::List(args.list_size as usize), Effort::Slack)
}

fn with_effort(args: &Args, effort: Effort) -> SearchParams {
    effort.of(SearchParams {
        k: args.k as usize,
        beam_width: args.beam_width as usize,
        deterministic: args.deterministic,
        deadline: args.deadline.map(Duration::from_millis),
        ..SearchParams::DEFAULT
    })
}

/// The keys of `--among`.
fn filter(args: &Args, index: &Index) -> Result<Option<Arc<KeySet>>, Failure> {
    let Some(path) = &args.among else { return Ok(None) };
    let keys = match key_file::read(path)? {
        KeyList::Numbers(keys) if !index.info().string_keys => index.key_set(keys)?,
        KeyList::Numbers(keys) => {
            let names: Vec<String> = keys.iter().map(u64::to_string).collect();
            index.key_set_of(names.iter().map(String::as_str))?
        }
        KeyList::Strings(names) => index.key_set_of(names.iter().map(String::as_str))?,
        KeyList::Rows(n) => index.key_set(0..n)?,
    };
    Ok(Some(keys))
}

/// All that answering takes.
struct Ask<'a> {
    args: &'a Args,
    index: &'a Index,
    searcher: Searcher,
    params: SearchParams,
    filter: Option<Arc<KeySet>>,
}

impl Ask<'_> {
    /// Answers `queries`, the first of which is number `first`.
    fn all(&mut self, queries: &Queries, first: u64, out: &mut dyn Write) -> Result<(), Failure> {
        let mut query = Vec::new();
        for (number, at) in (first..).zip(0..queries.len()) {
            queries.decode(at, &mut query);
            let answer = self.one(&query).map_err(|e| search_failure(e, number))?;
            if !answer.complete {
                say(format_args!("query {number}: its time was over; these are the hits found by then"));
            }
            if self.args.json {
                let comma = if number == 0 { "" } else { "," };
                write!(out, "{comma}{}", answer_json(self.index, number, &answer)?)?;
                continue;
            }
            for (rank, hit) in (1..).zip(&answer.hits) {
                writeln!(out, "{number}\t{rank}\t{}\t{}", key_text(self.index, hit.key)?, hit.distance)?;
            }
        }
        Ok(())
    }

    fn one(&mut self, query: &[f32]) -> Result<Answer, SearchError> {
        let filter = self.filter.as_ref();
        match self.args.radius {
            Some(radius) => self.searcher.range(query, radius, &self.params, filter),
            None if self.args.exact => {
                let answers = self.index.exact(&[query], self.params.k, filter)?;
                Ok(answers.into_iter().next().unwrap_or_default())
            }
            None => self.searcher.search_in(query, &self.params, filter),
        }
    }
}

fn answer_json(index: &Index, number: u64, answer: &Answer) -> Result<Value, Failure> {
    let hit = |hit: &roxanne_engine::Hit| -> Result<Value, Failure> {
        let key = index.key_name(hit.key)?.map_or_else(|| json!(hit.key.0), |name| json!(name));
        Ok(json!({"key": key, "distance": hit.distance}))
    };
    let hits = answer.hits.iter().map(hit).collect::<Result<Vec<_>, _>>()?;
    let stats = answer.stats;
    Ok(json!({
        "query": number, "hits": hits, "complete": answer.complete, "way": stats.way.name(), "reads": stats.reads,
        "cache_hits": stats.cache_hits, "expanded": stats.expanded, "distances": stats.distances, "micros": stats.micros,
    }))
}

/// A key as it stands in a line: a string by its name, escaped.
fn key_text(index: &Index, key: Key) -> Result<String, Failure> {
    Ok(index.key_name(key)?.map_or_else(|| key.to_string(), |name| escape(&name)))
}

pub(crate) fn escape(name: &str) -> String {
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
