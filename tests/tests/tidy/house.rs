//! The rules of the house that are not arrows: lints, `unsafe`, twins of kernels, words and sizes.

use crate::apart::listed;
use crate::arrows::members;
use crate::rust::tokens;
use crate::tree::{MAX_FILE_BYTES, Tree};
use std::collections::BTreeSet;

/// Where `unsafe` may stand, by the beginning of the path, and why.
const UNSAFE_PLACES: &[(&str, &str)] = &[
    ("core/src/distance", "SIMD intrinsics, chosen at run time"),
    ("core/src/tile", "SIMD intrinsics, chosen at run time"),
    ("core/src/pq", "SIMD intrinsics and prefetch, chosen at run time"),
    ("builder/src/backend/cuda", "calls of the NVIDIA driver"),
    ("tests/tests/conformance/cuda_host.rs", "calls of kernels that were compiled for the host"),
    ("core/src/huge.rs", "advice to the kernel about memory that the array owns"),
    ("cli/src/main.rs", "an empty extern block that links the unwinder: no code"),
    ("cli/src/commands/serve.rs", "a number of the C library's allocator"),
    ("engine/src/io", "buffers that the kernel writes into, and its rings"),
    ("engine/src/live", "codes of slots that nobody can name"),
    ("engine/src/collection/merge", "who fills those slots"),
    ("engine/src/collection/handover.rs", "memory that changes its place under those who read it"),
    ("bench/peers/rust/stores/src/environment.rs", "opening a peer's database, which maps a file"),
];

/// The stages that run on a device: each has a kernel and a shader of one stem.
const STAGES: &[&str] = &["assign", "leaf_knn", "merge", "prune", "encode"];

/// What CUDA keeps on its device besides: kernels without a twin.
const CUDA_ALONE: &[&str] = &["norms", "scan", "sort", "groups", "checks", "roof"];

/// Words that no file keeps, and why. In two halves, so that this file passes its own judgement.
const FORBIDDEN: &[(&str, &str, &str)] = &[
    ("/wo", "rk/", "a path of one machine"),
    ("/tm", "p/", "a path of one machine; tests use the crate tempfile"),
    ("TO", "DO", "unfinished: an issue, or the status table of README.md, is the place"),
    ("System", "Time", "the wall clock, which jumps; `Instant` does not"),
    ("FIX", "ME", "unfinished: an issue, or the status table of README.md, is the place"),
];

/// Words that a file may keep all the same: one tells people what day it is.
const MAY_SAY: &[(&str, &str)] = &[("server/src/files.rs", concat!("System", "Time"))];

/// Files that may say how things are run, with any path.
const MAY_NAME_PATHS: &[&str] = &["README.md", "ARCHITECTURE.md", "bench/"];

/// Every crate opts into the workspace's lints and is listed; every crate root opens with its idea and allows nothing for all below it.
pub(crate) fn lints(tree: &Tree) -> Vec<String> {
    let (members, mut complaints) = members(tree);
    for member in &members {
        if member.manifest.get("lints").and_then(|l| l.get("workspace")?.as_bool()) != Some(true) {
            complaints.push(format!("{}: add `[lints] workspace = true`", member.path));
        }
        if !listed(tree, member.workspace).iter().any(|folder| folder == member.folder) {
            complaints.push(format!("{}: not in the members of its workspace's Cargo.toml", member.path));
        }
        let roots = ["lib.rs", "main.rs"].map(|file| format!("{}/src/{file}", member.folder));
        for path in roots {
            let Some(text) = tree.0.get(&path).and_then(|file| file.text.as_deref()) else { continue };
            if !text.starts_with("//!") {
                complaints.push(format!("{path}: a crate root opens with its idea (`//!`)"));
            }
            let code = tokens(text);
            let allows = code
                .windows(4)
                .find(|w| matches!([w[0].text, w[1].text, w[2].text], ["#", "!", "["]) && matches!(w[3].text, "allow" | "expect"));
            if let Some(allowing) = allows {
                complaints.push(format!("{path}:{}: a crate root allows nothing; allow it where it is needed", allowing[0].line));
            }
        }
    }
    complaints
}

/// `unsafe`, and leave for it, outside its places.
pub(crate) fn unsafe_places(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, text) in tree.rust().filter(|(path, _)| !UNSAFE_PLACES.iter().any(|(place, _)| path.starts_with(place))) {
        let found = tokens(text).into_iter().find(|t| matches!(t.text, "unsafe" | "unsafe_code"));
        complaints.extend(found.map(|t| format!("{path}:{}: `{}` lives only in the places of UNSAFE_PLACES", t.line, t.text)));
    }
    complaints
}

/// Kernels without their shader, shaders without their kernel, and both that are no stage.
pub(crate) fn twins(tree: &Tree) -> Vec<String> {
    let stems = |folder: &str, extension: &str| -> BTreeSet<String> {
        tree.0.keys().filter_map(|path| path.strip_prefix(folder)?.strip_suffix(extension)).map(String::from).collect()
    };
    let (kernels, shaders) = (stems("kernels/", ".cu"), stems("shaders/", ".wgsl"));
    let kernels: BTreeSet<String> = kernels.into_iter().filter(|stem| !CUDA_ALONE.contains(&stem.as_str())).collect();
    let unknown = kernels.union(&shaders).filter(|stem| !STAGES.contains(&stem.as_str()));
    let mut complaints: Vec<String> = unknown
        .map(|stem| {
            format!("{stem}: no stage of that name; the stages are {}, and CUDA's alone {}", STAGES.join(", "), CUDA_ALONE.join(", "))
        })
        .collect();
    complaints.extend(kernels.difference(&shaders).map(|stem| format!("kernels/{stem}.cu: has no twin shaders/{stem}.wgsl")));
    complaints.extend(shaders.difference(&kernels).map(|stem| format!("shaders/{stem}.wgsl: has no twin kernels/{stem}.cu")));
    complaints
}

/// Lines with a forbidden word.
pub(crate) fn words(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, text) in tree.texts().filter(|(path, _)| !MAY_NAME_PATHS.iter().any(|free| path.starts_with(free))) {
        for (number, line) in (1..).zip(text.lines()) {
            let found = FORBIDDEN.iter().filter(|(a, b, _)| {
                let word = format!("{a}{b}");
                holds(line, &word) && !MAY_SAY.contains(&(path, word.as_str()))
            });
            complaints.extend(found.map(|(a, b, why)| format!("{path}:{number}: \"{a}{b}\" is {why}")));
        }
    }
    complaints
}

/// Whether `word` begins somewhere in `line`: not as the tail of a longer word or path.
fn holds(line: &str, word: &str) -> bool {
    let inner = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '}');
    line.match_indices(word).any(|(at, _)| !line[..at].ends_with(inner))
}

/// A missing lock, and files that are too big to be in git.
pub(crate) fn files(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    if !tree.0.contains_key("Cargo.lock") {
        complaints.push("Cargo.lock is missing: the versions that were tested are the ones that are built".to_string());
    }
    let big = tree.0.iter().filter(|(_, file)| file.bytes > MAX_FILE_BYTES);
    complaints.extend(big.map(|(path, file)| format!("{path}: {} bytes; at most {MAX_FILE_BYTES} are kept in git", file.bytes)));
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::File;

    const ROOT: &str = "[workspace]\nmembers = [\"core\"]";
    const MANIFEST: &str = "[package]\nname = \"roxanne-core\"\n[lints]\nworkspace = true";
    const NONE: [&str; 0] = [];

    fn lints_of(root: &str, manifest: &str, lib: &str) -> Vec<String> {
        lints(&Tree::of(&[("Cargo.toml", root), ("core/Cargo.toml", manifest), ("core/src/lib.rs", lib)]))
    }

    #[test]
    fn a_crate_obeys_the_lints_of_the_workspace() {
        assert_eq!(lints_of(ROOT, MANIFEST, "//! Words.\n#![deny(missing_docs)]"), NONE);
        assert!(lints_of(ROOT, "[package]\nname = \"roxanne-core\"", "//!")[0].contains("[lints]"));
        assert!(lints_of(ROOT, &MANIFEST.replace("true", "false"), "//!")[0].contains("[lints]"));
        assert!(lints_of("[workspace]\nmembers = []", MANIFEST, "//!")[0].contains("members"));
    }

    #[test]
    fn a_crate_root_opens_with_its_idea_and_allows_nothing() {
        assert!(lints_of(ROOT, MANIFEST, "pub mod id;")[0].contains("core/src/lib.rs: a crate root opens"));
        assert!(lints_of(ROOT, MANIFEST, "//! Words.\n#![allow(dead_code)]")[0].contains("core/src/lib.rs:2: a crate root allows"));
    }

    #[test]
    fn unsafe_stays_in_its_places() {
        let judged = |path, text| unsafe_places(&Tree::of(&[(path, text)]));
        assert_eq!(judged("core/src/distance/avx2.rs", "unsafe { f() }"), NONE);
        assert_eq!(judged("core/src/graph.rs", "//! never unsafe\nfn f() { g(\"unsafe\") }"), NONE);
        assert!(judged("core/src/graph.rs", "\nfn f() { unsafe { g() } }")[0].starts_with("core/src/graph.rs:2: `unsafe`"));
        assert!(judged("builder/src/lib.rs", "#![allow(unsafe_code)]")[0].contains("`unsafe_code`"));
        assert_eq!(judged("builder/src/backend/cpu.rs", "unsafe fn f() {}").len(), 1);
    }

    #[test]
    fn a_kernel_has_a_twin() {
        let judged = |paths: &[&str]| twins(&Tree::of(&paths.iter().map(|&path| (path, "")).collect::<Vec<_>>()));
        assert_eq!(judged(&["kernels/README.md", "shaders/README.md", "kernels/common.cuh"]), NONE);
        assert_eq!(judged(&["kernels/prune.cu", "shaders/prune.wgsl"]), NONE);
        assert!(judged(&["kernels/prune.cu", "shaders/merge.wgsl", "kernels/merge.cu"])[0].contains("no twin shaders/prune.wgsl"));
        assert!(judged(&["shaders/leaf_knn.wgsl"])[0].contains("no twin kernels/leaf_knn.cu"));
        assert!(judged(&["kernels/sort.cu", "shaders/sort.wgsl"])[0].contains("no stage"));
    }

    #[test]
    fn forbidden_words_are_found_where_they_stand() {
        let judged = |path, text: String| words(&Tree::of(&[(path, &text)]));
        for (a, b, _) in FORBIDDEN {
            assert!(judged("core/src/id.rs", format!("\n// {a}{b}x"))[0].starts_with("core/src/id.rs:2: "), "{a}{b}");
            assert_eq!(judged("README.md", format!("cd {a}{b}")), NONE);
        }
        let tail = format!("network{}{}x $dir{}{}", "/wo", "rk/", "/tm", "p/");
        assert_eq!(judged("Makefile", tail.replace("$dir", "$(dir).")), NONE);
    }

    #[test]
    fn the_lock_is_kept_and_big_files_are_not() {
        let mut tree = Tree::of(&[("Cargo.lock", "")]);
        assert_eq!(files(&tree), NONE);
        tree.0.insert("a.bin".into(), File { bytes: MAX_FILE_BYTES, text: None });
        assert_eq!(files(&tree), NONE);
        tree.0.insert("b.bin".into(), File { bytes: MAX_FILE_BYTES + 1, text: None });
        assert!(files(&tree)[0].starts_with("b.bin: 1048577 bytes"));
        assert!(files(&Tree::default())[0].contains("Cargo.lock is missing"));
    }
}
