//! Ended from outside: by a signal, by kill, by a reader that goes away.

use crate::shell::{Place, ROXANNE, Run, SMALL, contents, roxanne};
use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
};

/// Begins a build that takes seconds on any machine, and waits until it is in the middle.
fn in_the_middle(out: &str) -> (Child, BufReader<std::process::ChildStderr>) {
    let args = ["build", "synth:n=100000,dim=64,clusters=256", "-o", out, "--threads", "1", "--progress", "json"];
    let mut child = Command::new(ROXANNE).args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let mut stderr = BufReader::new(child.stderr.take().expect("its stderr"));
    let mut line = String::new();
    while !line.contains("\"graph\"") {
        line.clear();
        assert_ne!(stderr.read_line(&mut line).expect("a line"), 0, "the build ended before it was in the middle");
    }
    (child, stderr)
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", child.id())]).status().expect("sh runs");
    assert!(sent.success());
}

#[test]
fn an_interrupted_build_leaves_nothing_behind() {
    for name in ["INT", "TERM"] {
        let place = Place::new();
        let (mut child, mut stderr) = in_the_middle(&place.at("index"));
        assert_eq!(place.names().first().map(String::as_str), Some(".index.partial"));
        signal(&child, name);
        let mut rest = String::new();
        stderr.read_to_string(&mut rest).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{name}: {rest}");
        assert!(rest.trim_end().lines().last().unwrap().starts_with("error: interrupted"), "{rest}");
        assert!(place.names().is_empty(), "{:?}", place.names());
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let place = Place::new();
    let (mut child, mut stderr) = in_the_middle(&place.at("index"));
    signal(&child, "INT");
    let mut line = String::new();
    while !line.contains("stopping") {
        line.clear();
        assert_ne!(stderr.read_line(&mut line).unwrap(), 0);
    }
    // It may have cleared away by itself meanwhile.
    let _ = Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).stderr(Stdio::null()).status();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    // Whatever is left, the next build clears it.
    place.build(SMALL, "index", &[]);
    assert_eq!(place.names().iter().filter(|name| !name.starts_with("index")).count(), 0, "{:?}", place.names());
}

#[test]
fn a_killed_build_is_no_index_and_the_next_one_is() {
    let place = Place::new();
    let (mut child, _) = in_the_middle(&place.at("index"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(place.names().iter().all(|name| name.starts_with(".index.partial")), "{:?}", place.names());
    roxanne(&["info", &place.at("index")]).failed(3, &["no such directory"]);
    let clean = place.build(SMALL, "clean", &[]);
    let index = place.build(SMALL, "index", &[]);
    assert_eq!(contents(index.as_ref()), contents(clean.as_ref()));
    assert!(!place.names().iter().any(|name| name.contains("partial")));
}

#[test]
fn an_interrupted_convert_or_truth_leaves_nothing_behind() {
    let place = Place::new();
    let base = "synth:n=3000000,dim=64";
    for args in [vec!["convert", base, "x.fbin"], vec!["truth", base, "synth:n=500,dim=64,part=query", "-o", "gt.bin"]] {
        let mut command = Command::new(ROXANNE);
        let command = command.args(&args).args(["--progress", "json"]).current_dir(place.root());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        assert_ne!(stderr.read_line(&mut line).unwrap(), 0);
        signal(&child, "INT");
        let mut rest = String::new();
        stderr.read_to_string(&mut rest).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{args:?}: {rest}");
        assert!(rest.contains("error: interrupted") && !rest.contains("panicked"), "{rest}");
        assert!(place.names().is_empty(), "{args:?}: {:?}", place.names());
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let place = Place::new();
    let index = place.build(SMALL, "index", &[]);
    for args in [
        &["search", &index, "-q", "synth:n=20000,dim=8,clusters=8"][..],
        &["search", &index, "-q", "synth:n=20000,dim=8,clusters=8", "--json"],
        &["info", &index],
        &["plan", SMALL, "--json"],
        &["verify", &index],
        &["--help"],
    ] {
        let mut child = Command::new(ROXANNE).args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let run = Run::of(child.wait_with_output().unwrap());
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn a_stdout_that_is_full_is_a_failure() {
    let place = Place::new();
    let index = place.build(SMALL, "index", &[]);
    let Ok(full) = std::fs::OpenOptions::new().write(true).open("/dev/full") else { return };
    let output = Command::new(ROXANNE).args(["info", &index]).stdout(full).output().unwrap();
    Run::of(output).failed(7, &["stdout", "No space left"]);
}
