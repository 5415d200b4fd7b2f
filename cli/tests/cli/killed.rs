//! Builds in shards that are killed, stopped, starved and shared out, and end with the bytes of one that nothing disturbed.

use crate::{
    cgroup::Cgroup,
    shell::{Place, ROXANNE, Run, contents, roxanne},
};
use roxanne_core::random::CounterRng;
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

const BYTES: &str = "synth:n=1500,dim=16,type=u8,clusters=32,seed=3";
const FLOATS: &str = "synth:n=1000,dim=16,clusters=32,seed=3";

fn arguments<'a>(source: &'a str, out: &'a str) -> Vec<&'a str> {
    vec!["build", source, "-o", out, "--degree", "16", "--shards", "3"]
}

/// Every file of the index of `source`, which nothing disturbed.
fn undisturbed(source: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let place = Place::new();
    roxanne(&arguments(source, &place.at("index"))).well();
    contents(place.at("index").as_ref())
}

/// The index is whole, is `expected`, and is alone in its place.
#[track_caller]
fn assert_built(place: &Place, expected: &BTreeMap<PathBuf, Vec<u8>>, what: &str) {
    assert!(contents(place.at("index").as_ref()) == *expected, "{what}");
    assert!(!place.names().iter().any(|name| name.contains("partial")), "{what}: {:?}", place.names());
}

#[test]
fn a_build_killed_before_or_after_any_record_goes_on_to_the_same_bytes() {
    for source in [BYTES, FLOATS] {
        let expected = undisturbed(source);
        let mut points = 0;
        for point in 1.. {
            let place = Place::new();
            let out = place.at("index");
            let killed = Command::new(ROXANNE).args(arguments(source, &out)).env("ROXANNE_DIE_AT", point.to_string()).output().unwrap();
            if killed.status.success() {
                break;
            }
            assert_eq!((killed.status.code(), killed.stderr.as_slice()), (None, &b""[..]), "killed, and nothing else");
            roxanne(&arguments(source, &out)).well();
            assert_built(&place, &expected, &format!("{source} killed at point {point}"));
            points = point;
        }
        // A record each for the build, the rows, three shards and the pages, with a point on either side, and three of the commit.
        assert!(points >= 15, "{points} points");
    }
}

#[test]
fn a_build_killed_at_any_moment_goes_on_to_the_same_bytes() {
    let seed = std::env::var("ROXANNE_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    println!("ROXANNE_TEST_SEED={seed}");
    let (rng, expected) = (CounterRng::new(seed), undisturbed(BYTES));
    for round in 0..4 {
        let place = Place::new();
        let out = place.at("index");
        // The moments are the machine's; the outcome is not.
        for attempt in 0..3 {
            let mut child = Command::new(ROXANNE).args(arguments(BYTES, &out)).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(rng.part(round).below(attempt, 400)));
            child.kill().unwrap();
            child.wait().unwrap();
        }
        roxanne(&arguments(BYTES, &out)).well();
        assert_built(&place, &expected, &format!("round {round}"));
    }
}

/// Begins a build in shards that takes seconds, and waits until phase `name` is heard of.
fn in_phase(place: &Place, name: &str) -> (Child, BufReader<std::process::ChildStderr>) {
    let (out, source) = (place.at("index"), "synth:n=40000,dim=32,type=u8,clusters=64");
    let mut command = Command::new(ROXANNE);
    command.args(arguments(source, &out)).args(["--threads", "1", "--progress", "json"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary runs");
    let mut stderr = BufReader::new(child.stderr.take().expect("its stderr"));
    let mut line = String::new();
    while !line.contains(&format!("\"{name}\"")) {
        line.clear();
        assert_ne!(stderr.read_line(&mut line).expect("a line"), 0, "the build ended before {name}");
    }
    (child, stderr)
}

#[test]
fn an_interrupted_build_keeps_its_checkpoint_and_fresh_starts_over() {
    for (name, more) in [("INT", &[][..]), ("TERM", &["--fresh"])] {
        let place = Place::new();
        let (mut child, mut stderr) = in_phase(&place, "graph");
        assert!(Command::new("sh").args(["-c", &format!("kill -{name} {}", child.id())]).status().unwrap().success());
        let mut rest = String::new();
        stderr.read_to_string(&mut rest).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{name}: {rest}");
        assert!(rest.contains("goes on from there") && place.root().join(".index.partial/JOURNAL").exists(), "{rest}");
        let out = place.at("index");
        let again = roxanne(&[&arguments("synth:n=40000,dim=32,type=u8,clusters=64", &out)[..], &["--json"], more].concat()).well();
        let phases = again.json()["phases"].as_array().unwrap().iter().map(|p| p["name"].to_string()).collect::<Vec<_>>();
        assert_eq!(phases.contains(&"\"route\"".to_string()), !more.is_empty(), "{name}: {phases:?}");
    }
}

#[test]
fn two_builds_into_one_directory_are_one_too_many() {
    let place = Place::new();
    let (mut child, _stderr) = in_phase(&place, "cells");
    let out = place.at("index");
    roxanne(&arguments("synth:n=40000,dim=32,type=u8,clusters=64", &out)).failed(7, &["another build is writing here"]);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A step of a build in shards.
fn step<'a>(words: &[&'a str], out: &'a str) -> Vec<&'a str> {
    [&["shard"], words, &["-o", out, "--degree", "16", "--shards", "3"]].concat()
}

#[test]
fn shards_built_side_by_side_by_many_processes_give_the_bytes_of_one_build() {
    for source in [BYTES, FLOATS] {
        let (place, expected) = (Place::new(), undisturbed(source));
        let out = place.at("index");
        roxanne(&step(&["build", source, "--index", "0"], &out)).failed(3, &["shard plan"]);
        roxanne(&step(&["commit", source], &out)).failed(3, &["shard plan"]);
        assert!(place.names().is_empty(), "{:?}", place.names());
        roxanne(&step(&["plan", source], &out)).well();
        roxanne(&step(&["plan", source], &out)).well();
        roxanne(&step(&["build", source, "--index", "3"], &out)).failed(2, &["shard 3 is not in 0 to 2"]);
        let other = "synth:n=900,dim=16,clusters=32,seed=3";
        roxanne(&step(&["build", other, "--index", "0"], &out)).failed(3, &["the checkpoint of another build"]);
        let side_by_side: Vec<Child> = ["2", "0"]
            .map(|index| {
                Command::new(ROXANNE)
                    .args(step(&["build", source, "--index", index], &out))
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .spawn()
                    .unwrap()
            })
            .into();
        for child in side_by_side {
            Run::of(child.wait_with_output().unwrap()).well();
        }
        roxanne(&step(&["commit", source], &out)).failed(3, &["shards [1] are not built yet"]);
        // Killed on its way, and built twice.
        let killed =
            Command::new(ROXANNE).args(step(&["build", source, "--index", "1"], &out)).env("ROXANNE_DIE_AT", "1").output().unwrap();
        assert_eq!(killed.status.code(), None);
        roxanne(&step(&["build", source, "--index", "1"], &out)).well();
        roxanne(&step(&["build", source, "--index", "1"], &out)).well();
        roxanne(&step(&["commit", source], &out)).well();
        assert_built(&place, &expected, source);
        // Of a published index every step says that there is nothing to do.
        for words in [&["plan", source][..], &["build", source, "--index", "1"], &["commit", source]] {
            roxanne(&step(words, &out)).well();
        }
        assert_built(&place, &expected, source);
    }
}

#[test]
fn what_a_shard_left_is_refused_when_it_is_damaged() {
    for kind in ["members.1", "vectors.1", "nodes.0", "order.2", "codes.0", "inbox.2", "model", "done.1"] {
        let place = Place::new();
        let out = place.at("index");
        roxanne(&step(&["plan", FLOATS], &out)).well();
        let damage = |from: &str| {
            let files = fs::read_dir(place.root().join(".index.partial")).unwrap().map(|entry| entry.unwrap().path());
            let path = files.into_iter().find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(from)).expect(from);
            let mut bytes = fs::read(&path).unwrap();
            bytes[50] ^= 1;
            fs::write(path, bytes).unwrap();
        };
        let is_early = ["members", "vectors", "model"].iter().any(|early| kind.starts_with(early));
        if is_early {
            damage(kind);
            roxanne(&step(&["build", FLOATS, "--index", "1"], &out)).failed(6, &[kind]);
            continue;
        }
        for index in ["0", "1", "2"] {
            roxanne(&step(&["build", FLOATS, "--index", index], &out)).well();
        }
        damage(kind);
        roxanne(&step(&["commit", FLOATS], &out)).failed(6, &[kind]);
        assert!(!Path::new(&out).exists());
    }
}

#[test]
fn a_rehearsal_keeps_nothing_and_says_how_long_it_took() {
    let rehearsed = |more: &[&str]| {
        let run = roxanne(&[&["build", BYTES, "--degree", "16", "--sink", "null", "--json"][..], more].concat()).well();
        let report = run.json();
        let units = |name: &str| {
            let phases = report["phases"].as_array().unwrap();
            phases.iter().find(|p| p["name"] == name).map_or(0, |p| p["units"].as_u64().unwrap())
        };
        (units("route"), units("order"), units("pages"))
    };
    let (routed, _, pages) = rehearsed(&["--shards", "3"]);
    let (all, one, some) = rehearsed(&["--shards", "3", "--only-shard", "1"]);
    assert_eq!((routed, all), (1500, 1500));
    assert!(one > 0 && one < 1500 && some > 0 && some < pages, "{one} rows and {some} of {pages} pages in one shard");
    rehearsed(&[]);
    roxanne(&["build", BYTES, "--sink", "null", "--shards", "3", "--only-shard", "3"]).failed(2, &["shard 3 is not in 0 to 2"]);
    roxanne(&["build", BYTES, "--sink", "null", "--only-shard", "0"]).failed(2, &["one shard"]);
}

#[test]
fn a_build_is_verified_before_it_is_published() {
    for shards in [&[][..], &["--shards", "3"]] {
        let place = Place::new();
        let out = place.at("index");
        let args = [&["build", BYTES, "-o", &out, "--degree", "16"][..], shards].concat();
        let poor = ["--reservoir", "2", "--leaf-k", "1", "--verify=1"];
        roxanne(&[&args[..], &poor].concat()).failed(5, &["not published", "recall@10"]);
        assert!(place.names().is_empty(), "{:?}", place.names());
        roxanne(&[&args[..], &["--verify"]].concat()).well();
        assert!(Path::new(&out).join("MANIFEST").exists());
    }
}

#[test]
fn a_build_in_shards_stays_within_the_memory_that_was_planned() {
    let source = "synth:n=120000,dim=16,type=u8,clusters=128";
    let args = ["--degree", "16", "--ram", "170M"];
    let plan = roxanne(&[&["plan", source, "--json"][..], &args].concat()).well().json();
    let (shards, planned) = (plan["shards"].as_u64().unwrap(), plan["peak_ram_bytes"].as_u64().unwrap());
    assert!(shards > 1 && planned <= 170 << 20, "{shards} shards in {planned} bytes");
    let Some(cgroup) = Cgroup::new("planned", planned) else {
        println!("skipped: no memory cgroup can be made here (it takes root and a writable cgroup file system)");
        return;
    };
    let place = Place::new();
    let report = cgroup.roxanne(&[&["build", source, "-o", &place.at("index"), "--json"][..], &args].concat()).well().json();
    assert!(report["peak_rss_bytes"].as_u64().unwrap() <= planned, "{report}");
    assert_eq!(report["shards"].as_u64(), Some(shards));
}

/// A small file system in memory that goes away, where we may mount one.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(place: &Place, mib: u64) -> Option<SmallDisk> {
        let path = place.root().join("disk");
        fs::create_dir(&path).ok()?;
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"]).arg(&path).stderr(Stdio::null()).status();
        mounted.is_ok_and(|status| status.success()).then_some(SmallDisk(path))
    }

    fn grow(&self, mib: u64) {
        let status = Command::new("mount").args(["-o", &format!("remount,size={mib}m")]).arg(&self.0).status().expect("mount runs");
        assert!(status.success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_disk_that_fills_in_any_pass_is_told_and_the_build_goes_on_when_there_is_room() {
    let source = "synth:n=16000,dim=160,type=u8,clusters=64";
    let whole = Place::new();
    roxanne(&arguments(source, &whole.at("index"))).well();
    let expected = contents(whole.at("index").as_ref());
    // Members are 5.4 MB, nodes 3.7, pages 4: these are too small for the first pass, the second and the last.
    for (mib, file) in [(3, "members."), (6, "nodes."), (8, "graph.rx")] {
        let place = Place::new();
        let Some(disk) = SmallDisk::new(&place, mib) else {
            println!("skipped: no tmpfs can be mounted here (it takes root)");
            return;
        };
        let out = place.at("disk/index");
        roxanne(&arguments(source, &out)).failed(7, &["No space left", ".index.partial", file]);
        assert!(place.root().join("disk/.index.partial/JOURNAL").exists() && !Path::new(&out).exists(), "{mib} MiB");
        disk.grow(200);
        roxanne(&arguments(source, &out)).well();
        assert!(contents(out.as_ref()) == expected, "{mib} MiB");
    }
}

#[test]
fn an_input_that_changes_on_the_way_is_noticed() {
    let place = Place::new();
    let base = place.at("base.fbin");
    roxanne(&["convert", FLOATS, &base]).well();
    let out = place.at("index");
    roxanne(&step(&["plan", &base], &out)).well();
    // Every row of it, so that any sample tells.
    let change = || {
        let mut bytes = fs::read(&base).unwrap();
        bytes[8..].chunks_exact_mut(64).for_each(|row| row[..4].copy_from_slice(&0.25f32.to_le_bytes()));
        fs::write(&base, bytes).unwrap();
    };
    change();
    roxanne(&step(&["build", &base, "--index", "0"], &out)).failed(3, &["not the rows that the build began with"]);
    roxanne(&arguments(&base, &out)).failed(3, &["not the rows that the build began with", "--fresh"]);
    roxanne(&[&arguments(&base, &out)[..], &["--fresh"]].concat()).well();
}
