//! The house keeps its own rules: floors, lints, `unsafe`, twins, words and sizes.
//!
//! Every rule is a function from a [`Tree`] to complaints, each with its place and what to do. It judges the repository below, and in
//! its own file made-up trees that break it: a rule that cannot fail would judge nothing.

mod apart;
mod arrows;
mod house;
mod rust;
mod tree;

use tree::Tree;

/// Judges the repository by `rule`.
fn judge(rule: fn(&Tree) -> Vec<String>) {
    let complaints = rule(&Tree::of_repository());
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn crates_lean_only_on_crates_below_them() {
    judge(arrows::between_crates);
}

#[test]
fn modules_of_the_core_lean_only_on_modules_below_them() {
    judge(arrows::inside_core);
}

#[test]
fn every_crate_obeys_the_lints_of_the_workspace() {
    judge(house::lints);
}

#[test]
fn a_workspace_apart_is_cut_off_from_ours() {
    judge(apart::cut_off);
}

#[test]
fn unsafe_code_stands_only_in_its_places() {
    judge(house::unsafe_places);
}

#[test]
fn every_kernel_has_its_twin() {
    judge(house::twins);
}

#[test]
fn no_file_names_a_machine_or_promises_work() {
    judge(house::words);
}

#[test]
fn the_lock_is_kept_and_big_files_are_not() {
    judge(house::files);
}
