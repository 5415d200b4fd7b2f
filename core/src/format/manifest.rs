//! MANIFEST: what a generation is, in lines that a person can read and a program cannot misread.
//!
//! ```text
//! roxanne-generation 1
//! generation 0f3a…            number that every file's pages carry (with the file's name)
//! n 1000000
//! dim 128
//! element u8
//! metric l2
//! param degree 48             how it was built, one line a parameter
//! file graph.rx 341311488 0   name, bytes of the file, bytes of payload for blobs
//! checksum 6f0c…              xxh3-64 of all lines above
//! ```
//! It is written last, under a temporary name, synced and renamed: a directory with a MANIFEST is a whole index.

use super::{CODES_FILE, FormatError, GRAPH_FILE, MANIFEST_FILE, VERSION, io_error, record::Stored};
use crate::{element::ElementType, id, metric::Metric};
use std::{
    fmt::Write as _,
    fs::{self, File},
    io::Write as _,
    path::Path,
};
use xxhash_rust::xxh3::xxh3_64;

/// The parameter that names what records hold, where that is not the whole vector.
pub const STORED: &str = "vectors";
/// The parameter of a live generation: the nodes that its ids have room for. Its graph.rx and codes.rx may be longer than they were built, and what
/// they hold stands in the superblock; all else here is as it was built.
pub const CAPACITY: &str = "capacity";
/// The longest manifest that is read.
const MAX_BYTES: u64 = 1 << 20;

/// One file of a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Its name, without a path.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Payload of a blob; 0 for graph.rx.
    pub payload_bytes: u64,
}

/// The manifest of a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Number that every file's pages carry (through [`super::file_id`]).
    pub generation: u64,
    /// Vectors.
    pub n: u64,
    /// Coordinates of a vector.
    pub dim: usize,
    /// Their type.
    pub element: ElementType,
    /// What near means.
    pub metric: Metric,
    /// How it was built: (name, value), in the order written.
    pub params: Vec<(String, String)>,
    /// All other files.
    pub files: Vec<FileEntry>,
}

impl Manifest {
    /// The value of a parameter.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// What records hold of vectors.
    ///
    /// # Errors
    /// A word of another version, or one that does not go with the element type.
    pub fn stored(&self, directory: &Path) -> Result<Stored, FormatError> {
        let Some(word) = self.param(STORED) else { return Ok(Stored::Full) };
        let known = Stored::ALL.into_iter().find(|stored| stored.name() == word && stored.element(self.element).is_some());
        known.ok_or_else(|| FormatError::NotAnIndex {
            path: directory.to_path_buf(),
            detail: format!("its MANIFEST says that records hold {} vectors as \"{word}\"", self.element),
        })
    }

    /// The nodes that a live generation has room for; `None` where nothing is changed in place.
    pub fn capacity(&self) -> Option<u64> {
        self.param(CAPACITY)?.parse().ok().filter(|capacity| (self.n..=id::MAX_NODES).contains(capacity))
    }

    /// The entry of a file.
    pub fn file(&self, name: &str) -> Option<&FileEntry> {
        self.files.iter().find(|f| f.name == name)
    }

    /// Bytes of the whole index, the manifest not counted.
    pub fn total_bytes(&self) -> u64 {
        self.files.iter().map(|f| f.bytes).sum()
    }

    /// The text, checksum line included.
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "roxanne-generation {VERSION}\ngeneration {:016x}\nn {}\ndim {}\nelement {}\nmetric {}\n",
            self.generation, self.n, self.dim, self.element, self.metric
        );
        // Writing to a String cannot fail.
        for (name, value) in &self.params {
            let _ = writeln!(text, "param {name} {value}");
        }
        for file in &self.files {
            let _ = writeln!(text, "file {} {} {}", file.name, file.bytes, file.payload_bytes);
        }
        let checksum = xxh3_64(text.as_bytes());
        let _ = writeln!(text, "checksum {checksum:016x}");
        text
    }

    /// Writes it into `directory`: temporary name, sync, rename, sync of the directory.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, directory: &Path) -> Result<(), FormatError> {
        let (temporary, path) = (directory.join("MANIFEST.tmp"), directory.join(MANIFEST_FILE));
        let mut file = File::create(&temporary).map_err(io_error(&temporary))?;
        file.write_all(self.to_text().as_bytes()).and_then(|()| file.sync_all()).map_err(io_error(&temporary))?;
        fs::rename(&temporary, &path).map_err(io_error(&path))?;
        File::open(directory).and_then(|d| d.sync_all()).map_err(io_error(directory))
    }

    /// Reads the manifest of `directory` and checks that every file it names is there at its length.
    ///
    /// # Errors
    /// No index, a newer format, an altered line, a missing or truncated file.
    pub fn read(directory: &Path) -> Result<Manifest, FormatError> {
        let path = directory.join(MANIFEST_FILE);
        let not_an_index = |detail: String| FormatError::NotAnIndex { path: directory.to_path_buf(), detail };
        let length = match fs::metadata(&path) {
            Ok(meta) => meta.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(not_an_index(if directory.is_dir() { "it has no MANIFEST".into() } else { "no such directory".into() }));
            }
            Err(error) => return Err(io_error(&path)(error)),
        };
        if length > MAX_BYTES {
            return Err(not_an_index(format!("its MANIFEST is {length} bytes long")));
        }
        let bytes = fs::read(&path).map_err(io_error(&path))?;
        let manifest = Manifest::parse(&bytes, &path)?;
        for file in &manifest.files {
            let path = directory.join(&file.name);
            let got = match fs::metadata(&path) {
                Ok(meta) => meta.len(),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    let detail = "the file is missing".to_string();
                    return Err(FormatError::Corrupt { path, offset: 0, detail });
                }
                Err(error) => return Err(io_error(&path)(error)),
            };
            let may_grow = manifest.capacity().is_some() && [GRAPH_FILE, CODES_FILE].contains(&file.name.as_str());
            if got != file.bytes && !(may_grow && got > file.bytes) {
                let detail = format!("the file is {got} bytes long, the manifest says {}", file.bytes);
                return Err(FormatError::Corrupt { path, offset: got.min(file.bytes), detail });
            }
        }
        Ok(manifest)
    }

    /// Reads the text of a manifest; `path` is for messages.
    ///
    /// # Errors
    /// See [`Manifest::read`].
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Manifest, FormatError> {
        let corrupt = |offset: usize, detail: &str| FormatError::Corrupt {
            path: path.to_path_buf(),
            offset: offset as u64,
            detail: detail.to_string(),
        };
        let text = std::str::from_utf8(bytes).map_err(|e| corrupt(e.valid_up_to(), "not text"))?;
        let version = text.lines().next().and_then(|l| l.strip_prefix("roxanne-generation ")).and_then(|v| v.parse::<u32>().ok());
        match version {
            None => return Err(corrupt(0, "it does not begin with roxanne-generation and a version")),
            Some(found) if found > VERSION => return Err(FormatError::TooNew { path: path.to_path_buf(), found }),
            Some(_) => {}
        }
        let body_end = text.trim_end_matches('\n').rfind('\n').map_or(0, |at| at + 1);
        let (body, last) = text.split_at(body_end);
        if last != format!("checksum {:016x}\n", xxh3_64(body.as_bytes())) {
            return Err(corrupt(body_end, "its checksum does not match its lines"));
        }
        let mut shape: [Option<String>; 5] = Default::default();
        let (mut params, mut files) = (Vec::new(), Vec::new());
        for line in body.lines().skip(1) {
            let offset = line.as_ptr() as usize - text.as_ptr() as usize;
            let bad = || corrupt(offset, &format!("a line that makes no sense: {line:?}"));
            let (word, rest) = line.split_once(' ').ok_or_else(bad)?;
            match word {
                "generation" => shape[0] = Some(rest.to_string()),
                "n" => shape[1] = Some(rest.to_string()),
                "dim" => shape[2] = Some(rest.to_string()),
                "element" => shape[3] = Some(rest.to_string()),
                "metric" => shape[4] = Some(rest.to_string()),
                "param" => {
                    let (name, value) = rest.split_once(' ').ok_or_else(bad)?;
                    params.push((name.to_string(), value.to_string()));
                }
                "file" => {
                    let mut parts = rest.split(' ');
                    let mut next = || parts.next().ok_or_else(bad);
                    let (name, bytes, payload) = (next()?, next()?, next()?);
                    let plain = !name.is_empty()
                        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'_')
                        && !name.starts_with('.');
                    // A payload lies inside its file, whose length is checked: so no later sum of these can wrap.
                    match (bytes.parse::<u64>(), payload.parse::<u64>()) {
                        (Ok(bytes), Ok(payload_bytes)) if plain && payload_bytes <= bytes => {
                            files.push(FileEntry { name: name.to_string(), bytes, payload_bytes })
                        }
                        _ => return Err(bad()),
                    }
                }
                _ => return Err(bad()),
            }
        }
        let shape_error = || corrupt(0, "generation, n, dim, element or metric is missing or out of range");
        let [Some(generation), Some(n), Some(dim), Some(element), Some(metric)] = shape else { return Err(shape_error()) };
        let manifest = Manifest {
            generation: u64::from_str_radix(&generation, 16).map_err(|_| shape_error())?,
            n: n.parse().map_err(|_| shape_error())?,
            dim: dim.parse().map_err(|_| shape_error())?,
            element: element.parse().map_err(|_| shape_error())?,
            metric: metric.parse().map_err(|_| shape_error())?,
            params,
            files,
        };
        if manifest.n > id::MAX_NODES || manifest.dim == 0 || manifest.dim > id::MAX_DIM {
            return Err(shape_error());
        }
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Manifest {
        Manifest {
            generation: 77,
            n: 5,
            dim: 3,
            element: ElementType::F16,
            metric: Metric::Cosine,
            params: vec![("degree".into(), "48".into()), ("input".into(), "a b c.npy".into())],
            files: vec![FileEntry { name: "graph.rx".into(), bytes: 10, payload_bytes: 0 }],
        }
    }

    #[test]
    fn it_round_trips_through_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Manifest::read(dir.path()), Err(FormatError::NotAnIndex { .. })));
        example().write(dir.path()).unwrap();
        let missing = Manifest::read(dir.path()).unwrap_err();
        assert!(missing.is_corruption() && missing.to_string().contains("missing"), "{missing}");
        fs::write(dir.path().join("graph.rx"), [0; 9]).unwrap();
        assert!(Manifest::read(dir.path()).unwrap_err().to_string().contains("9 bytes long, the manifest says 10"));
        fs::write(dir.path().join("graph.rx"), [0; 10]).unwrap();
        assert_eq!(Manifest::read(dir.path()).unwrap(), example());
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_refused() {
        let text = example().to_text().into_bytes();
        let parse = |bytes: &[u8]| Manifest::parse(bytes, Path::new("MANIFEST"));
        assert!(parse(&text).is_ok());
        for bit in 0..text.len() * 8 {
            let mut bad = text.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&bad).is_err(), "bit {bit}");
        }
        assert!((0..text.len()).all(|end| parse(&text[..end]).is_err()));
        let newer = b"roxanne-generation 2\nanything\n";
        assert!(matches!(parse(newer), Err(FormatError::TooNew { found: 2, .. })));
    }
}
