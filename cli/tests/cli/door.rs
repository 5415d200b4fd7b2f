//! The other door: the library of the same name, as its example uses it.

use crate::shell::{Place, ROXANNE, Run};
use std::{path::Path, process::Command};

#[test]
fn the_embedding_example_builds_searches_and_leaves_nothing_behind() {
    let place = Place::new();
    // Built beside the binary whenever all targets are; asked for where only this test was.
    let built = Path::new(ROXANNE).with_file_name("examples").join("embed");
    let mut command = if built.exists() {
        Command::new(built)
    } else {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["run", "--locked", "--quiet", "--package", "roxanne", "--example", "embed"]);
        cargo
    };
    let run = Run::of(command.env("TMPDIR", place.root()).output().unwrap()).well();
    assert!(run.stdout.contains("built 5000 vectors of 64 dimensions"), "{run:?}");
    assert_eq!(run.stdout.lines().filter(|line| line.starts_with("key ")).count(), 5, "{run:?}");
    assert!(place.names().is_empty(), "{:?}", place.names());
}

#[test]
fn the_library_reads_what_the_command_built() {
    use roxanne::{Budget, Dataset, ErrorClass, Index, SearchParams};
    let place = Place::new();
    let path = place.build(crate::shell::SMALL, "index", &["-m", "cos"]);
    let index = Index::open(&path, Budget::ram(64 << 20)).unwrap();
    let mut query = Vec::new();
    Dataset::open(crate::shell::SMALL).unwrap().read_rows_f32(42, 1, &mut query).unwrap();
    let answer = index.clone().search(&query, &SearchParams { k: 1, ..SearchParams::default() }).unwrap();
    assert_eq!(answer.hits[0].key.0, 42);
    assert_eq!(Index::open(place.at("absent"), Budget::default()).err().unwrap().class(), ErrorClass::BadInput);
}
