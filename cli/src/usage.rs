//! What a command has in use: memory, bytes on disk, device memory, and what it has read and written; beside what it was allowed.

use crate::text;
use roxanne_core::Budget;
use serde_json::{Value, json};
use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Memory of this process that is resident now; 0 where the kernel does not tell.
pub(crate) fn rss_bytes() -> u64 {
    kilobytes(&fs::read_to_string("/proc/self/status").unwrap_or_default(), "VmRSS:")
}

/// Processor time of this process so far, user and system, in microseconds.
pub(crate) fn cpu_micros() -> u64 {
    let clock = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    clock.tv_sec.unsigned_abs() * 1_000_000 + clock.tv_nsec.unsigned_abs() / 1000
}

/// The value of a `name  number kB` line of a /proc file, in bytes; 0 without one.
pub(crate) fn kilobytes(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|l| l.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).map_or(0, |kb| kb.saturating_mul(1024))
}

/// Bytes that this process has read and written so far, from caches and disks alike.
pub(crate) fn traffic_bytes() -> (u64, u64) {
    let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
    let value = |name: &str| io.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0);
    (value("rchar:"), value("wchar:"))
}

/// Where to look, and what is allowed.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    pub(crate) budget: Budget,
    /// Where the command writes.
    pub(crate) directory: Option<PathBuf>,
    /// What it holds of a device's memory.
    pub(crate) device_bytes: Option<u64>,
}

/// What is in use at one time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Usage {
    pub(crate) ram: u64,
    pub(crate) disk: Option<u64>,
    pub(crate) vram: Option<u64>,
}

impl Meter {
    pub(crate) fn now(&self) -> Usage {
        Usage { ram: rss_bytes(), disk: self.directory.as_deref().map(bytes_in), vram: self.device_bytes }
    }

    /// Names, what is in use, and what is allowed where anything is.
    fn parts(&self, usage: &Usage) -> [(&'static str, Option<u64>, Option<u64>); 3] {
        let limit = |bytes: u64| Some(bytes).filter(|&bytes| bytes != u64::MAX);
        let Budget { ram, vram, disk } = self.budget;
        [("ram", Some(usage.ram), limit(ram)), ("vram", usage.vram, limit(vram)), ("disk", usage.disk, limit(disk))]
    }

    /// `RAM 1.2 GiB of 4.0 GiB, disk 310.0 MiB`.
    pub(crate) fn text(&self, usage: &Usage) -> String {
        let part = |(name, used, allowed): (&str, Option<u64>, Option<u64>)| {
            let name = if name == "disk" { name.to_string() } else { name.to_uppercase() };
            let of = allowed.map_or(String::new(), |allowed| format!(" of {}", text::bytes(allowed)));
            Some(format!("{name} {}{of}", text::bytes(used?)))
        };
        self.parts(usage).into_iter().filter_map(part).collect::<Vec<_>>().join(", ")
    }

    /// `ram_bytes`, `ram_limit_bytes` and so on, as far as they are known.
    pub(crate) fn json(&self, usage: &Usage) -> Vec<(String, Value)> {
        let part = |(name, used, allowed): (&str, Option<u64>, Option<u64>)| {
            let of = |key: &str, bytes: Option<u64>| bytes.map(|bytes| (format!("{name}_{key}"), json!(bytes)));
            [of("bytes", used), of("limit_bytes", allowed)]
        };
        self.parts(usage).into_iter().flat_map(part).flatten().collect()
    }
}

/// Room that the files of a directory take on their disk; what goes away meanwhile takes none.
fn bytes_in(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|file| file.blocks() * 512).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kilobytes_are_found_by_name() {
        let text = "VmHWM:\t  20 kB\nVmRSS:\t    7 kB\nThreads: 3\n";
        assert_eq!((kilobytes(text, "VmRSS:"), kilobytes(text, "Threads:"), kilobytes(text, "None:")), (7168, 0, 0));
    }

    #[test]
    fn what_is_in_use_stands_beside_what_is_allowed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), vec![1; 300_000]).unwrap();
        let budget = Budget { ram: 4 << 30, ..Budget::default() };
        let mut meter = Meter { budget, directory: Some(dir.path().to_path_buf()), device_bytes: None };
        assert!(meter.now().ram > 0 && meter.now().disk >= Some(300_000));
        let usage = Usage { ram: 1 << 30, disk: Some(2 << 20), vram: None };
        assert_eq!(meter.text(&usage), "RAM 1.0 GiB of 4.0 GiB, disk 2.0 MiB");
        let keys = |meter: &Meter, usage| meter.json(usage).into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        assert_eq!(keys(&meter, &usage), ["ram_bytes", "ram_limit_bytes", "disk_bytes"]);
        meter.budget.vram = 1 << 34;
        let usage = Usage { vram: Some(1 << 33), ..usage };
        assert!(meter.text(&usage).contains("VRAM 8.0 GiB of 16.0 GiB"));
        meter.directory = Some("nowhere".into());
        assert_eq!(meter.now().disk, Some(0));
    }
}
