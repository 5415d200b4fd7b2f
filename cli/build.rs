//! Names the commit for `bench-gpu`, and finds what goes into the binary so that `ldd` shows the C library's own parts and nothing else: the
//! unwinder that `main.rs` links, and the C++ library that RocksDB asks for.
//!
//! The linker takes the first of a name that it meets, and where these archives are shared ones of the same names are too: so it is shown a
//! directory with the archives alone.
//!
//! Rust's standard library asks for `libgcc_s.so`, but only where the unwinder's symbols are not there yet (`--as-needed`); they are,
//! when the whole of the compiler's own `libgcc_eh.a` came first. Where there is no such archive nothing changes.

use std::{path::Path, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    name_the_commit();
    println!("cargo::rustc-check-cfg=cfg(own_unwinder)");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|v| v == value);
    if !(is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu")) || std::env::var("HOST") != std::env::var("TARGET") {
        return;
    }
    let Some(directory) = std::env::var_os("OUT_DIR").map(|out| Path::new(&out).join("archives")) else { return };
    if std::fs::create_dir_all(&directory).is_err() {
        return;
    }
    println!("cargo::rustc-link-search=native={}", directory.display());
    if link(&directory, "libgcc_eh.a") {
        println!("cargo::rustc-cfg=own_unwinder");
    }
    link(&directory, "libstdc++.a");
}

/// Makes the compiler's own archive `name` found in `directory`; false where there is none.
fn link(directory: &Path, name: &str) -> bool {
    let Ok(output) = Command::new("cc").arg(format!("-print-file-name={name}")).output() else { return false };
    let archive = String::from_utf8_lossy(&output.stdout).trim().to_string();
    let here = directory.join(name);
    // It is there from an earlier run, perhaps of another compiler.
    let _ = std::fs::remove_file(&here);
    // Where it is not found the compiler prints the bare name.
    Path::new(&archive).is_absolute() && std::os::unix::fs::symlink(&archive, &here).is_ok()
}

/// The commit of the checkout, and whether it was changed since; `unknown` outside of one.
fn name_the_commit() {
    // Where git notes every commit and checkout.
    if Path::new("../.git/logs/HEAD").exists() {
        println!("cargo::rerun-if-changed=../.git/logs/HEAD");
    }
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_string())
    };
    let commit = git(&["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]).unwrap_or_else(|| "unknown".to_string());
    println!("cargo::rustc-env=ROXANNE_COMMIT={commit}");
}
