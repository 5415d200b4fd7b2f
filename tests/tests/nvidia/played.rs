//! A test's own process, in which the fake libcuda (`fake.c`) is the one that is found.
//!
//! What a library plays and where it is found must be known before a process starts. So a test runs its own binary again, for itself alone,
//! with an environment that says both; in there its body runs.

use std::{
    env, fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
};

const SOURCE: &str = include_str!("fake.c");
/// Set in the process in which bodies run.
const WITHIN: &str = "FAKE_CUDA";
/// What the fake says at the end of a process that gave all back and did nothing forbidden.
const CLEAN: &str = "fake libcuda: left contexts 0, memory 0, pinned 0, streams 0, events 0, modules 0, forbidden nothing";

/// Runs `body` where the fake plays by `settings`, which `fake.c` lists; nothing may be left behind.
pub(crate) fn with_fake<F: FnOnce()>(settings: &[(&str, &str)], body: F) {
    if let Some(told) = in_its_process(fake_folder, settings, body) {
        let last = told.lines().rfind(|line| line.starts_with("fake libcuda:"));
        assert_eq!(last, Some(CLEAN), "{told}");
    }
}

/// Runs `body` where no libcuda can be loaded, whatever the machine has: files that are no libraries stand before it.
pub(crate) fn without_libcuda<F: FnOnce()>(body: F) {
    in_its_process(empty_folder, &[], body);
}

/// In the test itself: all that its process said, or nothing when it cannot be had. In that process: nothing, after `body`.
fn in_its_process<F: FnOnce()>(folder: fn() -> Result<PathBuf, String>, settings: &[(&str, &str)], body: F) -> Option<String> {
    if env::var_os(WITHIN).is_some() {
        body();
        return None;
    }
    let folder = match folder() {
        Ok(folder) => folder,
        Err(reason) => {
            println!("SKIPPED nvidia: {reason}");
            return None;
        }
    };
    let before = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let folders = env::join_paths([folder].into_iter().chain(env::split_paths(&before))).expect("folders without a colon");
    let mut command = Command::new(env::current_exe().expect("the path of this program"));
    command.args([test_around::<F>(), "--exact", "--nocapture"]);
    command.env(WITHIN, "").env("LD_LIBRARY_PATH", folders).envs(settings.iter().copied());
    let output = command.output().expect("this program, run again");
    let told = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    // Of no test at all, a test program says that it went well.
    assert!(output.status.success() && told.contains("test result: ok. 1 passed"), "{told}");
    Some(told)
}

/// The name of the test that a closure stands in: `nvidia::name::{{closure}}` without its ends.
fn test_around<F>() -> &'static str {
    let name = std::any::type_name::<F>();
    let name = name.strip_suffix("::{{closure}}").unwrap_or(name);
    name.split_once("::").map_or(name, |(_, name)| name)
}

/// The folder of the fake, which is compiled once for each state of its source.
fn fake_folder() -> Result<PathBuf, String> {
    let mut hasher = DefaultHasher::new();
    SOURCE.hash(&mut hasher);
    let folder = own_folder(&format!("{:016x}", hasher.finish()))?;
    // Tests are processes of their own: the first one compiles, the others wait.
    let lock = fs::File::create(folder.join("lock")).map_err(|e| e.to_string())?;
    lock.lock().map_err(|e| e.to_string())?;
    let library = folder.join("libcuda.so");
    if !library.exists() {
        let unfinished = folder.join("part");
        compile(&unfinished)?;
        fs::rename(&unfinished, &library).map_err(|e| e.to_string())?;
    }
    Ok(folder)
}

fn compile(library: &Path) -> Result<(), String> {
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".into());
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nvidia/fake.c");
    let mut command = Command::new(&compiler);
    // Like NVIDIA's, it stays until the process ends, also when it is opened to see whether it is there and closed again.
    command.args(["-std=c11", "-O1", "-shared", "-fPIC", "-Wl,-z,nodelete", "-o"]).arg(library).arg(source);
    let output = command.output().map_err(|e| format!("no C compiler ({compiler}): {e}"))?;
    if output.status.success() { Ok(()) } else { panic!("fake.c does not compile:\n{}", String::from_utf8_lossy(&output.stderr)) }
}

/// A folder with an empty file under each name that libcuda has.
fn empty_folder() -> Result<PathBuf, String> {
    let folder = own_folder("none")?;
    for name in ["libcuda.so", "libcuda.so.1"] {
        fs::write(folder.join(name), "").map_err(|e| e.to_string())?;
    }
    Ok(folder)
}

fn own_folder(name: &str) -> Result<PathBuf, String> {
    if !cfg!(target_os = "linux") {
        return Err("libraries are found through LD_LIBRARY_PATH on Linux alone".into());
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fake-libcuda").join(name);
    fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
    Ok(folder)
}
