//! Names and files of the data directory.

use crate::reply::Refusal;
use roxanne_engine::collection::CollectionError;
use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

/// What [`is_name`] allows.
pub(crate) const NAMES: &str = "a name is 1 to 200 letters, digits, _, - and ., and does not begin with a dot";

/// Whether a collection, an alias, a snapshot or an index may be called so: a name is never a path.
pub(crate) fn is_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (1..=200).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(is_allowed)
}

/// A failure of the file system, of which places on this machine's disk are nobody's business.
pub(crate) fn failed(path: &Path, error: io::Error) -> Refusal {
    CollectionError::Io { path: path.to_path_buf(), error }.into()
}

/// A text without the place of the data directory, which `data` is from the root on.
pub(crate) fn without(text: &str, data: &str) -> String {
    text.replace(&format!("{data}/"), "DATA/")
}

/// Puts `bytes` into the file `path`, durably: after a loss of power it holds them, or what it held before.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = path.with_extension("partial");
    let mut file = File::create(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&partial, path)?;
    sync_directory(path.parent().unwrap_or(Path::new(".")))
}

/// When a file was written, to tell whether it has changed.
pub(crate) type Written = SystemTime;

/// When a file was written; `None` where there is none.
pub(crate) fn written(path: &Path) -> Option<Written> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

/// Bytes of all files of a directory and those within; what goes meanwhile is not counted.
pub(crate) fn bytes_below(path: &Path) -> u64 {
    let entries = fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(bytes).sum()
}

/// Brings the names in a directory to the device.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// This moment, as people write it.
pub(crate) fn now() -> String {
    utc(SystemTime::now())
}

/// A time as `2026-11-26T21:08:40`, in UTC.
pub(crate) fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, seconds) = (seconds / 86_400, seconds % 86_400);
    // Days of a year that begins in March, so that a leap day is the last of it.
    let from_march = days + 719_468;
    let (era, day) = (from_march / 146_097, from_march % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = era * 400 + year + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, said) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (951_868_800, "2000-03-01T00:00:00"),
            (1_709_164_800, "2024-02-29T00:00:00"),
            (1_798_761_599, "2026-12-31T23:59:59"),
            (4_107_542_400, "2100-03-01T00:00:00"),
        ] {
            assert_eq!(utc(UNIX_EPOCH + Duration::from_secs(seconds)), said);
        }
    }

    #[test]
    fn the_place_of_the_data_is_hidden_and_words_are_not() {
        let said = without("/srv/data/collections/c: metadata/x in /srv/database", "/srv/data");
        assert_eq!(said, "DATA/collections/c: metadata/x in /srv/database");
    }

    #[test]
    fn names_are_no_paths() {
        assert!(["docs", "a.b-c_1", &"x".repeat(200)].into_iter().all(is_name));
        assert!(!["", ".", "..", ".docs", "a/b", "a\\b", "a\0", "ä", &"x".repeat(201)].into_iter().any(is_name));
    }
}
