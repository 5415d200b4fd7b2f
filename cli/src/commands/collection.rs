//! `create`, `insert`, `delete`, `get`: a collection, point by point; and what `search` and `info` do with one.

use super::{Limits, Memory, Shape, print_json};
use crate::{
    failure::Failure,
    interrupt, key_file,
    parse::{self, QuerySource},
    progress::{self, say},
    text,
};
use roxanne_builder::{Builder, Observer};
use roxanne_core::{
    ErrorClass,
    dataset::{Dataset, DatasetWriter, check_finite},
    element::ElementType,
    format::{keys::KeyList, record::Stored},
    metric::Metric,
};
use roxanne_engine::{
    SearchParams,
    collection::{Change, Collection, CollectionConfig, CollectionOptions, Durability, Found, KeyKind, MergeLimits, Point, PointKey},
};
use serde_json::{Value, json};
use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

/// Points of one batch of `insert` and `delete`.
const BATCH: usize = 1000;

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
struct Opening {
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
    fn options(&self) -> CollectionOptions {
        let durability = if self.durability == When::Os { Durability::Os } else { Durability::Disk };
        CollectionOptions { delta_bytes: self.delta_ram, durability, ..CollectionOptions::default() }
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

/// Bring all points of a collection into its base
#[derive(clap::Args)]
#[command(after_help = "Examples:
  roxanne merge docs                         where a base is, it is changed in place
  roxanne merge docs --rebuild --ram 8G      a new one from all points

What was put and deleted since the last base lies in memory. The first merge builds a base, in the layout for flash and with room for as many points
again; from then on the base is changed where it lies, and work is in proportion to what changed. No other process may write meanwhile, nor read where
a base is changed.")]
pub(crate) struct MergeArgs {
    /// The collection
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Build a new base also where the one that is there could be changed
    #[arg(long)]
    rebuild: bool,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    limits: Limits,
    /// Threads; 0 is one a core
    #[arg(long, short, value_name = "T", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1024))]
    threads: u16,
    /// Progress on stderr: bars on a terminal, lines, or JSON events
    #[arg(long, value_enum, value_name = "auto|plain|json", default_value_t, hide_possible_values = true)]
    progress: progress::Style,
}

/// Make a finished index the base of a collection
#[derive(clap::Args)]
#[command(after_help = "Example:
  roxanne info docs --json | jq .sequence        before the build begins
  roxanne promote docs new.rx --sequence 1234    when it is done

The index holds the collection as it was after that batch; what was put or deleted later stays so. Into an empty collection an index goes with
--sequence 0. Its directory moves into that of the collection; where that was cut off before it counted, it lies there as base-NUMBER and can be
promoted from there.")]
pub(crate) struct PromoteArgs {
    /// The collection
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// The index
    #[arg(value_name = "IDX")]
    index: PathBuf,
    /// The batch that it was built after
    #[arg(long, value_name = "N")]
    sequence: u64,
}

pub(crate) fn promote(args: &PromoteArgs, _: &mut dyn Write) -> Result<(), Failure> {
    let collection = Collection::open(&args.directory, &CollectionOptions { delta_bytes: u64::MAX, ..CollectionOptions::default() })?;
    Ok(collection.promote(&args.index, args.sequence)?)
}

pub(crate) fn merge(args: &MergeArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let collection = Collection::open(&args.directory, &CollectionOptions { delta_bytes: u64::MAX, ..CollectionOptions::default() })?;
    if args.shape.vectors != Stored::Full {
        return Err(Failure::usage("the base of a collection holds vectors as they were given: --vectors full"));
    }
    let (config, stats) = (*collection.config(), collection.stats());
    let (waiting, dead) = (stats.delta_points - stats.delta_dead, stats.base_dead - stats.base_free);
    if waiting + dead == 0 || stats.points == 0 {
        writeln!(out, "nothing to merge: {} points, all in the base", text::count(stats.points))?;
        return Ok(());
    }
    if collection.merges_in_place() && !args.rebuild {
        return merge_in_place(&collection, args, out);
    }
    // Beside what it becomes, so that it can be moved; whatever an interrupted merge left goes first.
    let place = args.directory.join("merge");
    match std::fs::remove_dir_all(&place) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Failure::io(&place, "clear")(error)),
        _ => std::fs::create_dir(&place).map_err(Failure::io(&place, "create"))?,
    }
    let (rows, index) = (place.join(file_of(config.element)), place.join("base.rx"));
    let (dim, element) =
        if config.element == ElementType::Binary { (config.dim / 8, ElementType::U8) } else { (config.dim, config.element) };
    let mut writer = DatasetWriter::create(&rows, element, dim)?;
    let (mut numbers, mut names) = (Vec::new(), Vec::new());
    let mut failed = None;
    let sequence = collection.export(|key, row| {
        match key {
            PointKey::Number(number) => numbers.push(number),
            PointKey::Text(name) => names.push(name.into_string()),
        }
        if failed.is_none() {
            failed = writer.push_rows(row).err();
        }
        Ok(())
    })?;
    failed.map_or(Ok(()), Err)?;
    writer.finish()?;
    let keys = if config.keys == KeyKind::Numbers { KeyList::Numbers(numbers) } else { KeyList::Strings(names) };
    let progress = Arc::new(progress::Progress::within(args.progress, args.limits.budget()));
    let report = Builder::new(config.metric)
        .params(args.shape.params_with_room(1, stats.points))
        .budget(args.limits.budget())
        .threads(usize::from(args.threads))
        .keys(keys)
        .dataset(Dataset::open(&rows.to_string_lossy())?)
        .observer(progress.clone())
        .stop(interrupt::stop_flag())
        .build(&index);
    progress.end();
    let report = report?;
    collection.promote(&index, sequence)?;
    std::fs::remove_dir_all(&place).map_err(Failure::io(&place, "remove"))?;
    writeln!(out, "{} points in a base of {}, built in {:.1} s", text::count(report.n), text::bytes(report.index_bytes), report.seconds)?;
    Ok(())
}

/// Merges round by round, until nothing is left that can be merged.
fn merge_in_place(collection: &Collection, args: &MergeArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let (stop, stats, begin) = (interrupt::stop_flag(), collection.stats(), Instant::now());
    let progress = progress::Progress::within(args.progress, args.limits.budget());
    progress.phase("merge", stats.delta_points - stats.delta_dead, "vectors");
    let (mut inserted, mut removed, mut bytes) = (0, 0, 0);
    let mut limits = MergeLimits::default();
    if args.threads > 0 {
        limits.threads = usize::from(args.threads);
    }
    while !stop.load(Ordering::Relaxed) {
        let report = collection.merge(&limits)?;
        if report.inserted + report.removed == 0 {
            break;
        }
        (inserted, removed, bytes) = (inserted + report.inserted, removed + report.removed, bytes + report.bytes);
        progress.reached(inserted);
    }
    progress.end();
    let [came, left] = [inserted, removed].map(text::count);
    let seconds = begin.elapsed().as_secs_f64();
    writeln!(out, "{came} vectors came into the base and {left} left it; {} written in {seconds:.1} s", text::bytes(bytes))?;
    let stats = collection.stats();
    let waiting = stats.delta_points - stats.delta_dead;
    if waiting > 0 && !stop.load(Ordering::Relaxed) {
        let text =
            format!("{}: {} vectors have no room in the base; `merge --rebuild` makes a larger one", args.directory.display(), waiting);
        return Err(Failure::new(ErrorClass::Gate, text));
    }
    Ok(())
}

/// A file of rows of this type.
fn file_of(element: ElementType) -> &'static str {
    match element {
        ElementType::F32 => "rows.fbin",
        ElementType::F16 => "rows.f16bin",
        ElementType::Bf16 => "rows.bf16bin",
        ElementType::I8 => "rows.i8bin",
        ElementType::U8 | ElementType::Binary => "rows.u8bin",
    }
}

pub(crate) fn create(args: &CreateArgs, _: &mut dyn Write) -> Result<(), Failure> {
    let config = CollectionConfig { dim: args.dim, metric: args.metric, element: args.element, keys: args.keys };
    Collection::create(&args.directory, &config, &CollectionOptions::default())?;
    Ok(())
}

pub(crate) fn insert(args: &InsertArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let collection = Collection::open(&args.directory, &args.opening.options())?;
    let config = *collection.config();
    let dataset = Dataset::open(&args.input)?;
    let packed = config.element == ElementType::Binary && dataset.element() == ElementType::U8;
    let dataset = if packed { dataset.into_binary()? } else { dataset }.limit(args.limit.unwrap_or(u64::MAX));
    let keys = match &args.keys {
        Some(path) => key_file::limited(key_file::read(path)?, args.limit),
        None if config.keys == KeyKind::Strings => {
            return Err(Failure::usage("the collection's keys are strings: name them with --keys"));
        }
        None => KeyList::Rows(dataset.n()),
    };
    keys.check(dataset.n()).map_err(Failure::input)?;
    let mut payloads = None;
    if let Some(path) = &args.payload {
        let lines = || Ok::<_, Failure>(BufReader::new(File::open(path).map_err(Failure::io(path, "read the payloads"))?).lines());
        let (count, rows) = (lines()?.count() as u64, dataset.n());
        if count < rows || (count > rows && args.limit.is_none()) {
            return Err(Failure::input(format!("{}: {count} lines for {rows} rows", path.display())));
        }
        payloads = Some((path, lines()?));
    }
    let (start, stop) = (Instant::now(), interrupt::stop_flag());
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
            changes.push(if args.new { Change::Insert(point) } else { Change::Upsert(point) });
        }
        sequence = collection
            .write(changes)
            .map_err(|error| Failure::from(error).at(format_args!("{}: batch from row {first}", args.input)))?
            .sequence;
        first += count as u64;
        if stop.load(std::sync::atomic::Ordering::Relaxed) {
            say(format_args!("stopped after {} rows, which are kept", text::count(first)));
            return Err(Failure::new(roxanne_core::ErrorClass::Interrupted, "interrupted"));
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    if args.json {
        print_json(out, &json!({"put": first, "sequence": sequence, "seconds": seconds, "points": collection.count()}))?;
    } else {
        let rate = first as f64 / seconds.max(1e-9);
        writeln!(out, "{} points put in {seconds:.1} s ({rate:.0}/s); {} in all", text::count(first), text::count(collection.count()))?;
    }
    Ok(())
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

fn key_json(key: &PointKey) -> Value {
    match key {
        PointKey::Number(number) => json!(number),
        PointKey::Text(text) => json!(text),
    }
}

/// `info` of a collection.
pub(crate) fn info(directory: &Path, as_json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let collection = look(directory, CollectionOptions::default())?;
    let (config, stats) = (collection.config(), collection.stats());
    if as_json {
        let value = json!({
            "path": directory.display().to_string(), "dim": config.dim, "element": config.element.name(), "metric": config.metric.name(),
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
    pub(crate) memory: &'a Memory,
    pub(crate) limit: Option<u64>,
    pub(crate) json: bool,
}

/// `search` of a collection.
pub(crate) fn search(asked: &Asked<'_>, params: &SearchParams, out: &mut dyn Write) -> Result<(), Failure> {
    let base = roxanne_engine::OpenOptions { searchers: 1, ..asked.memory.options() };
    let collection = look(asked.directory, CollectionOptions { base, delta_bytes: u64::MAX, ..CollectionOptions::default() })?;
    let config = *collection.config();
    let mut one = |number: u64, query: &[f32]| -> Result<(), Failure> {
        let found = if asked.exact { collection.exact(query, params.k) } else { collection.search(query, params) };
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
