//! The users' own names of vectors: they come back with every hit, and lead back to their vector.

use roxanne_builder::Builder;
use roxanne_core::{
    ErrorClass,
    dataset::Dataset,
    format::keys::{KeyList, MAX_KEY_BYTES},
    id::Key,
    metric::Metric,
};
use roxanne_engine::{Index, SearchParams};
use roxanne_tests::{names, open, rows, scratch, scratch_in_memory, small};
use tempfile::TempDir;

const SOURCE: &str = "synth:n=400,dim=12,clusters=16";

fn keyed(keys: KeyList) -> (TempDir, Index) {
    let dir = scratch_in_memory();
    let path = dir.path().join("index");
    Builder::new(Metric::L2).params(small()).input(SOURCE).expect("the source").keys(keys).build(&path).expect("a built index");
    let index = open(&path);
    (dir, index)
}

/// The nearest vector's key for each row of the source, searched by itself.
fn own_keys(index: &Index) -> Vec<Key> {
    let params = SearchParams { k: 1, list_size: 100, ..SearchParams::default() };
    rows(SOURCE, Metric::L2).iter().map(|row| index.search(row, &params).expect("an answer").hits[0].key).collect()
}

#[test]
fn without_keys_a_row_is_its_number() {
    let (_dir, index) = keyed(KeyList::Rows(400));
    assert!(index.info().row_keys && !index.info().string_keys);
    assert!(own_keys(&index).into_iter().eq((0..400).map(Key)));
    assert_eq!(index.find("399").unwrap(), Some(Key(399)));
    assert_eq!(index.get("17").unwrap().unwrap(), rows(SOURCE, Metric::L2)[17]);
    for none in ["400", "-1", "", "x", "18446744073709551616"] {
        assert_eq!((index.find(none).unwrap(), index.get(none).unwrap()), (None, None), "{none:?}");
    }
    assert_eq!(index.key_name(Key(3)).unwrap(), None);
}

#[test]
fn number_keys_come_back_and_lead_to_their_vectors() {
    let key = |row: u64| row.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(7);
    let (_dir, index) = keyed(KeyList::Numbers((0..400).map(key).collect()));
    assert!(!index.info().row_keys && !index.info().string_keys);
    assert!(own_keys(&index).into_iter().eq((0..400).map(|row| Key(key(row)))));
    for (row, vector) in rows(SOURCE, Metric::L2).into_iter().enumerate() {
        let text = key(row as u64).to_string();
        assert_eq!(index.find(&text).unwrap(), Some(Key(key(row as u64))));
        assert_eq!(index.get(&text).unwrap(), Some(vector));
    }
    assert_eq!(index.find("12345").unwrap(), None);
}

#[test]
fn string_keys_come_back_and_lead_to_their_vectors() {
    let key = |row: usize| match row {
        0 => "x".repeat(MAX_KEY_BYTES),
        1 => "a\ttab, a\nline and a \\".to_string(),
        _ => format!("doc/{}-日本語é", row * 7919 % 400),
    };
    let (_dir, index) = keyed(KeyList::Strings((0..400).map(key).collect()));
    assert!(index.info().string_keys);
    let names: Vec<String> = own_keys(&index).into_iter().map(|k| index.key_name(k).unwrap().unwrap()).collect();
    assert!(names.into_iter().eq((0..400).map(key)));
    for (row, vector) in rows(SOURCE, Metric::L2).into_iter().enumerate() {
        assert_eq!(index.get(&key(row)).unwrap(), Some(vector), "{}", key(row));
        assert_eq!(index.find(&key(row)).unwrap(), Some(Key(row as u64)));
    }
    for none in ["", "3", "doc/", "zzz", "doc/0-日本語"] {
        assert_eq!(index.find(none).unwrap(), None, "{none:?}");
    }
}

#[test]
fn keys_that_do_not_name_the_rows_are_refused() {
    let strings = |change: &dyn Fn(&mut Vec<String>)| {
        let mut keys: Vec<String> = (0..400).map(|row| format!("k{row}")).collect();
        change(&mut keys);
        KeyList::Strings(keys)
    };
    let dir = scratch();
    let cases = [
        (KeyList::Numbers((0..399).collect()), vec!["399", "400"]),
        (KeyList::Numbers((0..400).map(|row| if row == 300 { 44 } else { row }).collect()), vec!["key 44", "row 44", "row 300"]),
        (strings(&|keys| keys[77] = "k9".into()), vec!["\"k9\"", "row 9", "row 77"]),
        (strings(&|keys| keys[5].clear()), vec!["row 5"]),
        (strings(&|keys| keys[6] = "x".repeat(MAX_KEY_BYTES + 1)), vec!["row 6", "513"]),
        (strings(&|keys| keys[7].push('\0')), vec!["row 7", "NUL"]),
    ];
    for (keys, words) in cases {
        let builder = Builder::new(Metric::L2).dataset(Dataset::open(SOURCE).unwrap()).keys(keys);
        let error = builder.build(dir.path().join("x")).unwrap_err();
        assert_eq!(error.class(), ErrorClass::BadInput, "{error}");
        assert!(words.iter().all(|word| error.to_string().contains(word)), "{error}: {words:?}");
    }
    assert!(names(dir.path()).is_empty());
}
