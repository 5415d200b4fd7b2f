//! Random 4 KiB pages past the page cache, by both readers, with 1, 4 and 32 reads in flight: pages a second of this disk through this
//! code. Depth 1 is latency, depth 32 is what the device can do.
//!
//! The file lies in cargo's own directory for such things; where that is no disk (tmpfs) or has no direct reads, a line on stderr says so.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use roxanne_core::random::CounterRng;
use roxanne_engine::io::{NodeReader, PageFile, ReadError, ReaderKind, open_reader, probe_io_uring};
use std::{error::Error, io::Write, time::Duration};

const PAGE_BYTES: usize = 4096;
/// 256 MiB: more than a drive's own cache holds on most drives, and quickly written.
const PAGES: u64 = 1 << 16;
/// Reads that are timed together.
const READS: u64 = 256;

/// Pages by chance, never the same ones twice in a row: the device must not learn them.
struct Places {
    rng: CounterRng,
    drawn: u64,
}

impl Places {
    fn next(&mut self) -> u64 {
        self.drawn += 1;
        self.rng.below(self.drawn, PAGES)
    }
}

/// Reads `READS` pages with as many in flight as the reader takes; returns a sum, so that every page is looked at.
fn read_some(reader: &mut dyn NodeReader, places: &mut Places) -> Result<u64, ReadError> {
    let (mut submitted, mut done, mut sum, mut failed) = (0, 0, 0, None);
    while done < READS {
        while submitted < READS && reader.in_flight() < reader.capacity() {
            reader.submit(places.next(), submitted)?;
            submitted += 1;
        }
        done += reader.wait(&mut |completion| match completion.bytes {
            Ok(bytes) => sum += u64::from(bytes[0]),
            Err(error) => failed = Some(error),
        })? as u64;
    }
    failed.map_or(Ok(sum), Err)
}

fn measure(c: &mut Criterion) -> Result<(), Box<dyn Error>> {
    let mut file = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR"))?;
    let block: Vec<u8> = (0..256 * PAGE_BYTES).map(|i| (i % 251) as u8).collect();
    for _ in 0..PAGES / 256 {
        file.write_all(&block)?;
    }
    file.as_file().sync_all()?;
    let pages = PageFile::open(file.path(), PAGE_BYTES, 0, PAGES)?;
    if !pages.direct() {
        eprintln!("node_read: {} has no direct reads; these figures are of memory, not of a disk", file.path().display());
    }
    let mut kinds = vec![ReaderKind::Pread];
    match probe_io_uring() {
        Ok(()) => kinds.insert(0, ReaderKind::IoUring),
        Err(why) => eprintln!("node_read: io_uring is left out: {why}"),
    }
    let mut places = Places { rng: CounterRng::new(1), drawn: 0 };
    for kind in kinds {
        for depth in [1, 4, 32] {
            let mut reader = open_reader(&pages, kind, depth)?;
            let mut group = c.benchmark_group("node_read");
            group.throughput(Throughput::Elements(READS));
            let mut outcome = Ok(0);
            group.bench_function(format!("{} depth {depth}", reader.kind()), |bench| {
                bench.iter(|| outcome = outcome.clone().and_then(|_| read_some(reader.as_mut(), &mut places)));
            });
            group.finish();
            outcome?;
        }
    }
    Ok(())
}

fn bench(c: &mut Criterion) {
    measure(c).expect("a file of pages can be written and read");
}

criterion_group!(
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    targets = bench
);
criterion_main!(benches);
