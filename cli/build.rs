//! Names the commit for `bench-gpu`, and finds the unwinder that `main.rs` links into the binary, so that `ldd` shows the C library's own
//! parts and nothing else.
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
    let Ok(output) = Command::new("cc").arg("-print-file-name=libgcc_eh.a").output() else { return };
    let archive = String::from_utf8_lossy(&output.stdout).trim().to_string();
    // Where it is not found the compiler prints the bare name.
    if let Some(directory) = Path::new(&archive).parent().filter(|d| d.is_absolute()) {
        println!("cargo::rustc-link-search=native={}", directory.display());
        println!("cargo::rustc-cfg=own_unwinder");
    }
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
