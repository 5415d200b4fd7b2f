//! Builds larger than memory: the vectors are cut into a few large shards, each is built by itself in memory, and what they know of each
//! other is joined while pages are written.
//!
//! Every vector goes to its nearest shard, where it is *core*, and to the nearest other one, where it is a *ghost*. Each shard's graph spans
//! both. A core row keeps its neighbors, ghosts among them, which are core elsewhere; a ghost's nearest edges travel home, to the *inbox*
//! of its own shard, and are appended to its row there as far as there is room. Without ghosts most of the graph cannot be reached, and
//! without the inbox recall suffers (bench/RESULTS.md, shards).
//!
//! Passes: *route* streams the input once into a file of members a shard; *shard* makes one graph after the other, in memory; *pages* streams
//! the nodes in their final order. The input is read in the first alone. The node number of a vector is (shard, page order within it), so every
//! shard owns a run of ids that is known once all rows are routed. Nothing scales with n in memory but 4 bytes a row (its id) and keys.
//!
//! A journal notes each unit when it is on disk: a run of rows, a shard, a run of pages. A build that was stopped or killed goes on from there
//! and ends with the same bytes.

mod journal;
mod pages;
mod route;
mod shard;

pub(crate) use journal::JOURNAL;

use crate::{
    BuildError, Builder, Job, Report,
    backend::{Backend, BuildCodes},
    build_nav, codebook, emit, input, output,
};
use journal::{Journal, Record, ShardDone};
use route::{NO_SHARD, Router, SAMPLE_EACH, leader_count};
use roxanne_core::{
    build_codes::BuildCodec,
    dataset::Dataset,
    format::{self, FormatError, manifest::Manifest, record::RecordLayout},
    pq::Codebook,
    random::CounterRng,
};
use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};
use xxhash_rust::xxh3::xxh3_64;

/// Input that is routed between two records of the journal.
pub(crate) const UNIT_BYTES: u64 = 32 << 20;

/// What all passes share; everything in it follows from input and parameters, so that it is computed anew when a build goes on.
struct Shared<'a> {
    builder: &'a Builder,
    job: &'a Job<'a>,
    directory: &'a Path,
    codec: BuildCodec,
    codebook: Codebook,
    router: Router,
    layout: RecordLayout,
    shards: usize,
}

impl Shared<'_> {
    fn dataset(&self) -> &Dataset {
        self.job.dataset
    }

    fn path(&self, kind: &str, shard: usize) -> PathBuf {
        self.directory.join(format!("{kind}.{shard}"))
    }

    /// Bytes of a member: row, home shard, code.
    fn member_bytes(&self) -> usize {
        8 + self.codec.stride()
    }

    /// Whether vectors are kept beside their codes.
    fn keeps_raw(&self) -> bool {
        !self.codec.codes_are_rows()
    }

    /// Bytes of a node before its last numbering: row, degree, rows of neighbors, vector.
    fn node_bytes(&self) -> usize {
        8 + 4 * self.layout.max_degree + self.layout.row_bytes
    }
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> BuildError + '_ {
    move |error| BuildError::Format(FormatError::Io { path: path.to_path_buf(), error })
}

/// Builds in shards; the files are in `job.directory`, which stays as it is when this fails.
pub(crate) fn make<B: Backend>(builder: &Builder, job: &Job<'_>, backend: &B, report: &mut Report) -> Result<Manifest, BuildError> {
    let directory = job.directory.ok_or(BuildError::RehearsalShards { shards: job.plan.shards })?;
    let (dataset, plan, watch) = (job.dataset, job.plan, job.watch);
    let seed = builder.params.seed;
    watch.phase("train", 1, "step");
    let codec = input::learn_codec(dataset, builder.metric, seed)?;
    let shards = plan.shards;
    let sample = input::sample_codes(
        dataset,
        &codec,
        builder.metric,
        CounterRng::new(seed).part(0x50A7),
        (SAMPLE_EACH * leader_count(shards)) as u64,
    )?;
    let router = Router::new(backend, &sample, shards)?;
    let (codebook, training) = codebook::train(&sample, &codec, builder.metric, plan.code_bytes, seed)?;
    drop(sample);
    report.rotated = codebook.is_rotated();
    report.pq_quality = training.candidates.iter().find(|c| c.turn == training.chosen).and_then(|c| c.quality);
    let layout = RecordLayout::new(plan.element, plan.dim, builder.params.max_degree, plan.n)
        .ok_or(BuildError::RecordTooLarge { dim: plan.dim, max_degree: builder.params.max_degree })?;
    let shared = Shared { builder, job, directory, codec, codebook, router, layout, shards };

    let (mut journal, records) = Journal::open(directory)?;
    let fingerprint = fingerprint(&shared)?;
    let begun = Record::Build { fingerprint, shards };
    match records.first() {
        None => journal.add(&begun)?,
        Some(first) if *first == begun => {}
        Some(_) => return Err(BuildError::OtherCheckpoint { path: directory.to_path_buf() }),
    }
    let routed = route(&shared, backend, &mut journal, &records)?;
    let done = (0..shards).map(|shard| {
        let known = records.iter().find_map(|record| match record {
            Record::Shard(done) if done.shard == shard => Some(*done),
            _ => None,
        });
        match known {
            Some(done) => Ok(done),
            None => shard::build(&shared, backend, shard, routed.first_id[shard], &mut journal, report),
        }
    });
    let done = done.collect::<Result<Vec<ShardDone>, _>>()?;
    report.work.fixed_edges = done.iter().map(|d| d.fixed).sum();
    report.ghosts = done.iter().map(|d| d.ghosts).sum();
    let ids = pages::ids_of_rows(&shared, &routed.first_id)?;

    // The navigation graph is of rows anywhere in the input.
    let nav_rows = CounterRng::new(seed).part(0x7A51);
    let (count, _) = crate::nav_params(plan.n);
    let nav_codes = input::sample_codes(dataset, &shared.codec, builder.metric, nav_rows, count)?;
    let rows = input::sample_rows(dataset, nav_rows, count);
    let mut nav = build_nav(nav_codes, &rows, &builder.params.graph(plan.dim)?, backend, watch)?;
    nav.ids.iter_mut().for_each(|id| *id = ids[id.index()]);
    report.backend = backend.name();

    let mut params = job.params.clone();
    params.push((output::INPUT.to_string(), crate::input_text(input::hash_of_chunks(&routed.hashes))));
    params.push(("rotated".to_string(), shared.codebook.is_rotated().to_string()));
    let generation = crate::generation_of(&params);
    let mut files = vec![pages::write(&shared, generation, &done, &routed.first_id, &ids, &mut journal, &records)?];
    watch.phase("codes and keys", 1, "step");
    let blob = |name: &str, fill: &dyn Fn(&mut format::blob::BlobWriter) -> Result<(), FormatError>| {
        // A build that went on may have begun it.
        let _ = fs::remove_file(directory.join(name));
        emit::write_blob(Some(directory), generation, name, fill)
    };
    files.push(blob(format::CODES_FILE, &|blob| {
        (0..shards).try_for_each(|shard| {
            let path = shared.path("codes", shard);
            let mut file = File::open(&path).map_err(|error| FormatError::Io { path: path.clone(), error })?;
            let mut buffer = vec![0; 1 << 20];
            loop {
                match file.read(&mut buffer).map_err(|error| FormatError::Io { path: path.clone(), error })? {
                    0 => return Ok(()),
                    read => blob.write(&buffer[..read])?,
                }
            }
        })
    })?);
    files.push(blob(format::CODEBOOK_FILE, &|blob| {
        blob.write(&shared.codec.to_bytes())?;
        blob.write(&shared.codebook.to_bytes())
    })?);
    files.push(blob(format::NAV_FILE, &|blob| blob.write(&nav.to_bytes()))?);
    let keys = &*builder.keys_of(dataset);
    files.push(blob(format::KEYS_FILE, &|blob| keys.write(blob, |row| ids[row]))?);
    watch.advance(1)?;
    Ok(Manifest { generation, n: plan.n, dim: plan.dim, element: plan.element, metric: plan.metric, params, files })
}

/// Everything but the manifest's files goes: the index is whole without them.
pub(crate) fn clean(directory: &Path, manifest: &Manifest) -> Result<(), BuildError> {
    for entry in fs::read_dir(directory).map_err(io(directory))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let kinds = ["members.", "raw.", "nodes.", "order.", "inbox.", "codes."];
        let ours = manifest.files.iter().any(|file| file.name == name);
        if !ours && (name == JOURNAL || kinds.iter().any(|kind| name.starts_with(kind))) {
            fs::remove_file(entry.path()).map_err(io(&entry.path()))?;
        }
    }
    Ok(())
}

/// A number that two builds share only when they would write the same bytes: parameters, and the content of the input by a sample.
fn fingerprint(shared: &Shared<'_>) -> Result<u64, BuildError> {
    let dataset = shared.dataset();
    let mut text: String = shared.job.params.iter().map(|(name, value)| format!("{name} {value}\n")).collect();
    text += &format!("{} {}", env!("CARGO_PKG_VERSION"), dataset.n());
    let mut row = Vec::new();
    for at in input::sample_rows(dataset, CounterRng::new(1).part(0xF1), 256) {
        dataset.read_rows(at, 1, &mut row)?;
        text += &format!(" {:016x}", xxh3_64(&row));
    }
    Ok(xxh3_64(text.as_bytes()))
}

/// What routing gave.
struct Routed {
    /// The first id of each shard, and the end: [shards + 1].
    first_id: Vec<u64>,
    /// Hashes of the chunks of the input.
    hashes: Vec<u64>,
}

/// The first pass: every row to the member files of its shards.
fn route<B: Backend>(shared: &Shared<'_>, backend: &B, journal: &mut Journal, records: &[Record]) -> Result<Routed, BuildError> {
    let (dataset, watch, stride) = (shared.dataset(), shared.job.watch, shared.codec.stride());
    let (n, member_bytes) = (dataset.n(), shared.member_bytes());
    let mut hashes: Vec<u64> = Vec::new();
    // How many vectors each shard has: cores, and all members.
    let (mut cores, mut members) = (vec![0u64; shared.shards], vec![0u64; shared.shards]);
    let mut next = 0;
    for record in records {
        if let Record::Routed { rows, members: counts, hashes: more } = record {
            let (core, all) = counts.split_at(counts.len() / 2);
            (next, cores, members) = (*rows, core.to_vec(), all.to_vec());
            hashes.extend(more);
        }
    }
    watch.phase("route", n, "rows");
    watch.advance(next)?;
    let unit = (UNIT_BYTES / (dataset.row_bytes() + stride) as u64).max(1).next_multiple_of(input::CHUNK_ROWS as u64);
    let mut raw = Vec::new();
    while next < n {
        let count = unit.min(n - next) as usize;
        let mut codes = BuildCodes { metric: shared.codec.build_metric(), stride, bytes: vec![0; count * stride] };
        let chunk_hashes = input::encode_range(dataset, &shared.codec, shared.builder.metric, next, &mut codes.bytes, &|_| Ok(()))?;
        let shards = shared.router.shards(backend, &codes)?;
        let mut files: Vec<(Vec<u8>, Vec<u8>)> = vec![Default::default(); shared.shards];
        let (before_members, before_cores) = (members.clone(), cores.clone());
        for (at, &(own, other)) in shards.iter().enumerate() {
            if shared.keeps_raw() {
                if at % input::CHUNK_ROWS == 0 {
                    dataset.read_rows(next + at as u64, input::CHUNK_ROWS.min(count - at), &mut raw)?;
                }
                let (row, width) = (at % input::CHUNK_ROWS, dataset.row_bytes());
                files[own as usize].1.extend_from_slice(&raw[row * width..][..width]);
            }
            cores[own as usize] += 1;
            for shard in [own, other].into_iter().filter(|&shard| shard != NO_SHARD) {
                let file = &mut files[shard as usize].0;
                file.extend_from_slice(&((next + at as u64) as u32).to_le_bytes());
                file.extend_from_slice(&own.to_le_bytes());
                file.extend_from_slice(codes.row(at as u32));
                members[shard as usize] += 1;
            }
        }
        for (shard, (bytes, raw)) in files.iter().enumerate() {
            append(&shared.path("members", shard), before_members[shard] * member_bytes as u64, bytes)?;
            if shared.keeps_raw() {
                append(&shared.path("raw", shard), before_cores[shard] * dataset.row_bytes() as u64, raw)?;
            }
        }
        next += count as u64;
        journal.add(&Record::Routed { rows: next, members: [cores.as_slice(), &members].concat(), hashes: chunk_hashes.clone() })?;
        hashes.extend(chunk_hashes);
        watch.advance(count as u64)?;
    }
    let most = members.iter().copied().max().unwrap_or(0);
    if most > shared.job.plan.shard_members {
        return Err(BuildError::ShardOutgrown { members: most, planned: shared.job.plan.shard_members, shards: shared.shards });
    }
    let mut first_id = vec![0];
    cores.iter().for_each(|core| first_id.push(first_id[first_id.len() - 1] + core));
    Ok(Routed { first_id, hashes })
}

/// Writes `bytes` at `offset`, which is the end of what counts, and syncs.
fn append(path: &Path, offset: u64, bytes: &[u8]) -> Result<(), BuildError> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(io(path))?;
    file.set_len(offset).map_err(io(path))?;
    file.seek(SeekFrom::Start(offset)).map_err(io(path))?;
    file.write_all(bytes).map_err(io(path))?;
    file.sync_data().map_err(io(path))
}
