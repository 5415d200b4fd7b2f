//! `doctor`: what this machine offers to a build and to a search, measured where a measurement says more than a name.

use super::{print_json, thread_count};
use crate::{failure::Failure, interrupt, text, usage::kilobytes};
use roxanne_builder::device::{Found, probe};
use roxanne_core::{ErrorClass, random::CounterRng, simd::SimdLevel};
use roxanne_engine::io::{PageFile, ReaderKind, drop_page_cache, open_reader, probe_io_uring};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    io::{self, Write},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process,
    sync::Arc,
    time::{Duration, Instant},
};

const PAGE_BYTES: usize = 4096;
const FILE_BYTES: usize = 64 << 20;
const PAGES: u64 = (FILE_BYTES / PAGE_BYTES) as u64;
/// Time of one measurement.
const MEASURE: Duration = Duration::from_millis(900);

/// Show what this machine offers
#[derive(clap::Args)]
#[command(after_help = "Example:
  roxanne doctor --disk /data

Writes a file of 64 MiB into the directory, nameless and gone at the end, and reads pages of it at random for two seconds.")]
pub(crate) struct Args {
    /// Measure the disk of this directory
    #[arg(long, value_name = "DIR", default_value = ".")]
    disk: PathBuf,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

/// What random reads gave.
struct Disk {
    direct: bool,
    reader: &'static str,
    /// Reads a second, one at a time and 64 at a time.
    depth_1: f64,
    depth_64: f64,
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    interrupt::leaves_at_once();
    if !args.disk.is_dir() {
        return Err(Failure::input(format!("{}: not a directory; give one on the disk that indexes will lie on", args.disk.display())));
    }
    let disk = measure(&args.disk)?;
    let memory = read("/proc/meminfo");
    let (ram, free) = (kilobytes(&memory, "MemTotal:"), kilobytes(&memory, "MemAvailable:"));
    let cgroup = read("/sys/fs/cgroup/memory.max").trim().parse::<u64>().ok();
    let (cpu, threads, uring) = (cpu_name(), thread_count(0), probe_io_uring());
    let levels: Vec<&str> = SimdLevel::available().iter().map(|level| level.name()).collect();
    let (huge_pages, gpus) = (huge_pages(), probe());
    if args.json {
        let value = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "cpu": {"name": cpu, "threads": threads, "simd": SimdLevel::detected().name(), "simd_available": levels},
            "ram": {"total_bytes": ram, "available_bytes": free, "cgroup_limit_bytes": cgroup, "huge_pages": huge_pages},
            "io_uring": {"available": uring.is_ok(), "reason": uring.err()},
            "disk": disk_json(&args.disk, &disk),
            "gpus": gpus.iter().map(gpu_json).collect::<Vec<_>>(),
        });
        return Ok(print_json(out, &value)?);
    }
    let limit = cgroup.map_or(String::new(), |bytes| format!(", limited to {} by its cgroup", text::bytes(bytes)));
    let way = if disk.direct { "O_DIRECT" } else { "no O_DIRECT here, through the page cache: figures are of RAM, not of the disk" };
    let reads = |rate: f64| format!("{} random 4 KiB reads/s", text::rate(rate));
    let mut lines = vec![
        ("version", env!("CARGO_PKG_VERSION").to_string()),
        ("cpu", format!("{cpu}, {threads} threads")),
        ("simd", format!("{} (of {})", SimdLevel::detected(), levels.join(", "))),
        ("ram", format!("{}, {} available{limit}", text::bytes(ram), text::bytes(free))),
        ("huge pages", huge_pages),
        ("io_uring", uring.map_or_else(|why| format!("no: {why}"), |()| "yes".to_string())),
        ("disk", format!("{}, {way}, by {}", args.disk.display(), disk.reader)),
        ("  depth 1", reads(disk.depth_1)),
        ("  depth 64", reads(disk.depth_64)),
    ];
    lines.extend(gpus.iter().map(|found| ("gpu", gpu_text(found))));
    Ok(text::pairs(out, &lines)?)
}

fn disk_json(directory: &Path, disk: &Disk) -> Value {
    json!({
        "path": directory.display().to_string(), "o_direct": disk.direct, "reader": disk.reader,
        "reads_per_second_depth_1": disk.depth_1, "reads_per_second_depth_64": disk.depth_64,
    })
}

fn gpu_json(found: &Found) -> Value {
    json!({
        "device": found.device.to_string(), "available": found.what.is_ok(), "name": found.what.as_ref().ok(),
        "reason": found.what.as_ref().err(), "memory_bytes": found.memory_bytes,
    })
}

/// What to write after `--device`, and what answers to it.
fn gpu_text(found: &Found) -> String {
    let memory = if found.memory_bytes > 0 { format!(", {}", text::bytes(found.memory_bytes)) } else { String::new() };
    match &found.what {
        Ok(what) => format!("{}: {what}{memory}", found.device),
        Err(why) => format!("{}: no: {why}", found.device),
    }
}

/// A small file of the kernel's; empty where there is none.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn cpu_name() -> String {
    let text = read("/proc/cpuinfo");
    let line = text.lines().find(|line| line.starts_with("model name"));
    line.and_then(|l| l.split_once(':')).map_or_else(|| std::env::consts::ARCH.to_string(), |(_, name)| name.trim().to_string())
}

fn huge_pages() -> String {
    let modes = read("/sys/kernel/mm/transparent_hugepage/enabled");
    let chosen = modes.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or("unknown", |(mode, _)| mode);
    let reserved = read("/proc/meminfo").lines().find_map(|l| l.strip_prefix("HugePages_Total:")?.trim().parse::<u64>().ok()).unwrap_or(0);
    format!("transparent: {chosen}; reserved: {reserved}")
}

/// Writes a nameless file into `directory` and reads it at random.
fn measure(directory: &Path) -> Result<Disk, Failure> {
    let file = nameless(directory).map_err(Failure::io(directory, "write a file of 64 MiB into it"))?;
    // The way to open, with other flags, a file that has no name any more.
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    // Where the cache cannot be dropped the reads are direct or said not to be.
    let _ = drop_page_cache(&path);
    let device = |error: &dyn std::fmt::Display| Failure::new(ErrorClass::Device, format!("{}: {error}", directory.display()));
    let pages = PageFile::open(&path, PAGE_BYTES, 0, PAGES).map_err(|e| device(&e))?;
    let (depth_1, reader) = reads_per_second(&pages, 1).map_err(|e| device(&e))?;
    let (depth_64, _) = reads_per_second(&pages, 64).map_err(|e| device(&e))?;
    Ok(Disk { direct: pages.direct(), reader, depth_1, depth_64 })
}

/// A file of noise, which no filesystem can compress, without a name from the start, so that nothing can be left behind.
fn nameless(directory: &Path) -> io::Result<File> {
    let path = directory.join(format!(".roxanne-doctor.{}", process::id()));
    let mut file = fs::OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    fs::remove_file(&path)?;
    let noise = CounterRng::new(1);
    let mut chunk = Vec::with_capacity(1 << 20);
    for start in (0..FILE_BYTES as u64 / 8).step_by(1 << 17) {
        chunk.clear();
        (start..start + (1 << 17)).for_each(|at| chunk.extend_from_slice(&noise.at(at).to_le_bytes()));
        file.write_all(&chunk)?;
    }
    file.sync_all()?;
    Ok(file)
}

/// Keeps `depth` random reads in flight for a while; also tells how it reads.
fn reads_per_second(pages: &Arc<PageFile>, depth: usize) -> Result<(f64, &'static str), roxanne_engine::io::ReadError> {
    let mut reader = open_reader(pages, ReaderKind::Auto, depth)?;
    let random = CounterRng::new(depth as u64);
    let (start, mut submitted, mut ended) = (Instant::now(), 0, 0);
    while start.elapsed() < MEASURE {
        while reader.in_flight() < depth {
            reader.submit(random.below(submitted, PAGES), submitted)?;
            submitted += 1;
        }
        let mut failed = None;
        ended += reader.wait(&mut |read| failed = read.bytes.err())?;
        if let Some(error) = failed {
            return Err(error);
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    while reader.in_flight() > 0 {
        reader.wait(&mut |_| {})?;
    }
    Ok((ended as f64 / seconds, reader.kind()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let file = nameless(dir.path()).unwrap();
        assert_eq!(file.metadata().unwrap().len(), FILE_BYTES as u64);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
