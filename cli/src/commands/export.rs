//! `export`: what is in an index or a collection, in files that others read.

use super::{check_index, print_json, refuse_existing};
use crate::{failure::Failure, interrupt, key_file, progress, text};
use roxanne_builder::Observer;
use roxanne_core::{
    dataset::DatasetWriter,
    element::ElementType,
    format::{keys::KeyList, manifest::CAPACITY, record::Stored},
    metric::Metric,
};
use roxanne_engine::{
    Budget, Index, Node,
    collection::{Collection, CollectionError, CollectionOptions, KeyKind, PointKey, is_collection},
};
use serde_json::json;
use std::{
    fs::Permissions,
    io::{self, BufWriter, Write},
    iter,
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};
use tempfile::NamedTempFile;

/// Write the vectors and keys of an index, or its graph as DiskANN has it
#[derive(clap::Args)]
#[command(after_help = "Examples:
  roxanne export my.rx vectors.fbin --keys-to keys.txt
  roxanne export docs vectors.npy --keys-to keys.txt         a collection, as it is now
  roxanne export my.rx ann --diskann                         ann, ann.data, ann.tags: an index in memory of DiskANN

Vectors come in the order of the index, keys in the same; `roxanne build vectors.fbin --keys keys.txt` makes an index of them again (with
--string-keys where keys are texts that look like numbers).")]
pub(crate) struct Args {
    /// The directory of an index or a collection
    #[arg(value_name = "IDX")]
    index: PathBuf,
    /// The file to write, whose extension tells the format; with --diskann the name of the index
    out: PathBuf,
    /// Write the keys, as text with one key a line
    #[arg(long, value_name = "FILE", required_unless_present = "diskann")]
    keys_to: Option<PathBuf>,
    /// Write vectors, neighbors and keys as an index in memory of DiskANN, of f32, u8 or i8 vectors and keys below 2^32
    #[arg(long, conflicts_with = "keys_to")]
    diskann: bool,
    /// Progress on stderr: bars on a terminal, lines, or JSON events
    #[arg(long, value_enum, value_name = "auto|plain|json", default_value_t, hide_possible_values = true)]
    progress: progress::Style,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let stop = interrupt::stop_flag();
    let progress = progress::Progress::new(args.progress);
    let n = if args.diskann {
        to_diskann(args, &progress, &stop)?
    } else {
        refuse_existing(&args.out)?;
        if args.keys_to.as_ref() == Some(&args.out) {
            return Err(Failure::usage("vectors and keys are two files"));
        }
        args.keys_to.as_deref().map_or(Ok(()), refuse_existing)?;
        if is_collection(&args.index) { of_collection(args, &progress, &stop)? } else { of_index(args, &progress, &stop)? }
    };
    progress.end();
    if args.json {
        print_json(out, &json!({"path": args.out.display().to_string(), "n": n}))?;
    } else {
        writeln!(out, "{}: {} vectors", args.out.display(), text::count(n))?;
    }
    Ok(())
}

/// Keys that are being gathered.
enum Keys {
    Numbers(Vec<u64>),
    Strings(Vec<String>),
}

impl Keys {
    /// A text of its own line.
    fn push(&mut self, text: String) -> Result<(), Failure> {
        match self {
            Keys::Strings(keys) if !text.contains('\n') => keys.push(text),
            _ => return Err(Failure::input(format!("a key has more than one line, which no file of keys can hold: {text:?}"))),
        }
        Ok(())
    }

    /// Before the vectors get their name: where those are, the keys are whole.
    fn write(self, path: Option<&Path>) -> Result<(), Failure> {
        let keys = match self {
            Keys::Numbers(keys) => KeyList::Numbers(keys),
            Keys::Strings(keys) => KeyList::Strings(keys),
        };
        path.map_or(Ok(()), |path| key_file::write(path, &keys))
    }
}

/// Gives vectors and keys their names, or neither.
fn publish(writer: DatasetWriter, keys: Keys, args: &Args) -> Result<(), Failure> {
    keys.write(args.keys_to.as_deref())?;
    writer.finish().map_err(|error| {
        // The error to tell is the first one.
        args.keys_to.iter().for_each(|path| drop(std::fs::remove_file(path)));
        error.into()
    })
}

fn of_index(args: &Args, progress: &progress::Progress, stop: &AtomicBool) -> Result<u64, Failure> {
    let index = open(&args.index)?;
    let info = index.info();
    let mut writer = DatasetWriter::create(&args.out, info.element, info.dim)?;
    let mut keys = if info.string_keys { Keys::Strings(Vec::new()) } else { Keys::Numbers(Vec::new()) };
    progress.phase("export", info.n, "vectors");
    index.each_node(&mut |node: Node<'_>| -> Result<(), Failure> {
        writer.push_rows(node.vector)?;
        match &mut keys {
            Keys::Numbers(keys) => keys.push(node.key.0),
            Keys::Strings(_) => keys.push(index.key_name(node.key)?.unwrap_or_default())?,
        }
        progress.reached(writer.n());
        if stop.load(Relaxed) { Err(interrupt::interrupted(args.out.display())) } else { Ok(()) }
    })?;
    let n = writer.n();
    publish(writer, keys, args)?;
    Ok(n)
}

fn of_collection(args: &Args, progress: &progress::Progress, stop: &AtomicBool) -> Result<u64, Failure> {
    let options = CollectionOptions { delta_bytes: u64::MAX, read_only: true, ..CollectionOptions::default() };
    let collection = Collection::open(&args.index, &options)?;
    let config = collection.config();
    let mut writer = DatasetWriter::create(&args.out, config.element, config.dim)?;
    let mut keys = if config.keys == KeyKind::Strings { Keys::Strings(Vec::new()) } else { Keys::Numbers(Vec::new()) };
    progress.phase("export", collection.count(), "vectors");
    let mut failed = None;
    let exported = collection.export(|key, row| {
        let named = match (key, &mut keys) {
            (PointKey::Number(key), Keys::Numbers(keys)) => {
                keys.push(key);
                Ok(())
            }
            (PointKey::Number(key), _) => keys.push(key.to_string()),
            (PointKey::Text(key), _) => keys.push(key.into_string()),
        };
        let written = named.and(writer.push_rows(row).map_err(Failure::from));
        progress.reached(writer.n());
        let stopped = if stop.load(Relaxed) { Err(interrupt::interrupted(args.out.display())) } else { Ok(()) };
        written.and(stopped).map_err(|failure| {
            failed = Some(failure);
            // Of all errors that end it the one that means so.
            CollectionError::Io { path: args.out.clone(), error: io::ErrorKind::Interrupted.into() }
        })
    });
    failed.map_or(Ok(()), Err)?;
    exported?;
    let n = writer.n();
    publish(writer, keys, args)?;
    Ok(n)
}

fn open(path: &Path) -> Result<Index, Failure> {
    check_index(path)?;
    let index = Index::open(path, Budget::default())?;
    if index.info().stored == Stored::Full {
        return Ok(index);
    }
    Err(Failure::input(format!("{}: its records hold a byte a coordinate, and not the vectors", path.display())))
}

/// A file beside the others of an index of DiskANN's: hidden until all are whole.
struct Part {
    path: PathBuf,
    out: BufWriter<NamedTempFile>,
}

impl Part {
    /// Begins `NAME` + `suffix`, which nobody has, with `header`.
    fn begin(name: &Path, suffix: &str, header: &[u8]) -> Result<Part, Failure> {
        let mut path = name.as_os_str().to_owned();
        path.push(suffix);
        let path = PathBuf::from(path);
        refuse_existing(&path)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // As any other file: what of it others may do, the process says.
        let file = tempfile::Builder::new().permissions(Permissions::from_mode(0o666)).tempfile_in(parent);
        let file = file.map_err(Failure::io(&path, "create"))?;
        let mut part = Part { out: BufWriter::with_capacity(1 << 20, file), path };
        part.write(header)?;
        Ok(part)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes).map_err(Failure::io(&self.path, "write"))
    }

    fn words(&mut self, words: impl IntoIterator<Item = u32>) -> Result<(), Failure> {
        words.into_iter().try_for_each(|word| self.write(&word.to_le_bytes()))
    }

    /// Writes `header` over the first bytes, and gives the file its name.
    fn finish(self, header: &[u8]) -> Result<(), Failure> {
        let Part { path, out } = self;
        let file = out.into_inner().map_err(|error| error.into_error()).map_err(Failure::io(&path, "write"))?;
        let header = file.as_file().write_all_at(header, 0);
        header.and_then(|()| file.as_file().sync_all()).map_err(Failure::io(&path, "write"))?;
        file.persist_noclobber(&path).map_err(|error| error.error).map_err(Failure::io(&path, "name"))?;
        Ok(())
    }
}

/// `NAME`: `u64 bytes, u32 most neighbors, u32 entry, u64 0`, then `u32 count, u32 neighbors` a node; `NAME.data`: `u32 n, u32 dim, vectors`; `NAME.tags`: `u32 n, u32 1, u32
/// keys`. Nodes keep their numbers.
fn to_diskann(args: &Args, progress: &progress::Progress, stop: &AtomicBool) -> Result<u64, Failure> {
    let index = open(&args.index)?;
    let info = index.info();
    let refuse = |what: &str| Failure::input(format!("{}: {what}", args.index.display()));
    let is_known = match info.metric {
        Metric::L2 | Metric::Cosine => matches!(info.element, ElementType::F32 | ElementType::U8 | ElementType::I8),
        Metric::InnerProduct => info.element == ElementType::F32,
        Metric::Manhattan | Metric::Hamming => false,
    };
    if !is_known {
        return Err(refuse("DiskANN knows vectors of f32, u8 and i8 under l2 and cos, and of f32 under dot"));
    }
    // Under cos it takes those that it opens for normalized.
    let normalizes = info.metric == Metric::Cosine && info.element == ElementType::F32;
    if info.string_keys {
        return Err(refuse("DiskANN's keys are numbers below 2^32, these are strings"));
    }
    let is_live = info.params.iter().any(|(name, _)| name == CAPACITY);
    if is_live {
        return Err(refuse("slots of an index that is changed in place may be empty; build one without --capacity"));
    }
    let (n, dim) = (info.n as u32, info.dim as u32);
    let mut graph = Part::begin(&args.out, "", &[0; 24])?;
    let mut data = Part::begin(&args.out, ".data", &[])?;
    let mut tags = Part::begin(&args.out, ".tags", &[])?;
    data.words([n, dim])?;
    tags.words([n, 1])?;
    let (mut bytes, mut most, mut values) = (24, 0, vec![0.0; info.dim]);
    progress.phase("export", info.n, "vectors");
    index.each_node(&mut |node: Node<'_>| -> Result<(), Failure> {
        let Ok(tag) = u32::try_from(node.key.0) else {
            return Err(refuse(&format!("DiskANN's keys are numbers below 2^32, one is {}", node.key)));
        };
        let count = node.neighbors.len() as u32;
        graph.words(iter::once(count).chain(node.neighbors.iter().map(|id| id.0)))?;
        if normalizes {
            info.element.decode(node.vector, &mut values);
            let norm = values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
            values.iter().try_for_each(|&value| data.write(&((f64::from(value) / norm) as f32).to_le_bytes()))?;
        } else {
            data.write(node.vector)?;
        }
        tags.words([tag])?;
        (bytes, most) = (bytes + 4 + 4 * u64::from(count), most.max(count));
        progress.reached(u64::from(node.id.0) + 1);
        if stop.load(Relaxed) { Err(interrupt::interrupted(args.out.display())) } else { Ok(()) }
    })?;
    let mut header = [0; 24];
    header[..8].copy_from_slice(&bytes.to_le_bytes());
    header[8..12].copy_from_slice(&most.to_le_bytes());
    header[12..16].copy_from_slice(&index.entry().0.to_le_bytes());
    data.finish(&n.to_le_bytes())?;
    tags.finish(&n.to_le_bytes())?;
    // Last: where the graph is, all is whole.
    graph.finish(&header)?;
    Ok(info.n)
}
