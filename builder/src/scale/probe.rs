//! A few seconds of measuring: a sample of the input built on the device that was asked for, and a file written and read past the cache.

use super::Rates;
use crate::{BuildError, BuildParams, Builder, Device, Report, progress::Observer};
use roxanne_core::{
    dataset::{Dataset, Run},
    format::FormatError,
    metric::Metric,
    random::CounterRng,
};
use rustix::fs::OFlags;
use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::Arc,
    time::Instant,
};

/// Vectors of the first sample: of 128 coordinates, and the least of wider ones.
const SAMPLE: u64 = 200_000;
const LEAST: u64 = 20_000;
/// A sample that takes less is too small to tell what a large build costs (a GPU waits for launches there), and another of so many times the rows is
/// taken.
const ENOUGH_SECONDS: f64 = 1.5;
const MORE: u64 = 16;
/// Runs of rows that the sample is made of.
const RUNS: u64 = 64;
/// Bytes of the file, and of a write.
const FILE_BYTES: usize = 256 << 20;
const WRITE_BYTES: usize = 4 << 20;
/// What O_DIRECT wants addresses and lengths to be multiples of, at most.
const ALIGNED: usize = 4096;

/// How to build, and where.
pub struct Probe<'a> {
    /// What near means.
    pub metric: Metric,
    /// What shapes the index.
    pub params: &'a BuildParams,
    /// Where to compute.
    pub device: &'a Device,
    /// Threads; 0 is one a core.
    pub threads: usize,
    /// On the disk that the index will be on.
    pub directory: &'a Path,
    /// Hears of progress.
    pub observer: Arc<dyn Observer>,
}

impl Probe<'_> {
    /// Measures with a sample of the vectors that `open` gives, each time it is called.
    ///
    /// # Errors
    /// What a build, and `open`, say; a directory that no file can be written to.
    pub fn rates<E: From<BuildError>>(&self, open: impl Fn() -> Result<Dataset, E>) -> Result<Rates, E> {
        let dataset = open()?;
        let (n, dim) = (dataset.n(), dataset.dim());
        let rows = (SAMPLE * 128 / dataset.row_bytes().max(128) as u64).max(LEAST);
        let mut report = self.build(spread(dataset, rows)?)?;
        if report.seconds < ENOUGH_SECONDS && n > rows {
            report = self.build(spread(open()?, MORE * rows)?)?;
        }
        self.observer.phase("disk", 1, "step");
        let io = |error| BuildError::from(FormatError::Io { path: self.directory.to_path_buf(), error });
        let (written, read) = disk(self.directory).map_err(io)?;
        let partition = self.params.graph(dim)?.partition;
        Ok(Rates::of(&report, &partition, written, read))
    }

    /// In one shard: what a shard costs is what a build costs.
    fn build(&self, sample: Dataset) -> Result<Report, BuildError> {
        let builder = Builder::new(self.metric).params(self.params.clone()).device(self.device.clone()).threads(self.threads);
        builder.shards(1).observer(self.observer.clone()).dataset(sample).rehearse(None)
    }
}

/// So many rows from everywhere in `dataset`: its beginning may be of one kind.
fn spread(dataset: Dataset, rows: u64) -> Result<Dataset, BuildError> {
    let n = dataset.n();
    if n <= rows {
        return Ok(dataset);
    }
    let runs: Vec<Run> = (0..RUNS)
        .map(|run| Run { part: 0, start: (u128::from(n) * u128::from(run) / u128::from(RUNS)) as u64, count: rows / RUNS })
        .collect();
    Ok(Dataset::of_parts(vec![dataset], &runs)?)
}

/// Bytes a second that a new file in `directory` is written and synced with, and read again.
fn disk(directory: &Path) -> io::Result<(f64, f64)> {
    // File systems in memory know no O_DIRECT; there the figures are of memory, as a build's would be.
    let mut file = nameless(directory, OFlags::DIRECT).or_else(|_| nameless(directory, OFlags::empty()))?;
    let mut buffer = vec![0u8; WRITE_BYTES + ALIGNED];
    let start = buffer.as_ptr().align_offset(ALIGNED);
    let chunk = &mut buffer[start..start + WRITE_BYTES];
    // Noise, which nothing on the way can compress.
    let noise = CounterRng::new(1);
    chunk.chunks_exact_mut(8).zip(0..).for_each(|(bytes, at)| bytes.copy_from_slice(&noise.at(at).to_le_bytes()));
    let begun = Instant::now();
    for _ in 0..FILE_BYTES / WRITE_BYTES {
        file.write_all(chunk)?;
    }
    file.sync_all()?;
    let written = FILE_BYTES as f64 / begun.elapsed().as_secs_f64();
    file.seek(SeekFrom::Start(0))?;
    let begun = Instant::now();
    for _ in 0..FILE_BYTES / WRITE_BYTES {
        file.read_exact(chunk)?;
    }
    Ok((written, FILE_BYTES as f64 / begun.elapsed().as_secs_f64()))
}

/// A new file that has no name any more, so that nothing can be left behind.
fn nameless(directory: &Path, flags: OFlags) -> io::Result<File> {
    let path = directory.join(format!(".roxanne-probe.{}", std::process::id()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).custom_flags(flags.bits() as i32).open(&path);
    // Where it could not be opened as asked it may be there all the same.
    let _ = std::fs::remove_file(&path);
    file
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    #[test]
    fn a_probe_measures_every_rate_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let params = BuildParams::default();
        let probe = Probe {
            metric: Metric::L2,
            params: &params,
            device: &Device::Cpu,
            threads: 0,
            directory: dir.path(),
            observer: Arc::new(Silent),
        };
        let open = |spec: &str| Dataset::open(spec).map_err(BuildError::from);
        let rates = probe.rates(|| open("synth:n=3000,dim=16,clusters=8")).unwrap();
        let Rates { read, train, leaf_pair, leaf_pairs, merge, prune, order, write, byte_written, byte_read, .. } = rates;
        for rate in [read, train, leaf_pair, leaf_pairs, merge, prune, order, write, byte_written, byte_read, rates.unevenness] {
            assert!(rate > 0.0 && rate.is_finite(), "{rates:?}");
        }
        assert_eq!((rates.vectors, std::fs::read_dir(dir.path()).unwrap().count()), (3000, 0));
        assert!(probe.rates(|| open("synth:n=3,dim=2")).is_ok());
        let absent = Probe { directory: Path::new("nowhere"), ..probe };
        assert!(absent.rates(|| open("synth:n=300,dim=2,clusters=2")).unwrap_err().to_string().contains("nowhere"));
    }

    #[test]
    fn a_sample_is_of_rows_from_everywhere() {
        let sample = spread(Dataset::open("synth:n=5000000000,dim=128,type=u8,clusters=2").unwrap(), 200_000).unwrap();
        assert_eq!((sample.n(), sample.place(0).1), (200_000, 0));
        assert!(sample.place(199_999).1 > 4_900_000_000);
    }
}
