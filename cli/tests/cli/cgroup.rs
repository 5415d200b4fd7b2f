//! The binary under a memory limit that the kernel holds it to.

use crate::shell::{ROXANNE, Run};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A memory cgroup of its own that goes away, where the system lets us make one.
pub(crate) struct Cgroup(PathBuf);

impl Cgroup {
    pub(crate) fn new(name: &str, bytes: u64) -> Option<Cgroup> {
        let (v1, v2) = (Path::new("/sys/fs/cgroup/memory"), Path::new("/sys/fs/cgroup"));
        let (root, limit) = if v1.is_dir() { (v1, "memory.limit_in_bytes") } else { (v2, "memory.max") };
        let path = root.join(format!("roxanne-test-{name}-{}", std::process::id()));
        fs::create_dir(&path).ok()?;
        let cgroup = Cgroup(path);
        fs::write(cgroup.0.join(limit), bytes.to_string()).ok()?;
        Some(cgroup)
    }

    /// Runs the binary inside.
    pub(crate) fn roxanne(&self, args: &[&str]) -> Run {
        let script = format!("echo $$ > {}/cgroup.procs && exec \"$0\" \"$@\"", self.0.display());
        Run::of(Command::new("sh").args(["-c", &script, ROXANNE]).args(args).env("NODEVICE_SELECT", "1").output().expect("sh runs"))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}
