//! `search` asked in other ways than by a file and a list size, and `tune`, which knows which list size gives which recall.

use crate::cgroup::Cgroup;
use crate::shell::{Place, SIFT_BASE, SIFT_QUERIES, SMALL, roxanne};
use std::fs;

/// The hits of a search as (key, distance).
fn hits(args: &[&str]) -> Vec<(String, f64)> {
    let run = roxanne(args).well();
    let hit = |line: &str| -> (String, f64) {
        let cells: Vec<&str> = line.split('\t').collect();
        (cells[2].to_string(), cells[3].parse().expect("a distance"))
    };
    run.stdout.lines().map(hit).collect()
}

#[test]
fn a_key_of_the_index_is_searched_by_its_vector() {
    let place = Place::new();
    let keys = place.write("keys.txt", (0..300).map(|row| format!("doc {row}\n")).collect::<String>().into_bytes());
    let index = place.build(SMALL, "index", &["--keys", &keys]);
    let found = hits(&["search", &index, "--key", "doc 7", "-k", "4"]);
    assert_eq!((found.len(), found[0].0.as_str(), found[0].1), (4, "doc 7", 0.0));
    roxanne(&["search", &index, "--key", "doc 300"]).failed(3, &["doc 300", "holds no key"]);
    assert_eq!(roxanne(&["search", &index]).code, Some(2));
    assert_eq!(roxanne(&["search", &index, "--key", "doc 7", "-q", SMALL]).code, Some(2));
}

#[test]
fn a_radius_a_filter_and_the_exact_way_agree() {
    let place = Place::new();
    let index = place.build(SMALL, "index", &[]);
    let base = ["search", &index, "--key", "11"];
    let with = |more: &[&str]| hits(&[&base[..], more].concat());
    let exact = with(&["--exact", "-k", "20"]);
    assert_eq!(exact.len(), 20);
    let radius = exact[12].1;
    let near = with(&["--radius", &radius.to_string(), "--list-size", "64"]);
    assert!(near.len() >= 13 && near.iter().all(|(_, distance)| *distance <= radius), "{near:?}");
    let among = place.write("some.txt", b"3\n11\n250\n7777\n");
    let few = with(&["--among", &among]);
    let mut keys: Vec<&str> = few.iter().map(|(key, _)| key.as_str()).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["11", "250", "3"]);
    assert_eq!(few, with(&["--among", &among, "--exact"]));
    roxanne(&["search", &index, "--key", "1", "--radius", "NaN"]).failed(2, &["radius"]);
    roxanne(&["search", &index, "--key", "1", "--among", &place.at("none.txt")]).failed(3, &["none.txt"]);
}

#[test]
fn memory_and_determinism_change_no_answer_of_a_full_search() {
    let place = Place::new();
    let index = place.build(SMALL, "index", &[]);
    let base = ["search", &index, "-q", SMALL, "--limit", "20", "-k", "300", "--list-size", "300"];
    let plain = hits(&base);
    for more in [&["--deterministic"][..], &["--ram", "1G"], &["--adjacency", "ram"], &["--ram", "1G", "--deterministic"]] {
        assert_eq!(hits(&[&base[..], more].concat()), plain, "{more:?}");
    }
    let value = roxanne(&["search", &index, "--key", "1", "--ram", "1G", "--json"]).well().json();
    assert_eq!((value["queries"][0]["way"].as_str(), value["queries"][0]["reads"].as_u64()), (Some("resident"), Some(0)));
    assert_eq!(value["queries"][0]["complete"], true);
    roxanne(&["search", &index, "--key", "1", "--ram", "1M"]).failed(4, &["bytes of memory"]);
    let cut = roxanne(&["search", &index, "--key", "1", "--deadline", "0", "--list-size", "300"]).well();
    assert!(cut.stderr.contains("its time was over"), "{cut:?}");
}

#[test]
fn tune_finds_the_effort_for_a_recall_and_search_takes_it() {
    let place = Place::new();
    let index = place.build(SIFT_BASE, "index", &[]);
    roxanne(&["search", &index, "-q", SIFT_QUERIES, "--recall", "0.9"]).failed(3, &["roxanne tune"]);
    let truth = place.at("gt.bin");
    roxanne(&["truth", SIFT_BASE, SIFT_QUERIES, "-k", "10", "-o", &truth]).well();
    for given in [&["-q", SIFT_QUERIES, "-g", &truth][..], &["--sample", "100"]] {
        let tuned = roxanne(&[&["tune", &index, "--target", "0.9", "--json"], given].concat()).well().json();
        let points = tuned["points"].as_array().unwrap();
        let recalls: Vec<f64> = points.iter().map(|point| point["recall"].as_f64().unwrap()).collect();
        assert!(recalls.is_sorted() && recalls[0] > 0.5 && recalls[recalls.len() - 1] > 0.98, "{recalls:?}");
        assert!(tuned["slack"].as_f64().is_some_and(|slack| slack > 0.0 && slack < 0.3), "{tuned}");
    }
    for file in ["CALIBRATION", "warm.rx"] {
        assert!(place.root().join("index").join(file).exists(), "{file}");
    }
    // The index is whole with them, and searches by recall.
    roxanne(&["verify", &index]).well();
    assert_eq!(hits(&["search", &index, "-q", SIFT_QUERIES, "--recall", "0.95", "--limit", "3"]).len(), 30);
    roxanne(&["tune", &index, "--sweep", "slack=0.01", "--target", "0.999"]).failed_last(5, &["0.999"]);
    roxanne(&["search", &index, "-q", SIFT_QUERIES, "--recall", "0.999"]).failed(3, &["0.999"]);
    assert_eq!(roxanne(&["search", &index, "-q", SIFT_QUERIES, "--recall", "1.1"]).code, Some(2));
    roxanne(&["tune", &index, "-q", SIFT_QUERIES, "-g", &truth, "-k", "11"]).failed(3, &["10 neighbors"]);
}

#[test]
fn tune_knows_keys_of_any_kind() {
    let place = Place::new();
    let texts: [Vec<u8>; 2] = [
        (0..300u64).map(|row| format!("{}\n", row * 1_000_000_007)).collect::<String>().into_bytes(),
        (0..300).map(|row| format!("doc {row}\n")).collect::<String>().into_bytes(),
    ];
    for (number, text) in texts.into_iter().enumerate() {
        let keys = place.write(&format!("keys{number}.txt"), text);
        let index = place.build(SMALL, &format!("index{number}"), &["--keys", &keys]);
        let tuned = roxanne(&["tune", &index, "--sample", "50", "--sweep", "slack=0.05,0.5", "--json"]).well().json();
        assert!(tuned["points"][1]["recall"].as_f64().unwrap() > 0.99, "{tuned}");
    }
    let few = place.build("synth:n=5,dim=8", "few", &[]);
    roxanne(&["tune", &few]).failed(3, &["too few"]);
    assert!(!fs::exists(place.root().join("few/CALIBRATION")).unwrap());
}

#[test]
fn eval_measures_each_number_of_queries_in_flight() {
    let place = Place::new();
    let index = place.build(SIFT_BASE, "index", &[]);
    let truth = place.at("gt.bin");
    roxanne(&["truth", SIFT_BASE, SIFT_QUERIES, "-k", "10", "-o", &truth]).well();
    let base = ["eval", &index, "-q", SIFT_QUERIES, "-g", &truth, "--sweep", "40", "--json"];
    let points = |more: &[&str]| roxanne(&[&base[..], more].concat()).well().json()["points"].as_array().unwrap().clone();
    let all = points(&["--in-flight", "1,2,8,64", "--threads", "2", "--deterministic"]);
    let shape = |p: &serde_json::Value| (p["in_flight"].as_u64().unwrap(), p["threads"].as_u64().unwrap());
    assert_eq!(all.iter().map(shape).collect::<Vec<_>>(), [(1, 1), (2, 2), (8, 2), (64, 2)]);
    assert!(all.iter().all(|point| point["recall"] == all[0]["recall"] && point["way"] == "flash"), "{all:?}");
    let cached = points(&["--ram", "24M", "--warm-with", SIFT_QUERIES]);
    assert!(cached[0]["reads"].as_f64() < all[0]["reads"].as_f64(), "{cached:?}");
    assert!(points(&["--adjacency", "ram"])[0]["reads"].as_f64() < all[0]["reads"].as_f64());
    assert_eq!(points(&["--ram", "1G"])[0]["reads"], 0.0);
    assert_eq!(roxanne(&[&base[..], &["--in-flight", "5000"]].concat()).code, Some(2));
}

#[test]
fn an_index_is_served_within_the_memory_that_it_was_given() {
    let place = Place::new();
    let (base, queries) = ("synth:n=60000,dim=64,type=u8,clusters=128", "synth:n=400,dim=64,type=u8,clusters=128,part=query");
    let (index, truth) = (place.build(base, "index", &[]), place.at("gt.bin"));
    roxanne(&["truth", base, queries, "-k", "10", "-o", &truth]).well();
    let args = |ram: &'static str| {
        let flags = ["--threads", "2", "--in-flight", "2,32", "--sweep", "16,64", "--json", "--ram", ram];
        [&["eval", &index, "-q", queries, "-g", &truth][..], &flags].concat()
    };
    // Codes and little else, some of the pages, all of them.
    for (ram, bytes) in [("28M", 28 << 20), ("32M", 32 << 20), ("64M", 64 << 20)] {
        let Some(cgroup) = Cgroup::new(&format!("served-{ram}"), bytes) else {
            println!("skipped: no memory cgroup can be made here (it takes root and a writable cgroup file system)");
            return;
        };
        let points = cgroup.roxanne(&args(ram)).well().json()["points"].as_array().unwrap().clone();
        let most = points.iter().map(|point| point["rss_bytes"].as_u64().unwrap()).max();
        assert!(points.len() == 4 && most <= Some(bytes), "{most:?} bytes within {ram}");
    }
}
