//! Yesterday's base and what has changed since: one input of several files.

use crate::shell::{Place, contents, roxanne};
use std::fs;

/// 300 rows with the keys 1000 on, three files of changes, a list of deleted keys, and the flags that say so.
struct Night {
    place: Place,
    flags: Vec<String>,
}

const BASE: &str = "synth:n=300,dim=8,type=u8,clusters=8";

fn lines(keys: impl IntoIterator<Item = u64>) -> String {
    keys.into_iter().map(|key| format!("{key}\n")).collect()
}

impl Night {
    fn new() -> Night {
        let place = Place::new();
        let keys = place.write("base.keys", lines(1000..1300));
        let mut flags = vec!["--keys".to_string(), keys];
        // Replaces every tenth and adds some; replaces some of both again; nothing.
        let changes = [
            (40, lines((0..30).map(|i| 1000 + 10 * i).chain(2000..2010))),
            (7, lines([1000, 1001, 2000, 2001, 2500, 1299, 1298])),
            (0, String::new()),
        ];
        for (number, (n, keys)) in changes.into_iter().enumerate() {
            let keys = place.write(&format!("{number}.keys"), keys);
            // `synth:` has rows always; a file may have none.
            let vectors = if n == 0 {
                place.write("none.u8bin", [0u32, 8].map(u32::to_le_bytes).concat())
            } else {
                format!("synth:n={n},dim=8,type=u8,clusters=8,seed={}", number + 5)
            };
            flags.extend(["--changes".to_string(), format!("{vectors}:{keys}")]);
        }
        let deleted = place.write("gone.txt", lines([1007, 2005, 1000, 77, 1007]));
        flags.extend(["--deleted".to_string(), deleted]);
        Night { place, flags }
    }

    /// The arguments of a command over it.
    fn args<'a>(&'a self, command: &[&'a str]) -> Vec<&'a str> {
        command.iter().copied().chain(self.flags.iter().map(String::as_str)).collect()
    }
}

#[test]
fn an_index_of_base_and_changes_is_that_of_the_one_file_they_make() {
    let night = Night::new();
    let place = &night.place;
    let [flat, keys, a, b] = ["flat.u8bin", "flat.keys", "a", "b"].map(|name| place.at(name));
    let run = roxanne(&night.args(&["convert", BASE, &flat, "--keys-to", &keys])).well();
    // 300 and 11 new ones; of the keys to delete 1000, 1007 and 2005 are there.
    assert!(
        run.stderr.contains("300 vectors, 32 replaced, 10 added, 3 deleted (1 more keys to delete stand in no file): 308 now"),
        "{run:?}"
    );
    for shards in ["1", "2"] {
        let [a, b] = [&a, &b].map(|path| format!("{path}{shards}"));
        roxanne(&night.args(&["build", BASE, "-o", &a, "--degree", "16", "--shards", shards])).well();
        roxanne(&["build", &flat, "--keys", &keys, "-o", &b, "--degree", "16", "--shards", shards]).well();
        assert_eq!(contents(a.as_ref()), contents(b.as_ref()), "{shards} shards");
        roxanne(&["verify", &a]).well();
    }
    // The same input again is the same index; a night later it is another.
    let again = roxanne(&night.args(&["build", BASE, "-o", &format!("{a}1"), "--degree", "16"])).well();
    assert!(again.stderr.contains("complete already"), "{again:?}");
    fs::write(place.at("gone.txt"), lines([1007, 2005, 1000, 1002])).unwrap();
    roxanne(&night.args(&["build", BASE, "-o", &format!("{a}1"), "--degree", "16"])).failed_last(3, &["307 x 8"]);
}

#[test]
fn truth_and_eval_see_the_same_rows_as_the_build() {
    let night = Night::new();
    let place = &night.place;
    let [index, truth] = ["index", "gt.bin"].map(|name| place.at(name));
    let queries = "synth:n=20,dim=8,type=u8,clusters=8,part=query";
    roxanne(&night.args(&["build", BASE, "-o", &index])).well();
    roxanne(&night.args(&["truth", BASE, queries, "-o", &truth, "-k", "10"])).well();
    let run = roxanne(&night.args(&["eval", &index, "-q", queries, "-g", &truth, "--sweep", "128", "--json"])).well();
    assert!(run.json()["points"][0]["recall"].as_f64().unwrap() > 0.95, "{run:?}");
    let some = roxanne(&night.args(&["plan", BASE, "--json", "--limit", "100"])).well().json();
    assert_eq!(some["n"].as_u64(), Some(100));
    // Without the changes the rows of the truth cannot be told.
    roxanne(&["eval", &index, "-q", queries, "-g", &truth, "--keys", &place.at("base.keys")]).failed(3, &["base.keys", "308", "--changes"]);
}

#[test]
fn string_keys_are_replaced_and_deleted_too() {
    let place = Place::new();
    let base = place.write("base.keys", (0..300).map(|row| format!("doc {row}\n")).collect::<String>());
    let keys = place.write("new.keys", "doc 7\nnew one\n42\n");
    let gone = place.write("gone", "doc 8\n");
    let change = format!("synth:n=3,dim=8,type=u8,clusters=8,seed=9:{keys}");
    let [flat, flat_keys] = ["flat.npy", "flat.keys"].map(|name| place.at(name));
    roxanne(&["convert", BASE, &flat, "--keys", &base, "--changes", &change, "--deleted", &gone, "--keys-to", &flat_keys]).well();
    let written = fs::read_to_string(&flat_keys).unwrap();
    assert_eq!(written.lines().count(), 301);
    assert!(written.starts_with("doc 0\n") && written.ends_with("doc 299\ndoc 7\nnew one\n42\n"), "{written}");
}

#[test]
fn changes_that_make_no_sense_are_refused_by_name() {
    let place = Place::new();
    let out = place.at("x");
    let base = place.write("base.keys", lines(1000..1300));
    let build = |more: &[&str]| roxanne(&[&["build", BASE, "-o", &out, "--keys", &base], more].concat());
    let rows = |n: usize| format!("synth:n={n},dim=8,type=u8,clusters=8,seed=3");
    let file = |name: &str, text: &str| place.write(name, text);

    let twice = file("twice.keys", "5\n6\n7\n6\n");
    build(&["--changes", &format!("{}:{twice}", rows(4))]).failed(3, &["twice.keys", "key 6", "row 1", "row 3"]);
    let short = file("short.keys", "5\n6\n");
    build(&["--changes", &format!("{}:{short}", rows(3))]).failed(3, &["short.keys", "2 keys for 3 vectors"]);
    let empty = file("empty.keys", "a\n\nb\n");
    build(&["--changes", &format!("{}:{empty}", rows(3))]).failed(3, &["empty.keys", "row 1", "1 to 512 bytes"]);
    let texts = file("texts.keys", "a\nb\n");
    build(&["--changes", &format!("{}:{texts}", rows(2))]).failed(3, &["texts.keys", "strings", "numbers"]);
    for (source, word) in [("synth:n=2,dim=9,type=u8", "9 x u8"), ("synth:n=2,dim=8,type=i8", "8 x i8")] {
        build(&["--changes", &format!("{source}:{short}")]).failed(3, &[word, "8 x u8", "roxanne convert"]);
    }
    build(&["--changes", &format!("{}:{}", rows(2), place.at("none"))]).failed(3, &["none", "No such file"]);
    build(&["--changes", &format!("{}:{short}", place.at("none.u8bin"))]).failed(3, &["none.u8bin"]);
    // A base of one key for two rows is no base.
    let torn = file("torn.keys", &(lines(1000..1299) + "1000\n"));
    let args = ["build", BASE, "-o", &out, "--keys", &torn, "--deleted", &short];
    roxanne(&args).failed(3, &["torn.keys", "key 1000", "row 0", "row 299"]);
    // Everything is gone.
    let all = file("all", &lines(1000..1300));
    build(&["--deleted", &all]).failed_last(3, &["0 vectors"]);

    for (args, word) in [
        (vec!["build", BASE, "-o", &out, "--keys", &base, "--changes", "tuesday.u8bin"], "tuesday.u8bin:tuesday.keys"),
        (vec!["build", BASE, "-o", &out, "--changes", "a.u8bin:a.keys"], "--keys"),
        (vec!["build", BASE, "-o", &out, "--deleted", "gone"], "--keys"),
        (vec!["convert", BASE, &out, "--keys-to", "k"], "--keys"),
    ] {
        let run = roxanne(&args);
        assert!(run.code == Some(2) && run.stderr.contains(word), "{args:?}: {run:?}");
    }
    assert!(!place.names().iter().any(|name| name == "x" || name.starts_with(".x")), "{:?}", place.names());
}
