//! What stands at the output path before and after a build.

use crate::shell::{Place, ROXANNE, Run, SIFT_BASE, SMALL, contents, roxanne};
use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    process::{Command, Stdio},
};

#[test]
fn an_output_that_is_complete_with_the_same_parameters_is_success_and_untouched() {
    let place = Place::new();
    let args = ["build", SMALL, "-o", &place.at("index"), "--degree", "16"];
    let first = roxanne(&args).well();
    assert!(first.stderr.is_empty(), "{first:?}");
    let before = contents(place.root());
    let again = roxanne(&args).well();
    assert!(again.stderr.contains("complete already"), "{again:?}");
    // Threads and limits shape no index.
    let json = roxanne(&[&args[..], &["--json", "--threads", "1", "--ram", "8G"]].concat()).well().json();
    assert_eq!((json["already_complete"].as_bool(), json["n"].as_u64()), (Some(true), Some(300)));
    assert_eq!(contents(place.root()), before);
}

#[test]
fn an_output_of_other_parameters_or_input_is_refused_and_untouched() {
    let place = Place::new();
    let index = place.build(SMALL, "index", &[]);
    let keys = place.write("keys", (0..300).map(|row| format!("{}\n", row + 5)).collect::<String>());
    let before = contents(place.root());
    let same = ["build", SMALL, "-o", &index, "--degree", "16"];
    let others: [(&[&str], &str); 9] = [
        (&["build", SMALL, "-o", &index], "degree 16"),
        (&[&same[..], &["--alpha", "1.3"]].concat(), "alpha"),
        (&[&same[..], &["--leaf-k", "4"]].concat(), "leaf-k"),
        (&[&same[..], &["--reservoir", "50"]].concat(), "reservoir"),
        (&[&same[..], &["--pq-bytes", "4"]].concat(), "pq-bytes"),
        (&[&same[..], &["--seed", "2"]].concat(), "seed"),
        (&[&same[..], &["--metric", "cos"]].concat(), "l2"),
        (&[&same[..], &["--keys", &keys]].concat(), "keys"),
        (&["build", "synth:n=300,dim=8,clusters=8,seed=2", "-o", &index, "--degree", "16"], "input"),
    ];
    for (args, word) in others {
        roxanne(args).failed(3, &[&index, word, "left untouched"]);
        assert!(contents(place.root()) == before, "{args:?}");
    }
    roxanne(&[&same[..], &["--limit", "299"]].concat()).failed(3, &["299", "300"]);
    assert!(contents(place.root()) == before);
}

#[test]
fn an_output_that_is_something_else_is_refused_and_untouched() {
    let place = Place::new();
    place.write("file", "mine");
    fs::create_dir(place.at("empty")).unwrap();
    fs::create_dir_all(place.at("photos/2024")).unwrap();
    place.write("photos/2024/a.jpg", "a picture");
    place.write("photos/MANIFEST.txt", "a list");
    symlink("nowhere", place.at("dangling")).unwrap();
    symlink("photos", place.at("link")).unwrap();
    let damaged = place.build(SMALL, "damaged", &[]);
    fs::remove_file(format!("{damaged}/codes.rx")).unwrap();
    let torn = place.build(SMALL, "torn", &[]);
    fs::write(format!("{torn}/MANIFEST"), "roxanne-generation 1\n").unwrap();
    let before = contents(place.root());
    for name in ["file", "empty", "photos", "dangling", "link", "damaged", "torn", "photos/"] {
        roxanne(&["build", SMALL, "-o", &place.at(name), "--degree", "16"]).failed(3, &[name.trim_end_matches('/'), "untouched"]);
        assert!(contents(place.root()) == before, "{name}");
    }
    for name in [".", "..", "/"] {
        let run = Command::new(ROXANNE).args(["build", SMALL, "-o", name]).current_dir(place.root()).output().unwrap();
        Run::of(run).failed(3, &[]);
    }
    assert!(contents(place.root()) == before);
}

#[test]
fn an_output_without_a_directory_to_stand_in_is_refused() {
    let place = Place::new();
    let file = place.write("file", "mine");
    roxanne(&["build", SMALL, "-o", &place.at("no/such/x")]).failed(3, &["no/such"]);
    roxanne(&["build", SMALL, "-o", &format!("{file}/x")]).failed(3, &["file"]);
    assert_eq!(place.names(), ["file"]);
}

#[test]
fn outputs_of_other_commands_are_never_overwritten() {
    let place = Place::new();
    let index = place.build(SMALL, "index", &[]);
    let truth = place.at("gt.bin");
    roxanne(&["truth", SMALL, SMALL, "-o", &truth, "-k", "5"]).well();
    let taken = [place.write("gt.ivecs", "mine"), place.write("x.npy", "mine"), place.write("plot.svg", "mine")];
    let before = contents(place.root());
    roxanne(&["truth", SMALL, SMALL, "-o", &taken[0]]).failed(3, &["exists already"]);
    roxanne(&["convert", SMALL, &taken[1]]).failed(3, &["exists already"]);
    roxanne(&["eval", &index, "-q", SMALL, "-g", &truth, "-k", "5", "--plot", &taken[2]]).failed(3, &["exists already"]);
    roxanne(&["truth", SMALL, SMALL, "-o", &place.at("gt.txt")]).failed(3, &[".bin", ".ivecs"]);
    roxanne(&["convert", SMALL, &place.at("x.csv")]).failed(3, &[".csv", ".npy"]);
    roxanne(&["convert", SMALL, &place.at("x.u8bin")]).failed(3, &["x.u8bin", "row 0", "wider"]);
    assert!(contents(place.root()) == before);
}

#[test]
fn two_builds_do_not_share_an_output() {
    let place = Place::new();
    let (out, partial) = (place.at("index"), place.root().join(".index.partial"));
    fs::create_dir(&partial).unwrap();
    let lock = File::create(partial.join("LOCK")).unwrap();
    lock.lock().unwrap();
    fs::write(partial.join("graph.rx"), "half of another build").unwrap();
    let before = contents(place.root());
    roxanne(&["build", SMALL, "-o", &out]).failed(7, &["another build"]);
    assert_eq!(contents(place.root()), before, "the other build is not disturbed");
    drop(lock);
    roxanne(&["build", SMALL, "-o", &out]).well();
    roxanne(&["verify", &out]).well();
    assert!(!partial.exists());
}

#[test]
fn of_builds_at_the_same_time_one_makes_the_index() {
    let place = Place::new();
    for round in 0..6 {
        let out = place.at(&format!("index-{round}"));
        let begin = || {
            let args = ["build", SIFT_BASE, "-o", &out, "--limit", "500", "--degree", "16"];
            Command::new(ROXANNE).args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let runs: Vec<Run> = [begin(), begin(), begin()].map(|child| Run::of(child.wait_with_output().unwrap())).into();
        assert!(runs.iter().any(|run| run.code == Some(0)), "{runs:?}");
        assert!(runs.iter().all(|run| matches!(run.code, Some(0 | 7))), "{runs:?}");
        roxanne(&["verify", &out]).well();
        assert!(!place.root().join(format!(".index-{round}.partial")).exists());
    }
}

#[test]
fn every_simd_level_of_the_process_builds_the_same_files() {
    let place = Place::new();
    for (number, source) in [SIFT_BASE, "synth:n=700,dim=50,clusters=16"].into_iter().enumerate() {
        let built = |level: &str| {
            let out = place.at(&format!("{level}-{number}"));
            let args = ["build", source, "-o", &out, "--limit", "1200"];
            Run::of(Command::new(ROXANNE).args(args).env("ROXANNE_SIMD", level).output().unwrap()).well();
            contents(out.as_ref())
        };
        let scalar = built("scalar");
        // A level that the processor has not is the best that it has.
        assert!(["avx2", "avx512", "neon"].iter().all(|level| built(level) == scalar), "{source}");
    }
}

#[test]
fn what_a_killed_build_left_is_cleared_away() {
    let place = Place::new();
    let clean = place.build(SMALL, "clean", &[]);
    let partial = place.root().join(".index.partial");
    fs::create_dir(&partial).unwrap();
    for name in ["LOCK", "graph.rx", "codes.rx", "MANIFEST.tmp", "MANIFEST"] {
        fs::write(partial.join(name), "half").unwrap();
    }
    let index = place.build(SMALL, "index", &[]);
    assert_eq!(contents(index.as_ref()), contents(clean.as_ref()), "nothing of it got in");
    assert_eq!(fs::read_dir(place.root()).unwrap().count(), 2);
}

/// Runs `script` with `$1` and on as `args` in a namespace where `directory` is a file system of its own that holds 1 MiB. `None` where
/// this system allows no such thing.
fn on_a_small_disk(directory: &str, script: &str, args: &[&str]) -> Option<Run> {
    let script = format!("mount -t tmpfs -o size=1m small {directory} || exit 99\n{script}");
    for user in [&["--mount"][..], &["--map-root-user", "--mount"]] {
        let output = Command::new("unshare").args(user).args(["sh", "-c", &script, "sh"]).args(args).output().ok()?;
        // unshare itself ends with 1, the script never does.
        if !matches!(output.status.code(), Some(1 | 99)) {
            return Some(Run::of(output));
        }
    }
    None
}

#[test]
fn a_full_disk_leaves_nothing_behind() {
    let place = Place::new();
    fs::create_dir(place.at("disk")).unwrap();
    let disk = place.at("disk");
    for command in [r#"build "$2" -o "$3/index""#, r#"convert "$2" "$3/x.fbin""#, r#"truth "$2" "$2" -k 100 -o "$3/gt.bin""#] {
        let script = format!("\"$1\" {command}\ncode=$?\nls -A \"$3\"\nexit $code");
        let Some(run) = on_a_small_disk(&disk, &script, &[ROXANNE, SIFT_BASE, &disk]) else {
            println!("SKIPPED: this system lets no test mount a file system");
            return;
        };
        assert_eq!((run.code, run.stdout.as_str()), (Some(7), ""), "{command}: nothing is left: {run:?}");
        assert!(run.stderr.starts_with("error: ") && run.stderr.contains("No space left"), "{command}: {run:?}");
    }
}
