use super::*;
use std::fs;
use tempfile::TempDir;

/// Writes `bytes` to a file of this name and opens it.
fn open_bytes(dir: &TempDir, name: &str, bytes: &[u8]) -> Result<Dataset, DatasetError> {
    let path = dir.path().join(name);
    fs::write(&path, bytes).unwrap();
    Dataset::open(path.to_str().unwrap())
}

fn all_rows(dataset: &Dataset) -> Vec<u8> {
    let mut out = vec![9; 3]; // what was there before is gone
    dataset.read_rows(0, dataset.n() as usize, &mut out).unwrap();
    out
}

fn all_values(dataset: &Dataset) -> Vec<f32> {
    let mut out = Vec::new();
    dataset.read_rows_f32(0, dataset.n() as usize, &mut out).unwrap();
    out
}

fn npy(descr: &str, shape: &str, fortran: &str, data: &[u8]) -> Vec<u8> {
    npy_text(1, &format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}"), data)
}

fn npy_text(version: u8, text: &str, data: &[u8]) -> Vec<u8> {
    let text = format!("{text}\n");
    let length = if version == 1 { (text.len() as u16).to_le_bytes().to_vec() } else { (text.len() as u32).to_le_bytes().to_vec() };
    [b"\x93NUMPY", &[version, 0][..], &length, text.as_bytes(), data].concat()
}

const EVERY_FORMAT: [(&str, ElementType); 12] = [
    ("x.fbin", ElementType::F32),
    ("x.f16bin", ElementType::F16),
    ("x.bf16bin", ElementType::Bf16),
    ("x.u8bin", ElementType::U8),
    ("x.i8bin", ElementType::I8),
    ("x.fvecs", ElementType::F32),
    ("x.bvecs", ElementType::U8),
    ("f32.npy", ElementType::F32),
    ("f16.npy", ElementType::F16),
    ("u8.npy", ElementType::U8),
    ("i8.npy", ElementType::I8),
    ("UPPER.FBIN", ElementType::F32),
];

#[test]
fn every_format_reads_back_what_was_written() {
    for (name, element) in EVERY_FORMAT {
        for (n, dim) in [(1, 1), (2, 3), (7, 33), (100, 128), (3, 8192)] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(name);
            let rows = all_rows(&Dataset::open(&format!("synth:n={n},dim={dim},type={element},clusters=2")).unwrap());
            let mut writer = DatasetWriter::create(&path, element, dim).unwrap();
            let half = n / 2 * element.row_bytes(dim);
            writer.push_rows(&rows[..half]).unwrap();
            writer.push_rows(&rows[half..]).unwrap();
            assert_eq!(writer.n(), n as u64);
            writer.finish().unwrap();
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing temporary is left");

            let read = Dataset::open(path.to_str().unwrap()).unwrap();
            assert_eq!((read.n(), read.dim(), read.element(), read.row_bytes()), (n as u64, dim, element, element.row_bytes(dim)));
            assert_eq!(all_rows(&read), rows, "{name} {n} x {dim}");
            let mut last = Vec::new();
            read.read_rows(n as u64 - 1, 1, &mut last).unwrap();
            assert_eq!(last, rows[rows.len() - read.row_bytes()..]);
            let mut values = vec![0.0; n * dim];
            element.decode(&rows, &mut values);
            assert_eq!(all_values(&read), values);
        }
    }
}

#[test]
fn an_empty_set_has_a_dimension_where_the_format_has_a_header() {
    for (name, element) in EVERY_FORMAT {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        let finished = DatasetWriter::create(&path, element, 5).unwrap().finish();
        if name.ends_with("vecs") {
            assert!(matches!(finished, Err(DatasetError::NoRows { .. })));
            assert!(matches!(open_bytes(&dir, name, &[]), Err(DatasetError::NoRows { .. })));
        } else {
            finished.unwrap();
            let read = Dataset::open(path.to_str().unwrap()).unwrap();
            assert_eq!((read.n(), read.dim(), all_rows(&read)), (0, 5, vec![]));
        }
    }
}

#[test]
fn a_header_and_a_length_that_disagree_are_refused_with_both_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let header = bigann::header(3, 4);
    let cut = open_bytes(&dir, "a.u8bin", &[&header[..], &[0; 11]].concat()).unwrap_err();
    assert!(matches!(cut, DatasetError::Truncated { expected: 20, got: 19, row: 2, offset: 16, .. }), "{cut}");
    let long = open_bytes(&dir, "a.u8bin", &[&header[..], &[0; 13]].concat()).unwrap_err();
    assert!(matches!(long, DatasetError::TooLong { expected: 20, got: 21, n: 3, dim: 4, .. }), "{long}");
    let cut = open_bytes(&dir, "a.npy", &npy("<f4", "(3, 4)", "False", &[0; 47])).unwrap_err();
    assert!(matches!(cut, DatasetError::Truncated { row: 2, .. }), "{cut}");
    let long = open_bytes(&dir, "a.npy", &npy("<f4", "(3, 4)", "False", &[0; 49])).unwrap_err();
    assert!(matches!(long, DatasetError::TooLong { .. }), "{long}");
    let product = open_bytes(&dir, "a.npy", &npy("<f4", "(18446744073709551615, 8192)", "False", &[0; 64])).unwrap_err();
    assert!(matches!(product, DatasetError::Truncated { expected: u64::MAX, .. }), "{product}");
    let product = open_bytes(&dir, "a.fbin", &bigann::header(u32::MAX, 8192)).unwrap_err();
    assert!(matches!(product, DatasetError::Truncated { expected: 140_737_488_322_568, got: 8, row: 0, offset: 8, .. }), "{product}");
    for name in ["a.fbin", "a.npy", "a.fvecs"] {
        let short = open_bytes(&dir, name, &[1, 2, 3]).unwrap_err();
        assert!(matches!(short, DatasetError::NoHeader { got: 3, .. }), "{short}");
    }
}

#[test]
fn a_dimension_that_no_index_holds_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for dim in [0, 8193, u32::MAX] {
        let error = open_bytes(&dir, "a.u8bin", &bigann::header(0, dim)).unwrap_err();
        assert!(matches!(error, DatasetError::DimOutOfRange { .. }), "{error}");
        assert!(open_bytes(&dir, "a.bvecs", &[&dim.to_le_bytes()[..], &[0; 8]].concat()).is_err());
        let error = open_bytes(&dir, "a.npy", &npy("<f4", &format!("(0, {dim})"), "False", &[])).unwrap_err();
        assert!(matches!(error, DatasetError::DimOutOfRange { .. }), "{error}");
        assert!(Dataset::open(&format!("synth:n=1,dim={dim}")).is_err());
        assert!(DatasetWriter::create(dir.path().join("new.u8bin"), ElementType::U8, dim as usize).is_err());
    }
}

fn bvecs(dims: &[u32]) -> Vec<u8> {
    dims.iter().flat_map(|&d| [d.to_le_bytes().to_vec(), vec![0; d as usize]].concat()).collect()
}

#[test]
fn a_dimension_that_changes_mid_file_is_named_with_its_row() {
    let dir = tempfile::tempdir().unwrap();
    for changed in [1, 2, 50, 98, 99] {
        let mut dims = [6; 100];
        dims[changed] = 9;
        let error = open_bytes(&dir, "a.bvecs", &bvecs(&dims)).unwrap_err();
        let DatasetError::DimChanged { row, offset, expected: 6, got: 9, .. } = error else { panic!("{error}") };
        assert_eq!((row, offset), (changed as u64, changed as u64 * 10));
    }
    // 5 and 7 are together as long as 6 and 6: only reading the row tells.
    let data = open_bytes(&dir, "a.bvecs", &bvecs(&[6, 6, 5, 7])).unwrap();
    let mut out = Vec::new();
    data.read_rows(0, 2, &mut out).unwrap();
    let error = data.read_rows(1, 2, &mut out).unwrap_err();
    assert!(matches!(error, DatasetError::DimChanged { row: 2, offset: 20, expected: 6, got: 5, .. }), "{error}");
}

#[test]
fn a_last_row_that_is_cut_off_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let whole = bvecs(&[6; 100]);
    for cut in 1..10 {
        let error = open_bytes(&dir, "a.bvecs", &whole[..1000 - cut]).unwrap_err();
        assert!(matches!(error, DatasetError::Truncated { row: 99, offset: 990, expected: 1000, .. }), "{cut}: {error}");
    }
    let error = open_bytes(&dir, "a.bvecs", &whole[..7]).unwrap_err();
    assert!(matches!(error, DatasetError::Truncated { row: 0, offset: 0, expected: 10, got: 7, .. }), "{error}");
}

#[test]
fn a_file_that_shrinks_while_open_is_an_error_with_row_and_offset() {
    let dir = tempfile::tempdir().unwrap();
    let data = open_bytes(&dir, "a.u8bin", &[&bigann::header(10, 4)[..], &[1; 40]].concat()).unwrap();
    fs::OpenOptions::new().write(true).open(dir.path().join("a.u8bin")).unwrap().set_len(8 + 22).unwrap();
    let mut out = Vec::new();
    data.read_rows(0, 5, &mut out).unwrap();
    let error = data.read_rows(3, 4, &mut out).unwrap_err();
    assert!(matches!(error, DatasetError::Truncated { row: 5, offset: 28, expected: 48, got: 30, .. }), "{error}");
}

#[test]
fn numpy_files_of_every_version_order_and_width_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let values = [1.0f32, -2.5, 3.0, 4.0, 0.0, 65504.0];
    let le = |v: &f32| v.to_le_bytes().to_vec();
    let be = |v: &f32| v.to_be_bytes().to_vec();
    let half_be = |v: &f32| half::f16::from_f32(*v).to_be_bytes().to_vec();
    let half_le = |v: &f32| half::f16::from_f32(*v).to_le_bytes().to_vec();
    let double_le = |v: &f32| f64::from(*v).to_le_bytes().to_vec();
    let double_be = |v: &f32| f64::from(*v).to_be_bytes().to_vec();
    type ToBytes<'a> = &'a dyn Fn(&f32) -> Vec<u8>;
    let bytes: [ToBytes; 6] = [&le, &be, &half_le, &half_be, &double_le, &double_be];
    for (descr, bytes) in ["<f4", ">f4", "<f2", ">f2", "<f8", ">f8"].into_iter().zip(bytes) {
        let data: Vec<u8> = values.iter().flat_map(bytes).collect();
        let read = open_bytes(&dir, "a.npy", &npy(descr, "(2, 3)", "False", &data)).unwrap();
        assert_eq!((read.n(), read.dim()), (2, 3));
        assert_eq!(read.element(), if descr.ends_with("f2") { ElementType::F16 } else { ElementType::F32 });
        assert_eq!(all_values(&read), values, "{descr}");
        let mut second = Vec::new();
        read.read_rows_f32(1, 1, &mut second).unwrap();
        assert_eq!(second, values[3..]);
    }
    for (version, text) in [
        (1, "{'descr': '|i1', 'fortran_order': False, 'shape': (3, 1), }   "),
        (2, "{'shape': (3L, 1L), 'fortran_order': False, 'descr': '|i1'}"),
        (3, "{\"descr\":\"<i1\",\"fortran_order\":False,\"shape\":(3,1)}"),
    ] {
        let read = open_bytes(&dir, "a.npy", &npy_text(version, text, &[255, 0, 127])).unwrap();
        assert_eq!(all_values(&read), [-1.0, 0.0, 127.0]);
    }
}

#[test]
fn numpy_files_that_are_no_rows_of_numbers_are_refused_with_advice() {
    let dir = tempfile::tempdir().unwrap();
    let message = |bytes: &[u8]| open_bytes(&dir, "a.npy", bytes).unwrap_err().to_string();
    assert!(message(&npy("<f4", "(2, 3)", "True", &[0; 24])).contains("np.ascontiguousarray(x)"));
    assert!(message(&npy("<f4", "(6,)", "False", &[0; 24])).contains("array of 1 dimensions, expected 2"));
    assert!(message(&npy("<f4", "()", "False", &[0; 4])).contains("array of 0 dimensions"));
    assert!(message(&npy("<f4", "(1, 2, 3)", "False", &[0; 24])).contains("array of 3 dimensions"));
    assert!(message(&npy("<i8", "(1, 1)", "False", &[0; 8])).contains("astype(np.float32)"));
    assert!(message(&npy("|b1", "(1, 8)", "False", &[0; 8])).contains("np.packbits"));
    assert!(message(&npy("|O", "(1, 8)", "False", &[0; 8])).contains("dtype \"|O\""));
    assert!(message(&npy("", "(1, 8)", "False", &[0; 8])).contains("dtype \"\""));
    assert!(message(&npy("é4", "(1, 8)", "False", &[0; 8])).contains("dtype"));
    assert!(message(&npy_text(1, "{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (1,), }", &[0; 4])).contains("structured"));
    assert!(message(b"not numpy at all").contains("does not begin as a .npy"));
    assert!(message(&npy_text(4, "{}", &[])).contains("version 4"));
    assert!(message(b"\x93NUMPY\x02\x00\xff\xff\xff\xff").contains("4294967295 bytes"));
    for text in ["", "{", "{}", "{'descr'}", "{'descr': '<f4'}", "{'descr': '<f4', 'fortran_order': Maybe, 'shape': (1, 1)}"] {
        assert!(message(&npy_text(1, text, &[0; 4])).contains("numpy.save"), "{text}");
    }
    for shape in ["(1, -1)", "(1, 99999999999999999999999)", "(1, 1", "1"] {
        assert!(message(&npy("<f4", shape, "False", &[0; 4])).contains("cannot understand"), "{shape}");
    }
    let whole = npy("<f4", "(2, 3)", "False", &[0; 24]);
    for bytes in 0..whole.len() {
        assert!(open_bytes(&dir, "a.npy", &whole[..bytes]).is_err(), "cut to {bytes}");
    }
}

#[test]
fn a_double_beyond_f32_is_named_but_an_infinity_is_left_to_the_finite_check() {
    let dir = tempfile::tempdir().unwrap();
    let data: Vec<u8> = [1.0, f64::INFINITY, 3.0, 4.0, 5.0, -1e39].iter().flat_map(|v| v.to_le_bytes()).collect();
    let read = open_bytes(&dir, "a.npy", &npy("<f8", "(3, 2)", "False", &data)).unwrap();
    let mut rows = Vec::new();
    let error = read.read_rows(1, 2, &mut rows).unwrap_err();
    assert!(matches!(error, DatasetError::BeyondF32 { row: 2, at: 1, value: -1e39, .. }), "{error}");
    read.read_rows(0, 2, &mut rows).unwrap();
    let error = check_finite(read.element(), &rows, 2, 0).unwrap_err();
    assert!(matches!(error, DatasetError::NotFinite { row: 0, at: 1, value: f32::INFINITY }), "{error}");
}

#[test]
fn what_is_no_dataset_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let unknown = open_bytes(&dir, "a.csv", b"1,2").unwrap_err().to_string();
    assert!(unknown.contains("\".csv\"") && unknown.contains(".fbin") && unknown.contains(".npy"), "{unknown}");
    assert!(matches!(open_bytes(&dir, "a", b""), Err(DatasetError::UnknownFormat { .. })));
    assert!(matches!(open_bytes(&dir, "a.ivecs", b""), Err(DatasetError::HoldsIds { .. })));
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    assert!(matches!(Dataset::open(&path("none.fbin")), Err(DatasetError::Io { .. })));
    fs::create_dir(path("dir.fbin")).unwrap();
    assert!(matches!(Dataset::open(&path("dir.fbin")), Err(DatasetError::NotAFile { .. })));
}

#[test]
fn a_limit_hides_the_rows_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let open = || open_bytes(&dir, "a.u8bin", &[&bigann::header(3, 1)[..], &[7, 8, 9]].concat()).unwrap();
    assert_eq!(all_rows(&open().limit(2)), [7, 8]);
    assert_eq!(all_rows(&open().limit(9)), [7, 8, 9]);
    let mut out = Vec::new();
    for (start, count) in [(2, 1), (0, 3), (3, 0), (u64::MAX, 1), (1, usize::MAX)] {
        let error = open().limit(2).read_rows(start, count, &mut out).unwrap_err();
        assert!(matches!(error, DatasetError::NoSuchRows { n: 2, .. }), "{error}");
    }
    open().limit(2).read_rows(2, 0, &mut out).unwrap();
}

#[test]
fn bytes_become_bits() {
    let dir = tempfile::tempdir().unwrap();
    let bits = open_bytes(&dir, "a.u8bin", &[&bigann::header(2, 1)[..], &[0b0000_0101, 0x80]].concat()).unwrap().into_binary().unwrap();
    assert_eq!((bits.dim(), bits.element(), bits.row_bytes()), (8, ElementType::Binary, 1));
    assert_eq!(all_rows(&bits), [5, 0x80]);
    assert_eq!(all_values(&bits)[..8], [1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    let path = dir.path().join("b.bvecs");
    convert(&bits, &path, &mut |_| {}).unwrap();
    let again = Dataset::open(path.to_str().unwrap()).unwrap().into_binary().unwrap().into_binary().unwrap();
    assert_eq!((again.dim(), all_rows(&again)), (8, vec![5, 0x80]));

    let open = |text: &str| Dataset::open(text).unwrap();
    assert_eq!(open("synth:n=1,dim=1024,type=u8").into_binary().unwrap().dim(), 8192);
    assert!(matches!(open("synth:n=1,dim=1025,type=u8").into_binary(), Err(DatasetError::NotPacked { .. })));
    assert!(matches!(open("synth:n=1,dim=8,type=i8").into_binary(), Err(DatasetError::NotPacked { .. })));
}

#[test]
fn a_writer_that_is_dropped_leaves_nothing_and_one_that_finishes_replaces_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.u8bin");
    let mut writer = DatasetWriter::create(&path, ElementType::U8, 2).unwrap();
    writer.push_rows(&[1, 2]).unwrap();
    assert!(matches!(writer.push_rows(&[1]), Err(DatasetError::PartialRow { got: 1, row_bytes: 2, .. })));
    assert!(!path.exists());
    drop(writer);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);

    fs::write(&path, b"precious").unwrap();
    assert!(matches!(DatasetWriter::create(&path, ElementType::U8, 2), Err(DatasetError::Exists { .. })));
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    let create = |name: &str, element| DatasetWriter::create(dir.path().join(name), element, 2).unwrap_err();
    assert!(matches!(create("b.u8bin", ElementType::F32), DatasetError::WrongElement { .. }));
    assert!(matches!(create("b.npy", ElementType::Bf16), DatasetError::WrongElement { .. }));
    assert!(matches!(create("b.ivecs", ElementType::U8), DatasetError::HoldsIds { .. }));
    assert!(matches!(create("b.xyz", ElementType::U8), DatasetError::UnknownFormat { .. }));
    assert!(matches!(create("none/b.u8bin", ElementType::U8), DatasetError::Io { .. }));
}

#[test]
fn convert_keeps_every_value_or_names_the_row() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let from = Dataset::open("synth:n=1000,dim=33,type=i8").unwrap();
    for name in ["a.fbin", "b.f16bin", "c.bf16bin", "d.i8bin", "e.fvecs", "f.npy"] {
        let mut done = 0;
        convert(&from, &path(name), &mut |rows| done = rows).unwrap();
        let to = Dataset::open(path(name).to_str().unwrap()).unwrap();
        assert_eq!((done, to.n(), to.dim()), (1000, 1000, 33));
        assert_eq!(all_values(&to), all_values(&from), "{name}");
    }
    let values: Vec<u8> = [1.0f32, 2.0, 3.0, 300.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    let from = open_bytes(&dir, "g.fbin", &[&bigann::header(2, 2)[..], &values].concat()).unwrap();
    let error = convert(&from, &path("h.u8bin"), &mut |_| {}).unwrap_err();
    assert!(matches!(error, DatasetError::NotRepresentable { row: 1, .. }), "{error}");
    assert!(error.to_string().contains("row 1: coordinate 1 is 300"), "{error}");
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().filter(|f| f.as_ref().unwrap().file_name().to_string_lossy().contains("h.u8bin")).count(),
        0
    );
    let bf16 = Dataset::open(path("c.bf16bin").to_str().unwrap()).unwrap();
    convert(&bf16, &path("i.npy"), &mut |_| {}).unwrap();
    assert_eq!(Dataset::open(path("i.npy").to_str().unwrap()).unwrap().element(), ElementType::F32);
}
