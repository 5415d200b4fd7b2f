//! `--keys F`: the users' own names of the rows, one a row.
//!
//! A `.npy` of integers (u8 to u64, i8 to i64, one dimension), or text of one key a line. Text is numbers when every line is a decimal
//! number as a program would print it; `007` is a string, because it would come back as `7`.

use crate::failure::Failure;
use roxanne_core::format::keys::KeyList;
use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
    path::Path,
};

const MAGIC: &[u8] = b"\x93NUMPY";

/// Reads the keys of a file.
pub(crate) fn read(path: &Path) -> Result<KeyList, Failure> {
    let file = File::open(path).map_err(Failure::io(path, "read the keys"))?;
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let is_numpy = reader.fill_buf().map_err(Failure::io(path, "read the keys"))?.starts_with(MAGIC);
    let keys = if is_numpy {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map_err(Failure::io(path, "read the keys"))?;
        numpy(&bytes)
    } else {
        text(&mut reader).map_err(Failure::io(path, "read the keys"))?
    };
    keys.map_err(|problem| Failure::input(format!("{}: {problem}", path.display())))
}

/// The first `limit` keys, where there are more.
pub(crate) fn limited(mut keys: KeyList, limit: Option<u64>) -> KeyList {
    let limit = limit.and_then(|l| usize::try_from(l).ok()).unwrap_or(usize::MAX);
    match &mut keys {
        KeyList::Rows(n) => *n = (*n).min(limit as u64),
        KeyList::Numbers(keys) => keys.truncate(limit),
        KeyList::Strings(keys) => keys.truncate(limit),
    }
    keys
}

/// Writes `keys` as text that [`read`] understands, to a path that was free; what cannot be written whole is removed.
pub(crate) fn write(path: &Path, keys: &KeyList) -> Result<(), Failure> {
    let file = File::create_new(path).map_err(Failure::io(path, "create the keys"))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let written = match keys {
        KeyList::Rows(n) => (0..*n).try_for_each(|key| writeln!(out, "{key}")),
        KeyList::Numbers(keys) => keys.iter().try_for_each(|key| writeln!(out, "{key}")),
        // Of a line's end the reader takes one carriage return away.
        KeyList::Strings(keys) => keys.iter().try_for_each(|key| write!(out, "{key}{}", if key.ends_with('\r') { "\r\n" } else { "\n" })),
    };
    written.and_then(|()| out.flush()).and_then(|()| out.get_ref().sync_all()).map_err(|error| {
        // The error to tell is the first one.
        let _ = std::fs::remove_file(path);
        Failure::io(path, "write the keys")(error)
    })
}

/// Numbers, until a line is none: then all of it is strings. Line by line, so that memory holds the keys alone.
fn text(reader: &mut dyn BufRead) -> io::Result<Result<KeyList, String>> {
    let (mut line, mut row) = (Vec::new(), 0u64);
    let (mut numbers, mut strings): (Vec<u64>, Option<Vec<String>>) = (Vec::new(), None);
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(Ok(strings.map_or(KeyList::Numbers(numbers), KeyList::Strings)));
        }
        row += 1;
        let ended = line.strip_suffix(b"\n").map(|line| line.strip_suffix(b"\r").unwrap_or(line)).unwrap_or(&line);
        let Ok(key) = std::str::from_utf8(ended) else {
            return Ok(Err(format!("line {row} is not UTF-8; write one key a line as UTF-8 text, or a .npy of integers")));
        };
        match (&mut strings, KeyList::number(key)) {
            (None, Some(number)) => numbers.push(number),
            (Some(strings), _) => strings.push(key.to_string()),
            (None, None) => {
                let before = std::mem::take(&mut numbers).into_iter().map(|number| number.to_string());
                strings = Some(before.chain([key.to_string()]).collect());
            }
        }
    }
}

fn numpy(bytes: &[u8]) -> Result<KeyList, String> {
    const ADVICE: &str = "save the keys with numpy.save as one column of integers";
    let short = || format!("its .npy header is cut off; {ADVICE}");
    let (start, length) = match bytes.get(6).ok_or_else(short)? {
        1 => (10, usize::from(u16::from_le_bytes(*bytes.get(8..).and_then(|b| b.first_chunk()).ok_or_else(short)?))),
        2 | 3 => (12, u32::from_le_bytes(*bytes.get(8..).and_then(|b| b.first_chunk()).ok_or_else(short)?) as usize),
        version => return Err(format!(".npy version {version} is unknown; {ADVICE}")),
    };
    let header = bytes.get(start..).and_then(|b| b.get(..length)).ok_or_else(short)?;
    let header = std::str::from_utf8(header).map_err(|_| short())?;
    let odd = || format!("its .npy header makes no sense; {ADVICE}");
    let after =
        |name: &str| header.split_once(&format!("'{name}'")).and_then(|(_, rest)| rest.split_once(':')).map(|(_, rest)| rest.trim_start());
    let descr = after("descr").and_then(|rest| rest.strip_prefix('\'')?.split_once('\'')).ok_or_else(odd)?.0;
    let shape = after("shape").and_then(|rest| rest.strip_prefix('(')?.split_once(')')).ok_or_else(odd)?.0;
    let sizes: Vec<u64> =
        shape.split(',').map(str::trim).filter(|s| !s.is_empty()).map(|s| s.parse().map_err(|_| odd())).collect::<Result<_, _>>()?;
    let n = match sizes[..] {
        [n] | [n, 1] => n,
        _ => return Err(format!("an array of shape ({shape}); {ADVICE}")),
    };
    let (big, kind) = (descr.starts_with('>'), descr.trim_start_matches(['<', '>', '|', '=']));
    let (signed, width) = match kind {
        "u1" | "u2" | "u4" | "u8" => (false, kind.as_bytes()[1] - b'0'),
        "i1" | "i2" | "i4" | "i8" => (true, kind.as_bytes()[1] - b'0'),
        _ => return Err(format!("an array of {descr}; {ADVICE}, or write string keys as text, one a line")),
    };
    let width = usize::from(width);
    let values = &bytes[start + length..];
    if n.checked_mul(width as u64) != Some(values.len() as u64) {
        return Err(format!(
            "{n} keys of {width} bytes are expected behind its header, got {} bytes; was the copy interrupted?",
            values.len()
        ));
    }
    let key = |(row, raw): (usize, &[u8])| {
        let fold = |value: u64, &byte: &u8| value << 8 | u64::from(byte);
        let value = if big { raw.iter().fold(0, fold) } else { raw.iter().rev().fold(0, fold) };
        let negative = signed && value >> (8 * width - 1) != 0;
        if negative { Err(format!("row {row} is negative; a key is between 0 and 2^64 - 1")) } else { Ok(value) }
    };
    values.chunks_exact(width).enumerate().map(key).collect::<Result<_, _>>().map(KeyList::Numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn npy(descr: &str, shape: &str, values: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
        [MAGIC, &[1, 0], &(header.len() as u16).to_le_bytes(), header.as_bytes(), values].concat()
    }

    fn text(mut bytes: &[u8]) -> Result<KeyList, String> {
        super::text(&mut bytes).unwrap()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let strings = ["1", "é", "a\r", "b\r\r", " "].map(String::from).to_vec();
        for (name, keys) in [("a", KeyList::Numbers(vec![3, u64::MAX])), ("b", KeyList::Strings(strings)), ("c", KeyList::Numbers(vec![]))]
        {
            write(&dir.path().join(name), &keys).unwrap();
            assert_eq!(read(&dir.path().join(name)).unwrap(), keys);
        }
        assert!(write(&dir.path().join("a"), &KeyList::Rows(1)).is_err());
    }

    #[test]
    fn lines_are_numbers_when_all_of_them_are() {
        assert_eq!(text(b"5\n18446744073709551615\n0\n"), Ok(KeyList::Numbers(vec![5, u64::MAX, 0])));
        assert_eq!(text(b"7\r\n8"), Ok(KeyList::Numbers(vec![7, 8])));
        assert_eq!(text(b"007\n8\n"), Ok(KeyList::Strings(vec!["007".into(), "8".into()])));
        assert_eq!(text("doc 1\n\né".as_bytes()), Ok(KeyList::Strings(vec!["doc 1".into(), "".into(), "é".into()])));
        assert_eq!(text(b"18446744073709551616"), Ok(KeyList::Strings(vec!["18446744073709551616".into()])));
        assert!(text(b"a\n\xff\n").unwrap_err().contains("line 2"));
    }

    #[test]
    fn integers_of_numpy_are_read_in_either_byte_order() {
        assert_eq!(
            numpy(&npy("<u8", "(2,)", &[1, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255])),
            Ok(KeyList::Numbers(vec![1, u64::MAX]))
        );
        assert_eq!(numpy(&npy(">i4", "(2, 1)", &[0, 0, 1, 0, 127, 0, 0, 0])), Ok(KeyList::Numbers(vec![256, 127 << 24])));
        assert!(numpy(&npy("<i2", "(2,)", &[1, 0, 255, 255])).unwrap_err().contains("row 1 is negative"));
        assert!(numpy(&npy("<f8", "(1,)", &[0; 8])).unwrap_err().contains("<f8"));
        assert!(numpy(&npy("<u8", "(1, 2)", &[0; 16])).unwrap_err().contains("(1, 2)"));
        assert!(numpy(&npy("<u8", "(3,)", &[0; 16])).unwrap_err().contains("got 16 bytes"));
        assert!(numpy(&npy("<u8", "(9223372036854775807,)", &[0; 16])).is_err());
    }

    #[test]
    fn every_truncation_is_refused() {
        let whole = npy("<u4", "(1,)", &[1, 0, 0, 0]);
        assert!((MAGIC.len()..whole.len()).all(|end| numpy(&whole[..end]).is_err()));
    }
}
