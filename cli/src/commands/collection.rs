//! `create`, `insert`, `delete`, `get`: a collection, point by point; and what `search` and `info` do with one.

use super::{Memory, print_json};
use crate::{
    failure::Failure,
    interrupt, key_file,
    parse::{self, QuerySource},
    progress::say,
    text,
};
use roxanne::rebuild;
use roxanne_core::{
    Budget,
    dataset::{Dataset, check_finite},
    element::ElementType,
    format::keys::KeyList,
    metric::Metric,
};
use roxanne_engine::{
    SearchParams,
    collection::{
        Change, Collection, CollectionConfig, CollectionError, CollectionOptions, Durability, Filter, Found, KeyKind, Point, PointKey,
        Written,
    },
};
use serde_json::{Value, json};
use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    sync::atomic::Ordering::Relaxed,
    thread::sleep,
    time::{Duration, Instant},
};

/// Points of one batch of `insert` and `delete`.
pub(crate) const BATCH: usize = 1000;
/// Between two attempts to write into a memory that is full.
const PATIENCE: Duration = Duration::from_millis(50);

/// Make an empty collection, whose points come, change and go while it is searched
#[derive(clap::Args)]
#[command(after_help = "Example:
  roxanne create docs --dim 384 --metric cos --keys strings")]
pub(crate) struct CreateArgs {
    /// The directory to make
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Coordinates of a vector
    #[arg(long, short, value_name = "D")]
    dim: usize,
    /// What near means: l2, cos, dot, l1 or hamming
    #[arg(long, short, default_value = "l2", value_parser = parse::metric)]
    metric: Metric,
    /// What vectors are kept as: f32, f16, bf16, u8, i8 or binary
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = parse::element)]
    element: ElementType,
    /// What keys are: numbers or strings
    #[arg(long, value_name = "numbers|strings", default_value = "numbers", value_parser = parse::key_kind)]
    keys: KeyKind,
}

/// How a collection is opened to write, as flags.
#[derive(clap::Args)]
pub(crate) struct Opening {
    /// Most memory of vectors that are in no base yet
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = parse::size)]
    delta_ram: u64,
    /// When a batch is done: when the disk has it, or the operating system
    #[arg(long, value_name = "disk|os", value_enum, default_value_t, hide_possible_values = true)]
    durability: When,
}

/// See [`Durability`].
#[derive(Clone, Copy, Debug, Default, PartialEq, clap::ValueEnum)]
enum When {
    /// The disk.
    #[default]
    Disk,
    /// The operating system.
    Os,
}

impl Opening {
    /// What fills the memory is built into a base, within as much memory again and no less than a gigabyte.
    pub(crate) fn options(&self) -> CollectionOptions {
        let durability = if self.durability == When::Os { Durability::Os } else { Durability::Disk };
        let options = CollectionOptions { delta_bytes: self.delta_ram, durability, ..CollectionOptions::default() };
        rebuild::by_itself(options, Budget::ram(self.delta_ram.max(1 << 30)))
    }
}

/// Put the vectors of a file into a collection
#[derive(clap::Args)]
#[command(after_help = "Examples:
  roxanne insert docs new.npy --keys new.txt --payload new.jsonl
  roxanne insert docs synth:n=10000,dim=128                     keys are row numbers

Points go in batches, each whole or not at all; a point whose key is there takes its place. Line i of --payload is the JSON object of row i.")]
pub(crate) struct InsertArgs {
    /// The collection
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// The vectors: a file, or synth:...
    input: String,
    /// Their keys: .npy of integers, or text with one key a line; without it row numbers
    #[arg(long, value_name = "F")]
    keys: Option<PathBuf>,
    /// Their payloads: a JSON object a line, an empty line for none
    #[arg(long, value_name = "F")]
    payload: Option<PathBuf>,
    /// Refuse a batch that names a key which is there
    #[arg(long)]
    new: bool,
    /// The first rows only
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    #[command(flatten)]
    opening: Opening,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

/// Remove points from a collection
#[derive(clap::Args)]
#[command(after_help = "Examples:
  roxanne delete docs 17 18
  roxanne delete docs --file gone.txt

Keys that are not there are none of its business; the output counts those that were.")]
pub(crate) struct DeleteArgs {
    /// The collection
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Keys
    #[arg(value_name = "KEY", required_unless_present = "file")]
    keys: Vec<String>,
    /// More keys: .npy of integers, or text with one key a line
    #[arg(long, value_name = "F")]
    file: Option<PathBuf>,
    #[command(flatten)]
    opening: Opening,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

/// Show points of a collection, one JSON object a line
#[derive(clap::Args)]
#[command(after_help = "Example:
  roxanne get docs 17 18

A key that is not there is said on stderr, and the exit code is 3.")]
pub(crate) struct GetArgs {
    /// The collection
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Keys
    #[arg(value_name = "KEY", required = true)]
    keys: Vec<String>,
}

pub(crate) fn create(args: &CreateArgs, _: &mut dyn Write) -> Result<(), Failure> {
    let config = CollectionConfig { dim: args.dim, metric: args.metric, element: args.element, keys: args.keys };
    Collection::create(&args.directory, &config, &CollectionOptions::default())?;
    Ok(())
}

/// Rows of files, on their way into a collection.
pub(crate) struct Source<'a> {
    /// The vectors.
    pub(crate) input: &'a str,
    /// The rows' numbers where there is none.
    pub(crate) keys: Option<&'a Path>,
    /// An object a line.
    pub(crate) payload: Option<&'a Path>,
    /// The first so many rows.
    pub(crate) limit: Option<u64>,
    /// No key may be there already.
    pub(crate) insert_only: bool,
}

/// What was put.
pub(crate) struct Filled {
    pub(crate) rows: u64,
    /// The last batch.
    pub(crate) sequence: u64,
    /// Whether that was all.
    pub(crate) is_whole: bool,
}

/// Puts rows, a batch at a time. `told` hears `(done, total)` and says whether to go on.
pub(crate) fn fill(collection: &Collection, source: &Source, told: &mut dyn FnMut(u64, u64) -> bool) -> Result<Filled, Failure> {
    let config = *collection.config();
    let dataset = Dataset::open(source.input)?;
    let packed = config.element == ElementType::Binary && dataset.element() == ElementType::U8;
    let dataset = if packed { dataset.into_binary()? } else { dataset }.limit(source.limit.unwrap_or(u64::MAX));
    let keys = match source.keys {
        Some(path) => key_file::limited(key_file::read(path)?, source.limit),
        None => KeyList::Rows(dataset.n()),
    };
    keys.check(dataset.n()).map_err(Failure::input)?;
    let mut payloads = None;
    if let Some(path) = source.payload {
        let lines = || Ok::<_, Failure>(BufReader::new(File::open(path).map_err(Failure::io(path, "read the payloads"))?).lines());
        let (count, rows) = (lines()?.count() as u64, dataset.n());
        if count < rows || (count > rows && source.limit.is_none()) {
            return Err(Failure::input(format!("{}: {count} lines for {rows} rows", path.display())));
        }
        payloads = Some((path, lines()?));
    }
    let (mut first, mut raw, mut values) = (0, Vec::new(), vec![0.0; dataset.dim()]);
    let mut sequence = collection.stats().sequence;
    while first < dataset.n() {
        let count = BATCH.min(usize::try_from(dataset.n() - first).unwrap_or(BATCH));
        dataset.read_rows(first, count, &mut raw)?;
        check_finite(dataset.element(), &raw, dataset.dim(), first).map_err(|e| Failure::from(e).at(dataset.source()))?;
        let mut changes = Vec::with_capacity(count);
        for (row, bytes) in (first..).zip(raw.chunks_exact(dataset.row_bytes())) {
            dataset.element().decode(bytes, &mut values);
            let payload = match &mut payloads {
                None => String::new(),
                Some((path, lines)) => match lines.next() {
                    Some(line) => line.map_err(Failure::io(path, "read the payloads"))?.trim().to_string(),
                    None => return Err(Failure::input(format!("{}: ends before row {row}", path.display()))),
                },
            };
            let point = Point { key: key_of(&keys, row, config.keys)?, vector: values.clone(), payload };
            changes.push(if source.insert_only { Change::Insert(point) } else { Change::Upsert(point) });
        }
        let written = patiently(collection, changes, &mut || told(first, dataset.n()));
        sequence = written.map_err(|error| Failure::from(error).at(format_args!("{}: batch from row {first}", source.input)))?.sequence;
        first += count as u64;
        if !told(first, dataset.n()) {
            return Ok(Filled { rows: first, sequence, is_whole: false });
        }
    }
    Ok(Filled { rows: first, sequence, is_whole: true })
}

pub(crate) fn insert(args: &InsertArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let collection = Collection::open(&args.directory, &args.opening.options())?;
    if args.keys.is_none() && collection.config().keys == KeyKind::Strings {
        return Err(Failure::usage("the collection's keys are strings: name them with --keys"));
    }
    let (start, stop) = (Instant::now(), interrupt::stop_flag());
    let source = Source {
        input: &args.input,
        keys: args.keys.as_deref(),
        payload: args.payload.as_deref(),
        limit: args.limit,
        insert_only: args.new,
    };
    let Filled { rows, sequence, is_whole } = fill(&collection, &source, &mut |_, _| !stop.load(Relaxed))?;
    if !is_whole || stop.load(Relaxed) {
        say(format_args!("stopped after {} rows, which are kept", text::count(rows)));
        return Err(Failure::new(roxanne_core::ErrorClass::Interrupted, "interrupted"));
    }
    let seconds = start.elapsed().as_secs_f64();
    if args.json {
        print_json(out, &json!({"put": rows, "sequence": sequence, "seconds": seconds, "points": collection.count()}))?;
    } else {
        let rate = rows as f64 / seconds.max(1e-9);
        writeln!(out, "{} points put in {seconds:.1} s ({rate:.0}/s); {} in all", text::count(rows), text::count(collection.count()))?;
    }
    Ok(())
}

/// Writes a batch; where memory is full, waits while the collection makes a base of what is in it.
pub(crate) fn patiently(
    collection: &Collection,
    changes: Vec<Change>,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Written, CollectionError> {
    loop {
        match collection.write(changes.clone()) {
            Err(CollectionError::DeltaFull { .. }) if collection.trouble().is_none() && go_on() => sleep(PATIENCE),
            outcome => return outcome,
        }
    }
}

/// The key of a row.
fn key_of(keys: &KeyList, row: u64, kind: KeyKind) -> Result<PointKey, Failure> {
    let at = usize::try_from(row).unwrap_or(usize::MAX);
    let number = match keys {
        KeyList::Rows(_) => row,
        KeyList::Numbers(numbers) => numbers[at],
        KeyList::Strings(names) => return Ok(kind.parse(&names[at])?),
    };
    Ok(if kind == KeyKind::Numbers { PointKey::Number(number) } else { kind.parse(&number.to_string())? })
}

pub(crate) fn delete(args: &DeleteArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let collection = Collection::open(&args.directory, &args.opening.options())?;
    let kind = collection.config().keys;
    let mut keys = args.keys.iter().map(|text| kind.parse(text)).collect::<Result<Vec<_>, _>>()?;
    if let Some(path) = &args.file {
        let list = key_file::read(path)?;
        keys.extend((0..list.len()).map(|row| key_of(&list, row, kind)).collect::<Result<Vec<_>, _>>()?);
    }
    let (asked, mut deleted) = (keys.len(), 0);
    for some in keys.chunks(BATCH) {
        deleted += collection.write(some.iter().cloned().map(Change::Delete).collect())?.deleted;
    }
    if args.json {
        print_json(out, &json!({"deleted": deleted, "asked": asked, "points": collection.count()}))?;
    } else {
        writeln!(out, "{deleted} of {asked} deleted; {} in all", text::count(collection.count()))?;
    }
    Ok(())
}

pub(crate) fn get(args: &GetArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let collection = look(&args.directory, CollectionOptions::default())?;
    let mut missing = Vec::new();
    for text in &args.keys {
        match collection.get(&collection.config().keys.parse(text)?)? {
            Some(point) => {
                let payload: Value = serde_json::from_str(&point.payload).unwrap_or_default();
                print_json(out, &json!({"key": key_json(&point.key), "vector": point.vector, "payload": payload}))?;
            }
            None => missing.push(text.as_str()),
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::input(format!("{}: holds no key {}", args.directory.display(), missing.join(", "))))
}

/// Opens a collection to look at it.
fn look(directory: &Path, options: CollectionOptions) -> Result<Collection, Failure> {
    Ok(Collection::open(directory, &CollectionOptions { read_only: true, ..options })?)
}

pub(crate) fn key_json(key: &PointKey) -> Value {
    match key {
        PointKey::Number(number) => json!(number),
        PointKey::Text(text) => json!(text),
    }
}

/// `info` of a collection.
pub(crate) fn info(directory: &Path, as_json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let collection = look(directory, CollectionOptions::default())?;
    let (config, stats, previous) = (collection.config(), collection.stats(), collection.previous()?);
    if as_json {
        let value = json!({
            "previous": previous, "path": directory.display().to_string(), "dim": config.dim, "element": config.element.name(), "metric": config.metric.name(),
            "keys": config.keys.name(), "points": stats.points, "sequence": stats.sequence, "base_points": stats.base_points,
            "base_dead": stats.base_dead, "base_free": stats.base_free, "delta_points": stats.delta_points, "delta_dead": stats.delta_dead, "delta_bytes": stats.delta_bytes,
        });
        return Ok(print_json(out, &value)?);
    }
    let lines = [
        ("collection", directory.display().to_string()),
        ("vectors", format!("{} x {} {}, {}", text::count(stats.points), config.dim, config.element, config.metric)),
        ("keys", config.keys.name().to_string()),
        ("batches", text::count(stats.sequence)),
        ("base", {
            let [slots, dead, free] = [stats.base_points, stats.base_dead - stats.base_free, stats.base_free].map(text::count);
            format!("{slots} slots, {dead} of dead vectors, {free} free")
        }),
        (
            "base before",
            previous.map_or("not kept".to_string(), |batch| format!("kept, of batch {}; `rollback` brings it back", text::count(batch))),
        ),
        ("in memory", format!("{} vectors, {}", text::count(stats.delta_points), text::bytes(stats.delta_bytes))),
    ];
    Ok(text::pairs(out, &lines)?)
}

/// What `search` asks of a collection.
pub(crate) struct Asked<'a> {
    pub(crate) directory: &'a Path,
    pub(crate) queries: Option<&'a QuerySource>,
    pub(crate) key: Option<&'a str>,
    pub(crate) exact: bool,
    pub(crate) filter: Option<&'a str>,
    pub(crate) memory: &'a Memory,
    pub(crate) limit: Option<u64>,
    pub(crate) json: bool,
}

/// `search` of a collection.
pub(crate) fn search(asked: &Asked<'_>, params: &SearchParams, out: &mut dyn Write) -> Result<(), Failure> {
    let base = roxanne_engine::OpenOptions { searchers: 1, ..asked.memory.options() };
    let collection = look(asked.directory, CollectionOptions { base, delta_bytes: u64::MAX, ..CollectionOptions::default() })?;
    let config = *collection.config();
    let filter = asked.filter.map(|text| read_filter(text, config.keys)).transpose()?;
    let mut one = |number: u64, query: &[f32]| -> Result<(), Failure> {
        let found = match (&filter, asked.exact) {
            (None, false) => collection.search(query, params),
            (None, true) => collection.exact(query, params.k),
            (Some(filter), false) => collection.search_filtered(query, params, filter),
            (Some(filter), true) => collection.exact_filtered(query, params.k, filter),
        };
        let found = found.map_err(|error| Failure::from(error).at(format_args!("query {number}")))?;
        if !found.complete {
            say(format_args!("query {number}: its time was over; these are the hits found by then"));
        }
        print_found(number, &found, asked.json, out)
    };
    match (asked.queries, asked.key) {
        (Some(QuerySource::Inline(values)), _) => one(0, values),
        (Some(QuerySource::Rows(source)), _) => {
            let dataset = Dataset::open(source)?;
            let packed = config.element == ElementType::Binary && dataset.element() == ElementType::U8;
            let dataset = if packed { dataset.into_binary()? } else { dataset }.limit(asked.limit.unwrap_or(u64::MAX));
            let mut values = Vec::new();
            (0..dataset.n()).try_for_each(|row| {
                dataset.read_rows_f32(row, 1, &mut values)?;
                one(row, &values)
            })
        }
        (None, key) => {
            let text = key.unwrap_or_default();
            let point = collection.get(&config.keys.parse(text)?)?;
            let point = point.ok_or_else(|| Failure::input(format!("{}: holds no key {text:?}", asked.directory.display())))?;
            one(0, &point.vector)
        }
    }
}

/// The filter that `text` is, or that lies in the file it names behind an @.
fn read_filter(text: &str, keys: KeyKind) -> Result<Filter, Failure> {
    let read = |path: &str| std::fs::read_to_string(path).map_err(|error| Failure::input(format!("{path}: {error}")));
    let text = text.strip_prefix('@').map_or_else(|| Ok(text.to_string()), read)?;
    let json: Value = serde_json::from_str(&text).map_err(|error| Failure::input(format!("--filter: no JSON: {error}")))?;
    Ok(Filter::from_json(&json, keys)?)
}

fn print_found(number: u64, found: &Found, as_json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    if as_json {
        let hits: Vec<Value> = found.hits.iter().map(|hit| json!({"key": key_json(&hit.key), "distance": hit.distance})).collect();
        let stats = found.stats;
        let value = json!({
            "query": number, "hits": hits, "complete": found.complete, "sequence": found.sequence, "way": stats.way.name(),
            "reads": stats.reads, "distances": stats.distances, "micros": stats.micros,
        });
        return Ok(print_json(out, &value)?);
    }
    for (rank, hit) in (1..).zip(&found.hits) {
        writeln!(out, "{number}\t{rank}\t{}\t{}", super::search::escape(&hit.key.to_string()), hit.distance)?;
    }
    Ok(())
}
