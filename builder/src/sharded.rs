//! Builds larger than memory: the vectors are cut into a few large shards, each is built by itself in memory, and what they know of each
//! other is joined while pages are written.
//!
//! Every vector goes to its nearest shard, where it is *core*, and to the nearest other one, where it is a *ghost*. Each shard's graph spans
//! both. A core row keeps its neighbors, ghosts among them, which are core elsewhere; a ghost's nearest edges travel home, to the *inbox*
//! of its own shard, and are appended to its row there as far as there is room. Without ghosts most of the graph cannot be reached, and
//! without the inbox recall suffers (bench/RESULTS.md, builds larger than memory).
//!
//! Passes: [`scatter`] streams the input once into a file of members a shard; [`shard`] makes one graph after the other, in memory; [`pages`]
//! streams the nodes in their final order. The input is read in the first alone. The node number of a vector is (shard, page order within it),
//! so every shard owns a run of ids that is known once all rows are routed. Nothing scales with n in
//! memory but 4 bytes a row (its id), keys, and the graph of 1% of the rows for navigation.
//!
//! The passes are three steps that any process may take which sees the directory: *plan* (learn and route), *build* of each shard in any order
//! and side by side, *commit*. One build is all of them in one process; there is no other path. What is done is noted when it is on disk
//! ([`journal`]): a run of rows, a shard, a run of pages. A step that was stopped or killed goes on from there and ends with the same bytes.
//!
//! Reading the next shard while this one is computed would take its memory from this one, which is a tenth more shards, to save the second
//! that a shard takes to read; so reading, computing and writing overlap within a pass and not across shards.

mod disk;
mod journal;
mod model;
mod pages;
mod route;
mod scatter;
mod segments;
mod shard;

pub use disk::Traffic;
pub(crate) use journal::{JOURNAL, crash_point};
pub(crate) use scatter::UNIT_BYTES;
pub(crate) use segments::{BUFFER_BYTES, file_bytes as segmented_bytes};

use crate::{
    BuildError, Builder, Report,
    backend::{Backend, BuildCodes},
    build_nav, emit, input, output,
    steps::{Job, Step},
};
use disk::Disk;
use journal::{Journal, Left, Record, Routed, ShardDone};
use model::{MODEL, Model};
use roxanne_core::{
    build_codes::BuildCodec,
    dataset::Dataset,
    format::{self, FormatError, manifest::Manifest, record::RecordLayout},
    pq::Codebook,
    random::CounterRng,
};
use segments::Identity;
use shard::{CODES, LEFT};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
};
use xxhash_rust::xxh3::xxh3_64;

/// What all passes share.
struct Shared<'a> {
    builder: &'a Builder,
    job: &'a Job<'a>,
    directory: &'a Path,
    /// Of parameters, input and version: two builds share it only when they would write the same bytes.
    fingerprint: u64,
    codec: BuildCodec,
    codebook: Codebook,
    layout: RecordLayout,
    shards: usize,
    disk: Disk,
    /// The end of the names of files that are not whole yet: others may work in the same directory.
    own_name: String,
}

impl Shared<'_> {
    fn dataset(&self) -> &Dataset {
        self.job.dataset
    }

    /// A file of members, or of vectors, of a shard.
    fn path(&self, kind: &str, shard: usize) -> PathBuf {
        self.directory.join(format!("{kind}.{shard}"))
    }

    /// A file that a finished shard left.
    fn left(&self, kind: &str, shard: usize, left: Left) -> PathBuf {
        self.directory.join(format!("{kind}.{shard}.{:016x}", left.hash))
    }

    fn identity(&self, kind: &str, shard: usize) -> Identity {
        Identity::of(self.fingerprint, kind, shard)
    }

    /// Bytes of a member: row, home shard, code.
    fn member_bytes(&self) -> usize {
        8 + self.codec.stride()
    }

    /// Whether vectors are kept beside their codes.
    fn keeps_vectors(&self) -> bool {
        !self.builder.params.records_are_codes(&self.codec)
    }

    /// Bytes of a node before its last numbering: row, degree, rows of neighbors, vector.
    fn node_bytes(&self) -> usize {
        node_bytes(&self.layout)
    }

    /// Whether a shard is built at all: a rehearsal may build one alone.
    fn is_built_here(&self, shard: usize) -> bool {
        self.job.rehearsal.as_ref().and_then(|r| r.only_shard).is_none_or(|only| only == shard)
    }

    fn done(&self, shard: usize) -> Result<Option<ShardDone>, BuildError> {
        ShardDone::read(self.directory, self.fingerprint, shard)
    }
}

/// Bytes of a node as a shard leaves it.
pub(crate) fn node_bytes(layout: &RecordLayout) -> usize {
    8 + 4 * layout.max_degree + layout.row_bytes
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> BuildError + '_ {
    move |error| BuildError::Format(FormatError::Io { path: path.to_path_buf(), error })
}

/// The names in a directory are on disk.
fn sync_directory(directory: &Path) -> Result<(), BuildError> {
    File::open(directory).and_then(|d| d.sync_all()).map_err(io(directory))
}

/// Takes the step that the job asks for, in `job.directory`, which stays as it is when this fails. The manifest is whole after the last.
pub(crate) fn make<B: Backend>(builder: &Builder, job: &Job<'_>, backend: &B, report: &mut Report) -> Result<Option<Manifest>, BuildError> {
    // A rehearsal has a directory for what shards leave for each other.
    let directory = job.directory.ok_or(BuildError::NoInput)?;
    let disk = Disk::new()?;
    let fingerprint = fingerprint(builder, job);
    let input = input::sample_hash(job.dataset)?;
    let begun = Record::Build { fingerprint, input, shards: job.plan.shards };
    let is_ours = |records: &[Record]| match records.first() {
        None => Ok(false),
        Some(first) if *first == begun => Ok(true),
        Some(Record::Build { fingerprint: its, shards, .. }) if *its == fingerprint && *shards == job.plan.shards => {
            Err(BuildError::InputChanged { source_name: job.dataset.source().to_string() })
        }
        Some(_) => Err(BuildError::OtherCheckpoint { path: directory.to_path_buf() }),
    };
    let share = |model: &Model, disk: Disk| -> Result<Shared<'_>, BuildError> {
        let layout = builder.params.layout(job.plan.element, job.plan.dim, job.plan.n)?;
        let own_name = format!("{}-{}{UNFINISHED}", rustix::system::uname().nodename().to_string_lossy(), std::process::id());
        let (codec, codebook) = (model.codec.clone(), model.codebook.clone());
        Ok(Shared { builder, job, directory, fingerprint, codec, codebook, layout, shards: job.plan.shards, disk, own_name })
    };

    if let Step::Shard(shard) = job.step {
        let records = Journal::read(directory)?;
        let model = if is_ours(&records)? { Model::read(builder, job, directory, fingerprint, &disk)? } else { None };
        let model = model.ok_or_else(|| BuildError::NotRouted { path: directory.to_path_buf() })?;
        let shared = share(&model, disk)?;
        let routed = Routed::of(&records, shared.shards);
        if routed.rows != job.plan.n {
            return Err(BuildError::NotRouted { path: directory.to_path_buf() });
        }
        build_shard(&shared, backend, &routed, shard, report)?;
        report.traffic = shared.disk.traffic();
        return Ok(None);
    }

    let (mut journal, records) = Journal::open(directory)?;
    let known = is_ours(&records)?;
    remove_unfinished(directory)?;
    let model = match if known { Model::read(builder, job, directory, fingerprint, &disk)? } else { None } {
        Some(model) => model,
        None if job.step == Step::Commit => return Err(BuildError::NotRouted { path: directory.to_path_buf() }),
        None => {
            job.watch.phase("train", 1, "step");
            Model::learn(builder, job, directory, fingerprint, &disk)?
        }
    };
    model.report(report);
    let shared = share(&model, disk)?;
    if !known {
        journal.add(&begun)?;
    }
    let mut routed = Routed::of(&records, shared.shards);
    if job.step != Step::Commit {
        routed = scatter::route(&shared, &mut journal, routed)?;
        shared.refuse_changed_input(input)?;
    }
    let manifest = match job.step {
        Step::All => {
            for shard in (0..shared.shards).filter(|&shard| shared.is_built_here(shard)) {
                build_shard(&shared, backend, &routed, shard, report)?;
            }
            Some(commit(&shared, backend, &routed, &mut journal, &records, report)?)
        }
        Step::Commit if routed.rows != job.plan.n => return Err(BuildError::NotRouted { path: directory.to_path_buf() }),
        Step::Commit => Some(commit(&shared, backend, &routed, &mut journal, &records, report)?),
        Step::Plan | Step::Shard(_) => None,
    };
    shared.refuse_changed_input(input)?;
    report.traffic = shared.disk.traffic();
    Ok(manifest)
}

impl Shared<'_> {
    /// The input is still what it was when the build began, by the sample that its fingerprint is of.
    fn refuse_changed_input(&self, input: u64) -> Result<(), BuildError> {
        if input::sample_hash(self.dataset())? == input {
            return Ok(());
        }
        Err(BuildError::InputChanged { source_name: self.dataset().source().to_string() })
    }
}

/// Builds a shard that is not done yet.
fn build_shard<B: Backend>(shared: &Shared<'_>, backend: &B, routed: &Routed, shard: usize, report: &mut Report) -> Result<(), BuildError> {
    report.backend = backend.name();
    if shared.done(shard)?.is_none() {
        shard::build(shared, backend, routed, shard, report)?;
    }
    Ok(())
}

/// The last step: what shards left becomes the files of an index.
fn commit<B: Backend>(
    shared: &Shared<'_>,
    backend: &B,
    routed: &Routed,
    journal: &mut Journal,
    records: &[Record],
    report: &mut Report,
) -> Result<Manifest, BuildError> {
    let Shared { builder, job, directory, .. } = *shared;
    let (dataset, plan, watch) = (job.dataset, job.plan, job.watch);
    let (mut done, mut missing) = (BTreeMap::new(), Vec::new());
    for shard in (0..shared.shards).filter(|&shard| shared.is_built_here(shard)) {
        match shared.done(shard)? {
            Some(its) => drop(done.insert(shard, its)),
            None => missing.push(shard),
        }
    }
    if !missing.is_empty() {
        return Err(BuildError::ShardsMissing { path: directory.to_path_buf(), missing });
    }
    report.work.fixed_edges = done.values().map(|d| d.fixed).sum();
    report.ghosts = done.values().map(|d| d.ghosts).sum();
    let first_id = routed.first_ids();
    let shards = pages::Shards { shared, done: &done, first_id: &first_id };
    watch.phase("ids", plan.n, "rows");
    let ids = shards.ids()?;

    // The navigation graph is of rows anywhere in the input.
    let nav_rows = CounterRng::new(builder.params.seed).part(0x7A51);
    let (count, _) = crate::nav_params(plan.n);
    let nav_codes: BuildCodes = input::sample_codes(dataset, &shared.codec, builder.metric, nav_rows, count)?;
    let rows = input::sample_rows(dataset, nav_rows, count);
    let mut nav = build_nav(nav_codes, &rows, &builder.params.graph(plan.dim)?, backend, watch)?;
    nav.ids.iter_mut().for_each(|id| *id = ids[id.index()]);

    let mut params = job.params.clone();
    params.push((output::INPUT.to_string(), crate::input_text(input::hash_of_chunks(&routed.hashes))));
    params.push(("rotated".to_string(), shared.codebook.is_rotated().to_string()));
    let generation = crate::generation_of(&params);
    let keys = &*builder.keys_of(dataset);
    let per_page = shared.layout.per_page as u64;
    let range = match job.rehearsal.as_ref().and_then(|r| r.only_shard) {
        // Pages that are of no other shard.
        Some(only) => first_id[only].div_ceil(per_page)..(first_id[only + 1] / per_page).max(first_id[only].div_ceil(per_page)),
        None => 0..shared.layout.page_count(plan.n),
    };
    let file_id = format::file_id(generation, format::GRAPH_FILE);
    let mut files = vec![pages::Pages { shards: &shards, ids: &ids, keys, file_id }.write(range, journal, records)?];

    watch.phase("codes and keys", 1, "step");
    let kept = if job.rehearsal.is_none() { Some(directory) } else { None };
    let blob = |name: &str, fill: &dyn Fn(&mut format::blob::BlobWriter) -> Result<(), FormatError>| {
        // A build that went on may have begun it.
        let _ = fs::remove_file(directory.join(name));
        emit::write_blob(kept, generation, name, fill)
    };
    let _ = fs::remove_file(directory.join(format::CODES_FILE));
    let mut codes = emit::Blob::begin(kept, generation, format::CODES_FILE)?;
    for its in done.values() {
        let mut file = shards.open(its, CODES, 0, its.files[CODES].bytes)?;
        while let Some(part) = file.next()? {
            codes.write(part)?;
        }
    }
    files.push(codes.finish()?);
    files.push(blob(format::CODEBOOK_FILE, &|blob| {
        blob.write(&shared.codec.to_bytes())?;
        blob.write(&shared.codebook.to_bytes())
    })?);
    files.push(blob(format::NAV_FILE, &|blob| blob.write(&nav.to_bytes()))?);
    files.push(blob(format::KEYS_FILE, &|blob| keys.write(blob, |row| ids[row]))?);
    watch.advance(1)?;
    Ok(Manifest { generation, n: plan.n, dim: plan.dim, element: plan.element, metric: plan.metric, params, files })
}

/// All but the manifest's files and the journal goes: the index is whole without it. The journal stays until the index is published, so that
/// what was done is not done again.
pub(crate) fn clean(directory: &Path, manifest: &Manifest) -> Result<(), BuildError> {
    let mut kinds: Vec<String> = ["members", "vectors", "done"].into_iter().chain(LEFT).map(|kind| format!("{kind}.")).collect();
    kinds.push(MODEL.into());
    for entry in fs::read_dir(directory).map_err(io(directory))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_kept = manifest.files.iter().any(|file| file.name == name);
        if !is_kept && kinds.iter().any(|kind| name.starts_with(kind)) {
            fs::remove_file(entry.path()).map_err(io(&entry.path()))?;
        }
    }
    Ok(())
}

/// The end of the names of files that are not whole yet.
const UNFINISHED: &str = ".new";

/// Files that a step which was killed had begun, when nobody else is at work.
fn remove_unfinished(directory: &Path) -> Result<(), BuildError> {
    for entry in fs::read_dir(directory).map_err(io(directory))?.flatten() {
        if entry.file_name().to_string_lossy().ends_with(UNFINISHED) {
            fs::remove_file(entry.path()).map_err(io(&entry.path()))?;
        }
    }
    Ok(())
}

/// A number that two builds share only when they would write the same bytes from the same input.
fn fingerprint(builder: &Builder, job: &Job<'_>) -> u64 {
    let lines: String = job.params.iter().map(|(name, value)| format!("{name} {value}\n")).collect();
    xxh3_64(format!("{lines}{} {}", env!("CARGO_PKG_VERSION"), builder.params.seed).as_bytes())
}
