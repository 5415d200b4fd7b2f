//! The kernels' own tests, in C++ (kernels/host/selftest*.cpp): single entries, lanes in many orders, addresses beyond 2^32.

use crate::{cuda_host::compile, present::present};
use std::{fs, path::Path, process::Command};

fn passes(sources: &[&str], architecture: u32) {
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernels");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cuda-host");
    if !kernels.exists() {
        return present::<()>("cuda-host", Err(format!("{} is not there", kernels.display())), |()| {});
    }
    fs::create_dir_all(&folder).unwrap();
    let program = folder.join(format!("{}-{architecture}", sources[0].replace('/', "-")));
    if let Err(reason) = compile(&kernels, sources, architecture, &[], &program) {
        return present::<()>("cuda-host", Err(reason), |()| {});
    }
    let output = Command::new(&program).output().unwrap();
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_kernel_names_a_twin_that_is_there_or_says_why_it_has_none() {
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernels");
    let Ok(files) = fs::read_dir(&kernels) else { return };
    for path in files.flatten().map(|file| file.path()).filter(|path| path.extension().is_some_and(|e| e == "cu")) {
        let text = fs::read_to_string(&path).unwrap();
        let contract: Vec<&str> = text.lines().take_while(|line| line.starts_with("//")).collect();
        let twin = contract.iter().find_map(|line| line.split_once("Twin: ")).map(|(_, twin)| twin);
        let named = twin.and_then(|twin| twin.split(';').next());
        let is_told = contract.iter().any(|line| line.contains("No twin: ")) || named.is_some_and(|name| kernels.join(name).exists());
        assert!(is_told, "{}: {named:?}", path.display());
    }
}

#[test]
fn selection_and_prune_with_dp4a() {
    passes(&["host/selftest.cpp"], 750);
}

#[test]
fn selection_and_prune_with_mma() {
    passes(&["host/selftest.cpp"], 800);
}

#[test]
fn sorts_scans_moves_and_codes() {
    passes(&["host/selftest_moves.cpp", "host/kernels.cpp"], 800);
}
