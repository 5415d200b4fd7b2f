//! The nightly job of examples/nightly: the script as it runs, the files of schedulers as far as this machine can tell.

use crate::shell::{Place, ROXANNE, Run, SIFT_BASE, SIFT_QUERIES, contents, roxanne};
use serde_json::Value;
use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Command, Stdio},
};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/nightly");

/// A base with keys, a day's changes, deleted keys, and where indexes go.
struct Job(Place);

impl Job {
    fn new() -> Job {
        let place = Place::new();
        place.write("base.keys", (0..4000).map(|row| format!("{}\n", 10 * row)).collect::<String>());
        fs::create_dir(place.at("changes")).expect("a directory");
        let day = place.at("changes/2026-11-25.u8bin");
        roxanne(&["convert", "synth:n=50,dim=128,type=u8,clusters=4", &day]).well();
        place.write("changes/2026-11-25.keys", (0..50).map(|row| format!("{}\n", 15 * row)).collect::<String>());
        place.write("deleted.txt", "20\n30\n");
        Job(place)
    }

    fn index(&self, name: &str) -> String {
        self.0.at(&format!("indexes/{name}"))
    }

    /// The script in a process group of its own, and what it is told.
    fn command(&self, name: &str, more: &[(&str, &str)]) -> Command {
        let mut command = Command::new("sh");
        command.arg(format!("{EXAMPLES}/nightly.sh")).process_group(0).env("ROXANNE", ROXANNE).env("NAME", name);
        command.env("BASE", SIFT_BASE).env("BASE_KEYS", self.0.at("base.keys")).env("CHANGES", self.0.at("changes"));
        command.env("DELETED", self.0.at("deleted.txt")).env("QUERIES", SIFT_QUERIES).env("INDEXES", self.0.at("indexes"));
        command.envs(more.iter().copied());
        command
    }

    fn run(&self, name: &str, more: &[(&str, &str)]) -> Run {
        Run::of(self.command(name, more).output().expect("sh runs"))
    }

    /// Where `current` leads.
    fn current(&self) -> Option<String> {
        fs::read_link(self.index("current")).ok().map(|to| to.to_string_lossy().into_owned())
    }

    /// What stands among the indexes, but for the lock.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.at("indexes")).expect("the directory of indexes");
        let mut names: Vec<String> = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names.retain(|name| name != ".lock");
        names
    }
}

#[test]
fn a_night_ends_with_an_index_that_was_checked_and_keeps_the_last_few() {
    let job = Job::new();
    let run = job.run("2026-11-26", &[]).well();
    assert!(run.stderr.contains("4,000 vectors, 24 replaced, 25 added, 2 deleted"), "{run:?}");
    assert_eq!(job.current().as_deref(), Some("2026-11-26.rx"));
    assert_eq!(job.names(), ["2026-11-26.rx", "current"]);
    roxanne(&["verify", &job.index("current")]).well();
    let first = contents(job.index("2026-11-26.rx").as_ref());
    assert!(job.run("2026-11-26", &[]).well().stderr.contains("current already"));
    for name in ["2026-11-27", "2026-11-28"] {
        job.run(name, &[("KEEP", "2")]).well();
    }
    assert_eq!(job.names(), ["2026-11-27.rx", "2026-11-28.rx", "current"]);
    assert_eq!(contents(job.index("current").as_ref()), first, "the same input, the same bytes");
}

#[test]
fn a_night_that_is_killed_anywhere_is_made_up_for_by_the_next_run() {
    let job = Job::new();
    job.run("a", &[]).well();
    let first = contents(job.index("a.rx").as_ref());
    // Kills the whole job before a command, or while a build runs.
    let killer = job.0.write(
        "killer",
        "#!/bin/sh\n[ \"$1\" != \"$KILL_AT\" ] || kill -9 0\n\
         [ \"$1-$KILL_AT\" != build-middle ] || { \"$REAL\" \"$@\" & sleep 0.1; kill -9 0; }\nexec \"$REAL\" \"$@\"\n",
    );
    fs::set_permissions(&killer, fs::Permissions::from_mode(0o755)).unwrap();
    for place in ["build", "middle", "verify", "truth", "eval"] {
        let mut command = job.command("b", &[("ROXANNE", &killer), ("REAL", ROXANNE), ("KILL_AT", place)]);
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert_eq!(status.code(), None, "{place}: it was killed");
        assert_eq!(job.current().as_deref(), Some("a.rx"), "{place}");
        roxanne(&["verify", &job.index("current")]).well();
    }
    job.run("b", &[]).well();
    assert_eq!((job.current().as_deref(), job.names()), (Some("b.rx"), ["a.rx", "b.rx", "current"].map(String::from).to_vec()));
    assert_eq!(contents(job.index("b.rx").as_ref()), first);
}

#[test]
fn an_index_that_falls_short_is_put_aside_and_nothing_else_changes() {
    let job = Job::new();
    job.run("a", &[]).well();
    let run = job.run("b", &[("MIN_RECALL", "1"), ("LIST_SIZE", "10")]);
    assert!(run.code == Some(5) && run.stderr.contains("below the 1 asked for"), "{run:?}");
    assert_eq!((job.current().as_deref(), job.names()), (Some("a.rx"), ["a.rx", "b.rejected", "current"].map(String::from).to_vec()));
    job.run("b", &[]).well();
    assert_eq!(job.current().as_deref(), Some("b.rx"));
    // What no run can mend has a code of its own.
    let run = job.run("c", &[("RAM", "1M")]);
    assert!(run.code == Some(4), "{run:?}");
    let run = job.run("c", &[("BASE", "nowhere.u8bin")]);
    assert!(run.code == Some(3), "{run:?}");
    fs::remove_file(job.0.at("changes/2026-11-25.u8bin")).unwrap();
    let run = job.run("c", &[]);
    assert!(run.code == Some(3) && run.stderr.contains("no vectors beside it"), "{run:?}");
    assert_eq!(job.current().as_deref(), Some("b.rx"));
}

#[test]
fn a_stop_reaches_the_build_and_a_second_job_waits_for_no_one() {
    let job = Job::new();
    job.0.write("many.keys", (0..100_000).map(|row| format!("{row}\n")).collect::<String>());
    let many = [("BASE", "synth:n=100000,dim=128,type=u8"), ("BASE_KEYS", &job.0.at("many.keys"))];
    let child = job.command("a", &many).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while !Path::new(&job.index(".a.rx.partial/LOCK")).exists() {
        std::thread::yield_now();
    }
    let other = job.run("b", &many);
    assert!(other.code == Some(7) && other.stderr.contains(".lock"), "{other:?}");
    Command::new("sh").args(["-c", &format!("kill -TERM {}", child.id())]).status().unwrap();
    let run = Run::of(child.wait_with_output().unwrap());
    assert_eq!(run.code, Some(130), "{run:?}");
    assert!(job.names().is_empty(), "{:?}", job.names());
}

#[test]
fn every_flag_of_the_examples_is_one_that_the_command_has() {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let mut lines = 0;
    for (file, before) in [("nightly.sh", "run \"$roxanne\" "), ("README.md", "roxanne convert"), ("README.md", "roxanne build")] {
        let text = fs::read_to_string(format!("{EXAMPLES}/{file}")).unwrap().replace("\\\n", " ");
        for line in text.lines().filter_map(|line| line.find(before).map(|at| &line[at..])) {
            let command = line.trim_start_matches("run \"$roxanne\" ").trim_start_matches("roxanne ").split(' ').next().unwrap();
            let help = roxanne(&[command, "--help"]).well().stdout;
            let flags = line.split(|c| !is_word(c)).filter(|word| word.starts_with('-') && word.contains(|c: char| c.is_ascii_lowercase()));
            for flag in flags {
                assert!(help.split(|c| !is_word(c)).any(|word| word == flag), "{command} has no {flag}: {line}");
            }
            lines += 1;
        }
    }
    assert_eq!(lines, 5, "build, verify, truth, eval; convert");
}

#[test]
fn the_units_are_what_systemd_understands() {
    let place = Place::new();
    for unit in ["roxanne-nightly.service", "roxanne-nightly.timer"] {
        fs::copy(format!("{EXAMPLES}/{unit}"), place.at(unit)).unwrap();
    }
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", &place.at("roxanne-nightly.timer"), &place.at("roxanne-nightly.service")]);
    let Ok(output) = verify.output() else {
        println!("SKIPPED: no systemd-analyze here");
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && !said.contains("roxanne-nightly"), "{said}");
}

/// The documents of a manifest; `None` where nothing here reads YAML.
fn documents(file: &str) -> Option<Vec<Value>> {
    let script = "import json, sys, yaml\nprint(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let output = Command::new("python3").args(["-c", script, &format!("{EXAMPLES}/{file}")]).output().ok()?;
    if String::from_utf8_lossy(&output.stderr).contains("ModuleNotFoundError") {
        return None;
    }
    assert!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).expect("JSON"))
}

#[test]
fn the_manifests_are_jobs_that_tell_what_the_script_reads() {
    let (Some(cron), Some(indexed)) = (documents("cronjob.yaml"), documents("indexed-job.yaml")) else {
        println!("SKIPPED: no python3 with yaml here");
        return;
    };
    let script = fs::read_to_string(format!("{EXAMPLES}/nightly.sh")).unwrap();
    let job = &cron[0]["spec"]["jobTemplate"]["spec"];
    let container = &job["template"]["spec"]["containers"][0];
    assert_eq!((cron.len(), cron[0]["kind"].as_str(), cron[0]["apiVersion"].as_str()), (1, Some("CronJob"), Some("batch/v1")));
    assert_eq!(container["command"][1].as_str(), Some("/usr/local/lib/roxanne/nightly.sh"));
    let told: Vec<&str> = container["env"].as_array().unwrap().iter().map(|env| env["name"].as_str().unwrap()).collect();
    let env = fs::read_to_string(format!("{EXAMPLES}/nightly.env")).unwrap();
    let told_there: Vec<&str> =
        env.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).filter(|n| !n.contains('#')).collect();
    for name in told.iter().chain(&told_there) {
        assert!(script.contains(&format!("${name}")) || script.contains(&format!("${{{name}:")), "the script reads no {name}");
    }
    assert!(["BASE", "BASE_KEYS", "QUERIES", "INDEXES"].iter().all(|name| told.contains(name) && told_there.contains(name)));
    // What no second try mends fails the job at once, by the name of the container that says so.
    for job in [job, &indexed[0]["spec"]] {
        let rule = &job["podFailurePolicy"]["rules"][0];
        assert_eq!(rule["onExitCodes"]["values"], serde_json::json!([2, 3, 4, 5, 6]));
        assert_eq!(rule["onExitCodes"]["containerName"], job["template"]["spec"]["containers"][0]["name"]);
        assert_eq!(job["template"]["spec"]["restartPolicy"].as_str(), Some("Never"));
    }
    assert_eq!(indexed[0]["spec"]["completionMode"].as_str(), Some("Indexed"));
    let steps = [
        &indexed[0]["spec"]["template"]["spec"]["initContainers"][0],
        &indexed[0]["spec"]["template"]["spec"]["containers"][0],
        &indexed[1]["spec"]["template"]["spec"]["containers"][0],
    ];
    let words = steps.map(|step| step["command"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect::<Vec<_>>());
    assert_eq!(words.each_ref().map(|words| words[1..3].join(" ")), ["shard plan", "shard build", "shard commit"]);
    let pods = indexed[0]["spec"]["completions"].as_u64().unwrap();
    assert!(words.iter().all(|words| words.windows(2).any(|w| w == ["--shards", &pods.to_string()])), "as many shards as pods");
    // The commands as they stand, on other paths and two pods.
    let place = Place::new();
    let index = place.at("new.rx");
    let run = |words: &[&str], pod: &str| {
        let word = |&word: &&str| match word {
            "/data/vectors/base.u8bin" => "synth:n=4000,dim=32,type=u8".to_string(),
            "/data/indexes/new.rx" => index.clone(),
            "$(JOB_COMPLETION_INDEX)" => pod.to_string(),
            word if word == pods.to_string() => "2".to_string(),
            word => word.to_string(),
        };
        let words: Vec<String> = words[1..].iter().map(word).collect();
        roxanne(&words.iter().map(String::as_str).collect::<Vec<_>>()).well()
    };
    for (words, pod) in [(&words[0], ""), (&words[1], "0"), (&words[1], "1"), (&words[2], "")] {
        run(words, pod);
    }
    assert!(roxanne(&["verify", &index]).well().code == Some(0));
}
