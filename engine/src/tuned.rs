//! What was found out about an index after it was built, kept in its directory beside the manifest, which does not name it: which slack
//! gives which recall (`CALIBRATION`), and how often each page is wanted (`warm.rx`). Both are hints: an index without them is whole.
//!
//! `CALIBRATION` is text, a line a point, the last line the checksum of all before it. `warm.rx` is a blob of one byte a page.

use roxanne_core::format::{
    self, FormatError,
    blob::{BlobReader, BlobWriter},
};
use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{ErrorKind, Write as _},
    path::Path,
};
use xxhash_rust::xxh3::xxh3_64;

/// Its name in the index's directory.
pub const CALIBRATION_FILE: &str = "CALIBRATION";
/// See [`CALIBRATION_FILE`].
pub const WARM_FILE: &str = "warm.rx";
const HEAD: &str = "roxanne-calibration 2";

/// Which slack gives which recall, as it was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// Hits that recall was measured of.
    pub k: usize,
    /// (slack, recall), both rising.
    pub points: Vec<(f32, f64)>,
}

fn io<'a>(path: &'a Path) -> impl FnOnce(std::io::Error) -> FormatError + 'a {
    move |error| FormatError::Io { path: path.to_path_buf(), error }
}

impl Calibration {
    /// The smallest slack that reaches `recall` (0 to 1), read between the two measured points around it; `None` when none that was measured does.
    pub fn slack(&self, recall: f64) -> Option<f32> {
        let at = self.points.iter().position(|&(_, reached)| reached >= recall)?;
        let (high, reached) = self.points[at];
        let Some(&(low, before)) = at.checked_sub(1).and_then(|before| self.points.get(before)) else { return Some(high) };
        let part = if reached > before { (recall - before) / (reached - before) } else { 1.0 };
        Some(low + (high - low) * part as f32)
    }

    fn text(&self, generation: u64) -> String {
        let mut text = format!("{HEAD}\ngeneration {generation:016x}\nk {}\n", self.k);
        // Writing to a String cannot fail.
        self.points.iter().for_each(|(slack, recall)| {
            let _ = writeln!(text, "point {slack} {recall:.6}");
        });
        let checksum = xxh3_64(text.as_bytes());
        let _ = writeln!(text, "checksum {checksum:016x}");
        text
    }

    fn parse(text: &str, generation: u64) -> Option<Calibration> {
        let (body, checksum) = text.strip_suffix('\n')?.rsplit_once("checksum ")?;
        let mut lines = body.lines();
        let sound = checksum == format!("{:016x}", xxh3_64(body.as_bytes()))
            && lines.next() == Some(HEAD)
            && lines.next() == Some(format!("generation {generation:016x}").as_str());
        if !sound {
            return None;
        }
        let k = lines.next()?.strip_prefix("k ")?.parse().ok()?;
        let point = |line: &str| {
            let (slack, recall) = line.strip_prefix("point ")?.split_once(' ')?;
            Some((slack.parse().ok()?, recall.parse().ok()?))
        };
        let points = lines.map(point).collect::<Option<Vec<(f32, f64)>>>()?;
        points.is_sorted().then_some(Calibration { k, points })
    }

    /// Writes it into the index `directory` of this generation; an older one is replaced.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, directory: &Path, generation: u64) -> Result<(), FormatError> {
        let (temporary, path) = (directory.join("CALIBRATION.tmp"), directory.join(CALIBRATION_FILE));
        let mut file = File::create(&temporary).map_err(io(&temporary))?;
        file.write_all(self.text(generation).as_bytes()).and_then(|()| file.sync_all()).map_err(io(&temporary))?;
        fs::rename(&temporary, &path).map_err(io(&path))?;
        File::open(directory).and_then(|d| d.sync_all()).map_err(io(directory))
    }

    /// The one of `directory`; `None` where there is none.
    ///
    /// # Errors
    /// What the file system says; a file that is damaged or of another generation.
    pub fn read(directory: &Path, generation: u64) -> Result<Option<Calibration>, FormatError> {
        let path = directory.join(CALIBRATION_FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(&path)(error)),
        };
        let parsed = Calibration::parse(&String::from_utf8_lossy(&bytes), generation);
        let detail = "not as `roxanne tune` wrote it for this index; remove it, or tune again".to_string();
        parsed.map(Some).ok_or(FormatError::Corrupt { path, offset: 0, detail })
    }
}

/// Writes how often each page was wanted.
pub(crate) fn write_warm(directory: &Path, generation: u64, counts: &[u8]) -> Result<(), FormatError> {
    let (temporary, path) = (directory.join("warm.rx.tmp"), directory.join(WARM_FILE));
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(io(&temporary)(error)),
        _ => {}
    }
    let mut blob = BlobWriter::create(&temporary, format::file_id(generation, WARM_FILE))?;
    blob.write(counts)?;
    blob.finish()?;
    fs::rename(&temporary, &path).map_err(io(&path))?;
    File::open(directory).and_then(|d| d.sync_all()).map_err(io(directory))
}

/// How often each of `page_count` pages was wanted; `None` where nobody noted it.
///
/// # Errors
/// What the file system says; a file that is damaged or of another index.
pub(crate) fn read_warm(directory: &Path, generation: u64, page_count: u64) -> Result<Option<Vec<u8>>, FormatError> {
    let path = directory.join(WARM_FILE);
    match BlobReader::open(&path, format::file_id(generation, WARM_FILE), page_count) {
        Err(FormatError::Io { error, .. }) if error.kind() == ErrorKind::NotFound => Ok(None),
        opened => opened?.read_all().map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calibration() -> Calibration {
        Calibration { k: 10, points: vec![(0.125, 0.87), (0.25, 0.95), (0.5, 0.99)] }
    }

    #[test]
    fn a_slack_is_read_between_the_points() {
        let c = calibration();
        for (recall, slack) in [(0.5, 0.125), (0.87, 0.125), (0.91, 0.1875), (0.95, 0.25), (0.97, 0.375), (0.99, 0.5)] {
            assert!(c.slack(recall).is_some_and(|found| (found - slack).abs() < 1e-6), "{recall}");
        }
        assert_eq!(c.slack(0.995), None);
        assert_eq!(Calibration { k: 1, points: vec![] }.slack(0.1), None);
    }

    #[test]
    fn it_is_read_as_it_was_written_and_refused_when_altered() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Calibration::read(dir.path(), 7).unwrap(), None);
        calibration().write(dir.path(), 7).unwrap();
        assert_eq!(Calibration::read(dir.path(), 7).unwrap(), Some(calibration()));
        assert!(Calibration::read(dir.path(), 8).is_err(), "of another generation");
        let path = dir.path().join(CALIBRATION_FILE);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut altered = whole.clone();
            altered[at] ^= 1;
            fs::write(&path, altered).unwrap();
            assert!(Calibration::read(dir.path(), 7).is_err(), "byte {at}");
        }
    }

    #[test]
    fn counts_of_pages_are_kept_for_their_generation() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_warm(dir.path(), 7, 3).unwrap(), None);
        for counts in [[1, 2, 255], [9, 9, 9]] {
            write_warm(dir.path(), 7, &counts).unwrap();
            assert_eq!(read_warm(dir.path(), 7, 3).unwrap(), Some(counts.to_vec()));
        }
        assert!(read_warm(dir.path(), 8, 3).is_err() && read_warm(dir.path(), 7, 70_000).is_err());
    }
}
