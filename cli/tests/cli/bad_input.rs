//! Files that are not what they say: exit 3, the place named, nothing left behind.

use crate::shell::{Place, Run, SMALL, fbin, fvecs, npy, roxanne};
use std::{fs, process::Command};

/// Builds `name` with these `bytes` and holds that it is refused with all `words`, and that nothing but it is there afterwards.
#[track_caller]
fn refused_under(metric: &str, name: &str, bytes: &[u8], words: &[&str]) {
    let place = Place::new();
    let path = place.write(name, bytes);
    roxanne(&["build", &path, "-o", &place.at("out.rx"), "-m", metric]).failed(3, words).is_silent();
    assert_eq!(place.names(), [name], "only the input is left");
    assert_eq!(fs::read(&path).expect("the input is still there"), bytes);
}

#[track_caller]
fn refused(name: &str, bytes: &[u8], words: &[&str]) {
    refused_under("l2", name, bytes, &[words, &[name]].concat());
}

impl Run {
    /// Holds that stdout, which is for data, has none.
    #[track_caller]
    fn is_silent(&self) {
        assert_eq!(self.stdout, "", "{self:?}");
    }
}

fn rows(n: usize, dim: usize) -> Vec<Vec<f32>> {
    (0..n).map(|row| (0..dim).map(|i| (row * 31 + i * 7) as f32 % 17.0 - 3.5).collect()).collect()
}

/// A header of `n` and `dim` and so many bytes behind it.
fn headed(n: u32, dim: u32, bytes: usize) -> Vec<u8> {
    [n.to_le_bytes(), dim.to_le_bytes()].concat().into_iter().chain(std::iter::repeat_n(1, bytes)).collect()
}

#[test]
fn a_header_that_promises_more_than_there_is_is_refused_with_both_lengths() {
    for (name, row_bytes) in [("a.fbin", 20), ("a.f16bin", 10), ("a.bf16bin", 10), ("a.u8bin", 5), ("a.i8bin", 5)] {
        let whole = 8 + 10 * row_bytes;
        let (expected, got) = (whole.to_string(), (whole - 1).to_string());
        refused(name, &headed(10, 5, 10 * row_bytes - 1), &["row 9", &expected, &got]);
        let (expected, got) = (whole.to_string(), (whole - 3 * row_bytes).to_string());
        refused(name, &headed(10, 5, 7 * row_bytes), &["row 7", &expected, &got]);
    }
    let numpy = npy("'<f4'", false, "(10, 5)", &[0; 199]);
    refused("a.npy", &numpy, &["row 9", &numpy.len().to_string(), &(numpy.len() + 1).to_string()]);
}

#[test]
fn a_header_that_promises_less_than_there_is_is_refused_with_both_lengths() {
    refused("a.fbin", &headed(10, 5, 201), &["208", "209"]);
    // The usual reason: a file of floats under the name of one of bytes.
    refused("a.u8bin", &fbin(&rows(10, 5)), &["58", "208", "element type"]);
    refused("a.npy", &npy("'<f4'", false, "(10, 5)", &[0; 204]), &["10 rows of 5"]);
}

#[test]
fn a_header_that_lies_about_billions_costs_nothing() {
    refused("a.fbin", &headed(u32::MAX, 8192, 100), &["140737488322568", "108"]);
    refused("a.u8bin", &headed(u32::MAX, 1, 0), &["4294967303"]);
    refused("a.npy", &npy("'<f4'", false, "(18446744073709551615, 8192)", &[0; 16]), &[]);
    refused("a.npy", &npy("'<f4'", false, "(4611686018427387905, 4)", &[0; 16]), &[]);
}

#[test]
fn a_file_shorter_than_its_header_is_refused() {
    for name in ["a.fbin", "a.u8bin", "a.npy"] {
        for bytes in [&b""[..], &[1], &[1, 0, 0, 0, 2, 0, 0]] {
            refused(name, bytes, &[]);
        }
    }
    refused("a.fvecs", &[], &["no rows"]);
    refused("a.fvecs", &[4, 0, 0], &[]);
    let whole = npy("'<f4'", false, "(2, 2)", &[0; 16]);
    for end in [6, 9, 10, 30, whole.len() - 17] {
        refused("a.npy", &whole[..end], &[]);
    }
}

#[test]
fn a_dimension_out_of_range_is_refused() {
    for dim in [0u32, 8193, u32::MAX] {
        refused("a.fbin", &headed(1, dim, 4 * (dim as usize).min(8193)), &[&dim.to_string(), "8192"]);
    }
    let (zero, negative) = (0i32.to_le_bytes(), (-1i32).to_le_bytes());
    refused("a.fvecs", &zero, &["dimension 0"]);
    refused("a.fvecs", &[negative, negative].concat(), &["dimension -1"]);
    refused("a.npy", &npy("'<f4'", false, "(1, 8193)", &[0; 8193 * 4]), &["8193"]);
}

#[test]
fn a_dimension_that_changes_within_the_file_is_named_by_row() {
    let mut changed = rows(20, 3);
    changed[13] = vec![0.5; 4];
    refused("a.fvecs", &fvecs(&changed), &["row 13", "byte 208", "dimension 4", "row 0 has 3"]);
    // A longer row that keeps the length a whole number of rows: found when it is read.
    changed[13] = vec![0.5; 7];
    refused("a.fvecs", &fvecs(&changed), &["row 13", "byte 208", "dimension 7"]);
    let bvecs: Vec<u8> = (0..9u8).flat_map(|row| [if row == 4 { 3 } else { 4 }, 0, 0, 0, row, 1, 2, 3]).collect();
    refused("a.bvecs", &bvecs, &["row 4", "dimension 3"]);
}

#[test]
fn a_row_that_is_cut_off_is_named() {
    let whole = fvecs(&rows(20, 3));
    for cut in [1, 5, 12, 13, 15] {
        refused("a.fvecs", &whole[..whole.len() - cut], &["row 19", "byte 304"]);
    }
}

#[test]
fn a_value_that_is_not_finite_is_named_by_row() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut values = rows(50, 6);
        values[33][4] = bad;
        refused("a.fbin", &fbin(&values), &["row 33", "coordinate 4"]);
        refused("a.fvecs", &fvecs(&values), &["row 33", "coordinate 4"]);
        let doubles: Vec<u8> = values.iter().flatten().flat_map(|&v| f64::from(v).to_be_bytes()).collect();
        refused("a.npy", &npy("'>f8'", false, "(50, 6)", &doubles), &["row 33", "coordinate 4"]);
    }
    // Half floats: 0x7C00 is infinity, 0x7E01 a NaN.
    for bad in [0x7C00u16, 0xFC00, 0x7E01] {
        let mut halves = vec![0x3C00u16; 50 * 6];
        halves[33 * 6 + 4] = bad;
        let raw: Vec<u8> = halves.iter().flat_map(|h| h.to_le_bytes()).collect();
        refused("a.npy", &npy("'<f2'", false, "(50, 6)", &raw), &["row 33", "coordinate 4"]);
        refused("a.f16bin", &[&headed(50, 6, 0), &raw[..]].concat(), &["row 33", "coordinate 4"]);
    }
    let mut beyond: Vec<u8> = vec![0; 50 * 6 * 8];
    beyond[(33 * 6 + 4) * 8..][..8].copy_from_slice(&1e300f64.to_le_bytes());
    refused("a.npy", &npy("'<f8'", false, "(50, 6)", &beyond), &["row 33", "coordinate 4", "f32"]);
    let mut long = rows(50, 6);
    long[33].fill(1e30);
    refused("a.fbin", &fbin(&long), &["row 33", "too long"]);
}

#[test]
fn a_zero_vector_has_no_place_under_cosine_and_one_under_l2() {
    let mut values = rows(40, 5);
    values[21].fill(0.0);
    refused_under("cos", "a.fbin", &fbin(&values), &["a.fbin", "row 21", "zero vector"]);
    let place = Place::new();
    let path = place.write("a.fbin", fbin(&values));
    for metric in ["l2", "dot", "l1"] {
        place.build(&path, metric, &["-m", metric]);
    }
}

#[test]
fn no_vectors_are_refused() {
    refused("a.fbin", &headed(0, 5, 0), &["0 vectors"]);
    refused("a.npy", &npy("'<f4'", false, "(0, 5)", &[]), &["0 vectors"]);
    let place = Place::new();
    roxanne(&["build", "synth:n=0,dim=5", "-o", &place.at("x")]).failed(3, &["0 vectors"]);
}

#[test]
fn numpy_arrays_of_other_shapes_and_types_are_refused_with_the_line_that_helps() {
    refused("a.npy", &npy("'<f4'", true, "(2, 2)", &[0; 16]), &["Fortran", "np.ascontiguousarray"]);
    refused("a.npy", &npy("'<f4'", false, "(4,)", &[0; 16]), &["1 dimensions", "reshape"]);
    refused("a.npy", &npy("'<f4'", false, "(1, 2, 2)", &[0; 16]), &["3 dimensions", "reshape"]);
    refused("a.npy", &npy("'<f4'", false, "()", &[0; 4]), &["reshape"]);
    refused("a.npy", &npy("'<i8'", false, "(1, 2)", &[0; 16]), &["<i8", "astype"]);
    refused("a.npy", &npy("'|O'", false, "(1, 2)", &[0; 16]), &["|O"]);
    refused("a.npy", &npy("'|b1'", false, "(2, 8)", &[0; 16]), &["bool", "packbits"]);
    refused("a.npy", &npy("[('x', '<f4')]", false, "(2,)", &[0; 8]), &["structured"]);
    refused("a.npy", b"PK\x03\x04 an npz is a zip file", &["numpy.save"]);
    refused("a.npy", &npy("'<f4'", false, "(-1, 2)", &[0; 16]), &["numpy.save"]);
    let mut version = npy("'<f4'", false, "(2, 2)", &[0; 16]);
    version[6] = 9;
    refused("a.npy", &version, &["version 9"]);
}

#[test]
fn what_is_no_file_of_vectors_is_refused() {
    let place = Place::new();
    let out = place.at("out.rx");
    roxanne(&["build", &place.at("absent.fbin"), "-o", &out]).failed(3, &["absent.fbin", "No such file"]);
    roxanne(&["build", &place.write("a.txt", "1 2 3"), "-o", &out]).failed(3, &["a.txt", ".fbin", ".npy"]);
    roxanne(&["build", &place.write("noextension", "x"), "-o", &out]).failed(3, &["noextension", ".fbin"]);
    roxanne(&["build", &place.write("gt.ivecs", [0; 8]), "-o", &out]).failed(3, &["gt.ivecs", "neighbor ids"]);
    fs::create_dir(place.at("dir.fbin")).unwrap();
    roxanne(&["build", &place.at("dir.fbin"), "-o", &out]).failed(3, &["dir.fbin", "regular file"]);
    roxanne(&["build", "synth:n=10", "-o", &out]).failed(3, &["dim is missing", "example"]);
    roxanne(&["build", "", "-o", &out]).failed(3, &[]);
    if Command::new("mkfifo").arg(place.at("pipe.fbin")).status().is_ok_and(|status| status.success()) {
        // Opened, it would wait for a writer for ever.
        roxanne(&["build", &place.at("pipe.fbin"), "-o", &out]).failed(3, &["pipe.fbin", "regular file"]);
    }
    assert!(!place.root().join("out.rx").exists());
}

#[test]
fn a_metric_that_does_not_go_with_the_vectors_is_refused() {
    let place = Place::new();
    let out = place.at("out.rx");
    roxanne(&["build", SMALL, "-o", &out, "-m", "hamming"]).failed(3, &["hamming"]);
    roxanne(&["build", "synth:n=50,dim=16,type=binary", "-o", &out]).failed(3, &["l2", "binary"]);
    assert!(place.names().is_empty());
}

#[test]
fn every_command_that_reads_vectors_refuses_the_same_files() {
    let mut values = rows(30, 4);
    values[17][2] = f32::NAN;
    let place = Place::new();
    let (good, bad) = (place.write("good.fbin", fbin(&rows(30, 4))), place.write("bad.fbin", fbin(&values)));
    let short = place.write("short.fbin", &fbin(&rows(30, 4))[..400]);
    let index = place.build(&good, "index", &[]);
    let before = place.names();
    let out = place.at("gt.bin");
    for file in [&bad, &short] {
        let row = if *file == bad { "row 17" } else { "row 24" };
        roxanne(&["truth", file, &good, "-o", &out]).failed(3, &[row]);
        roxanne(&["truth", &good, file, "-o", &out]).failed(3, &[row]);
        roxanne(&["convert", file, &place.at("x.npy")]).failed(3, &[row, file]);
        roxanne(&["search", &index, "-q", file]).failed(3, &[row]);
    }
    roxanne(&["plan", &short]).failed(3, &["row 24"]);
    assert_eq!(place.names(), before);
}

#[test]
fn keys_that_do_not_name_the_rows_are_refused() {
    let place = Place::new();
    let lines = |change: &dyn Fn(&mut Vec<String>)| {
        let mut lines: Vec<String> = (0..300).map(|row| format!("doc {row}")).collect();
        change(&mut lines);
        lines.join("\n")
    };
    let cases: [(&str, Vec<u8>, &[&str]); 7] = [
        ("few.txt", lines(&|l| l.truncate(299)).into(), &["299 keys for 300"]),
        ("twice.txt", lines(&|l| l[250] = "doc 7".into()).into(), &["doc 7", "row 7", "row 250"]),
        ("empty.txt", lines(&|l| l[9].clear()).into(), &["row 9"]),
        ("long.txt", lines(&|l| l[9] = "x".repeat(513)).into(), &["row 9", "513"]),
        ("latin.txt", b"a\nb\n\xe9t\xe9\n".to_vec(), &["latin.txt", "line 3", "UTF-8"]),
        ("float.npy", npy("'<f8'", false, "(300,)", &[0; 2400]), &["float.npy", "<f8"]),
        ("negative.npy", npy("'|i1'", false, "(300,)", &[0xFF; 300]), &["negative.npy", "row 0"]),
    ];
    for (name, bytes, words) in cases {
        let keys = place.write(name, bytes);
        roxanne(&["build", SMALL, "-o", &place.at("x"), "--keys", &keys]).failed(3, words);
    }
    roxanne(&["build", SMALL, "-o", &place.at("x"), "--keys", &place.at("absent")]).failed(3, &["absent"]);
    assert!(place.names().iter().all(|name| name.contains('.') && !name.contains("partial")), "{:?}", place.names());
}

#[test]
fn queries_that_do_not_fit_the_index_are_refused() {
    let place = Place::new();
    let floats = place.build(SMALL, "floats", &[]);
    let bytes = place.build("synth:n=100,dim=3,type=u8", "bytes", &[]);
    let cosine = place.build(SMALL, "cosine", &["-m", "cos"]);
    roxanne(&["search", &floats, "-q", "synth:n=5,dim=9"]).failed(3, &["9 dimensions", "8"]);
    roxanne(&["search", &floats, "-q", "v=1,2"]).failed(3, &["2 dimensions", "8"]);
    roxanne(&["search", &bytes, "-q", "v=1,2,3.5"]).failed(3, &["coordinate 2", "3.5", "u8"]);
    let mut queries = vec![vec![1.0, 2.0, 3.0]; 5];
    queries[3][1] = 256.0;
    roxanne(&["search", &bytes, "-q", &place.write("q.fbin", fbin(&queries)), "--json"]).failed(3, &["query 3", "coordinate 1", "256"]);
    roxanne(&["search", &cosine, "-q", "v=0,0,0,0,0,0,0,0"]).failed(3, &["zero vector"]);
    roxanne(&["search", &floats, "-q", &place.at("absent.npy")]).failed(3, &["absent.npy"]);
    for command in [&["search"][..], &["info"], &["verify"]] {
        let queries: &[&str] = if command == ["search"] { &["-q", "v=1"] } else { &[] };
        for (path, word) in [(place.at("nothing"), "no such directory"), (place.at("q.fbin"), "not a roxanne index")] {
            roxanne(&[command, &[&path], queries].concat()).failed(3, &[&path, word]);
        }
        let root = place.root().to_str().unwrap();
        roxanne(&[command, &[root], queries].concat()).failed(3, &["no MANIFEST"]);
    }
}
