//! A file that is one run of bytes, kept in pages of 64 KiB so that each part has its own checksum and can be read, and later
//! rewritten, alone. codes.rx, codebook.rx, nav.rx and keys.rx are blobs.

use super::{FormatError, io_error, page};
use crate::{
    aside::breathe,
    format::page::{HEADER_BYTES, PageHeader},
};
use std::{
    collections::HashMap,
    fs::File,
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// Bytes of one page of a blob.
pub const BLOB_PAGE: usize = 65536;
/// Bytes of payload in one page.
pub const BLOB_PAYLOAD: usize = BLOB_PAGE - HEADER_BYTES;

/// Bytes of the file that holds `payload_bytes`.
pub fn file_bytes(payload_bytes: u64) -> u64 {
    payload_bytes.div_ceil(BLOB_PAYLOAD as u64).saturating_mul(BLOB_PAGE as u64)
}

/// Page `number` of a blob, which holds `payload` (at most [`BLOB_PAYLOAD`] bytes), as the change `lsn` writes it.
pub fn page_image(file_id: u64, number: u64, lsn: u64, payload: &[u8]) -> Vec<u8> {
    let mut image = vec![0; BLOB_PAGE];
    image[HEADER_BYTES..][..payload.len()].copy_from_slice(payload);
    page::seal(&mut image, PageHeader { file_id, page: number, lsn, ..PageHeader::default() });
    image
}

/// Writes a blob from front to back.
pub struct BlobWriter {
    path: PathBuf,
    /// `None` counts and forgets.
    file: Option<File>,
    file_id: u64,
    page: u64,
    buffer: Vec<u8>,
    payload_bytes: u64,
}

impl BlobWriter {
    /// Creates `path`, which must not exist.
    ///
    /// # Errors
    /// What the file system says.
    pub fn create(path: &Path, file_id: u64) -> Result<BlobWriter, FormatError> {
        let file = File::create_new(path).map_err(io_error(path))?;
        Ok(BlobWriter { path: path.to_path_buf(), file: Some(file), ..BlobWriter::null(file_id) })
    }

    /// Does all the work and keeps nothing: for rehearsals.
    pub fn null(file_id: u64) -> BlobWriter {
        BlobWriter { path: PathBuf::new(), file: None, file_id, page: 0, buffer: vec![0; HEADER_BYTES], payload_bytes: 0 }
    }

    /// Appends payload.
    ///
    /// # Errors
    /// What the file system says, a full disk included.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), FormatError> {
        self.payload_bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            let part = bytes.len().min(BLOB_PAGE - self.buffer.len());
            self.buffer.extend_from_slice(&bytes[..part]);
            bytes = &bytes[part..];
            if self.buffer.len() == BLOB_PAGE {
                self.flush_page()?;
            }
        }
        Ok(())
    }

    fn flush_page(&mut self) -> Result<(), FormatError> {
        let live = 0;
        self.buffer.resize(BLOB_PAGE, 0);
        page::seal(&mut self.buffer, PageHeader { file_id: self.file_id, page: self.page, live, ..PageHeader::default() });
        if let Some(file) = &mut self.file {
            file.write_all(&self.buffer).map_err(io_error(&self.path))?;
        }
        self.page += 1;
        self.buffer.truncate(HEADER_BYTES);
        Ok(())
    }

    /// Completes and syncs the file; returns its payload bytes.
    ///
    /// # Errors
    /// What the file system says.
    pub fn finish(mut self) -> Result<u64, FormatError> {
        if self.buffer.len() > HEADER_BYTES {
            self.flush_page()?;
        }
        if let Some(file) = &self.file {
            file.sync_all().map_err(io_error(&self.path))?;
        }
        Ok(self.payload_bytes)
    }
}

/// Reads a blob, at any place.
#[derive(Debug)]
pub struct BlobReader {
    path: PathBuf,
    file: File,
    file_id: u64,
    payload_bytes: u64,
    kept: Mutex<Kept>,
    /// How many are kept.
    room: usize,
}

/// Pages that were read and checked. Which goes for another is found by a hand that goes round and spares what was wanted since it came by last.
#[derive(Debug, Default)]
struct Kept {
    /// The page in each place, whether it was wanted again lately, and its bytes.
    places: Vec<(u64, bool, Arc<[u8]>)>,
    place_of: HashMap<u64, usize>,
    hand: usize,
}

impl Kept {
    fn get(&mut self, page: u64) -> Option<Arc<[u8]>> {
        let (_, wanted, bytes) = &mut self.places[*self.place_of.get(&page)?];
        *wanted = true;
        Some(Arc::clone(bytes))
    }

    /// Keeps a page among `room`, more than none.
    fn put(&mut self, page: u64, bytes: Arc<[u8]>, room: usize) {
        if self.place_of.contains_key(&page) {
            return;
        }
        if self.places.len() < room {
            self.place_of.insert(page, self.places.len());
            self.places.push((page, false, bytes));
            return;
        }
        while std::mem::take(&mut self.places[self.hand].1) {
            self.hand = (self.hand + 1) % self.places.len();
        }
        self.place_of.remove(&self.places[self.hand].0);
        self.place_of.insert(page, self.hand);
        self.places[self.hand] = (page, false, bytes);
        self.hand = (self.hand + 1) % self.places.len();
    }
}

impl BlobReader {
    /// Opens a blob whose payload the manifest says is `payload_bytes` long.
    ///
    /// # Errors
    /// Absent, or of another length than that makes.
    pub fn open(path: &Path, file_id: u64, payload_bytes: u64) -> Result<BlobReader, FormatError> {
        BlobReader::open_if(path, file_id, payload_bytes, |got, expected| got == expected)
    }

    /// The same of a blob whose file may have grown for what is yet to come.
    ///
    /// # Errors
    /// Absent, or shorter.
    pub fn open_grown(path: &Path, file_id: u64, payload_bytes: u64) -> Result<BlobReader, FormatError> {
        BlobReader::open_if(path, file_id, payload_bytes, |got, expected| got >= expected)
    }

    fn open_if(path: &Path, file_id: u64, payload_bytes: u64, fits: fn(u64, u64) -> bool) -> Result<BlobReader, FormatError> {
        let file = File::open(path).map_err(io_error(path))?;
        let got = file.metadata().map_err(io_error(path))?.len();
        let expected = file_bytes(payload_bytes);
        if !fits(got, expected) {
            let detail = format!("the file is {got} bytes long, the manifest makes it {expected}");
            return Err(FormatError::Corrupt { path: path.to_path_buf(), offset: got.min(expected), detail });
        }
        Ok(BlobReader { path: path.to_path_buf(), file, file_id, payload_bytes, kept: Mutex::default(), room: 0 })
    }

    /// Keeps so many pages in memory, those that were wanted lately: a search by halves looks at the same few again and again.
    pub fn keeping(self, pages: usize) -> BlobReader {
        BlobReader { room: pages, ..self }
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Payload bytes.
    pub fn len(&self) -> u64 {
        self.payload_bytes
    }

    /// True without payload.
    pub fn is_empty(&self) -> bool {
        self.payload_bytes == 0
    }

    /// Reads payload [offset, offset + out.len()).
    ///
    /// # Errors
    /// Corruption with its place; a range past the end is corruption of whoever named it.
    pub fn read_at(&self, mut offset: u64, out: &mut [u8]) -> Result<(), FormatError> {
        let end = offset.checked_add(out.len() as u64).filter(|&end| end <= self.payload_bytes);
        if end.is_none() {
            let detail = format!("payload [{offset}, +{}) is past its end {}", out.len(), self.payload_bytes);
            return Err(self.corrupt(offset, detail));
        }
        let mut buffer = Vec::new();
        let mut done = 0;
        while done < out.len() {
            let (number, within) = (offset / BLOB_PAYLOAD as u64, (offset % BLOB_PAYLOAD as u64) as usize);
            let part = (BLOB_PAYLOAD - within).min(out.len() - done);
            let place = HEADER_BYTES + within..HEADER_BYTES + within + part;
            if self.room > 0 {
                out[done..done + part].copy_from_slice(&self.kept_page(number)?[place]);
            } else {
                buffer.resize(BLOB_PAGE, 0);
                self.read_page(number, &mut buffer)?;
                out[done..done + part].copy_from_slice(&buffer[place]);
            }
            done += part;
            offset += part as u64;
        }
        Ok(())
    }

    /// A page that was checked, from memory if it is there.
    fn kept_page(&self, number: u64) -> Result<Arc<[u8]>, FormatError> {
        let kept = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = kept().get(number) {
            return Ok(bytes);
        }
        let mut bytes = vec![0; BLOB_PAGE];
        self.read_page(number, &mut bytes)?;
        let bytes: Arc<[u8]> = bytes.into();
        kept().put(number, Arc::clone(&bytes), self.room);
        Ok(bytes)
    }

    fn read_page(&self, number: u64, buffer: &mut [u8]) -> Result<(), FormatError> {
        breathe();
        let place = number * BLOB_PAGE as u64;
        self.file.read_exact_at(buffer, place).map_err(io_error(&self.path))?;
        page::check(buffer, self.file_id, number).map(|_| ()).map_err(|e| self.corrupt(place, e.to_string()))
    }

    /// The whole payload. The caller has bounded `payload_bytes`; nothing else is allocated.
    ///
    /// # Errors
    /// As [`BlobReader::read_at`].
    pub fn read_all(&self) -> Result<Vec<u8>, FormatError> {
        let mut all = crate::huge::zeroed(self.payload_bytes as usize);
        self.read_at(0, &mut all)?;
        Ok(all)
    }

    /// Checks every page without keeping any, and that the padding is zero.
    ///
    /// # Errors
    /// The first damaged place.
    pub fn verify(&self) -> Result<(), FormatError> {
        let mut buffer = vec![0; BLOB_PAGE];
        let pages = file_bytes(self.payload_bytes) / BLOB_PAGE as u64;
        for number in 0..pages {
            self.read_page(number, &mut buffer)?;
        }
        let used = HEADER_BYTES + (self.payload_bytes - pages.saturating_sub(1) * BLOB_PAYLOAD as u64) as usize;
        if pages > 0 && buffer[used..].iter().any(|&b| b != 0) {
            return Err(self.corrupt((pages - 1) * BLOB_PAGE as u64, "padding is not zero".to_string()));
        }
        Ok(())
    }

    /// An error about this file.
    pub fn corrupt(&self, offset: u64, detail: String) -> FormatError {
        FormatError::Corrupt { path: self.path.clone(), offset, detail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_is_wanted_again_and_again_stays() {
        let mut kept = Kept::default();
        let bytes = |page: u64| -> Arc<[u8]> { Arc::new([page as u8]) };
        for page in 0..100 {
            kept.put(page, bytes(page), 4);
            assert!(kept.get(0).is_some_and(|kept| *kept == [0]) && kept.place_of.contains_key(&page), "{page}");
            assert!(kept.places.len() <= 4 && kept.place_of.len() == kept.places.len());
        }
        assert!(kept.get(99).is_some_and(|kept| *kept == [99]));
        // Another thread may have been faster.
        kept.put(99, bytes(99), 4);
        assert_eq!(kept.places.iter().filter(|(page, ..)| *page == 99).count(), 1);
    }

    #[test]
    fn what_is_written_is_read_and_damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for len in [0usize, 1, BLOB_PAYLOAD - 1, BLOB_PAYLOAD, BLOB_PAYLOAD + 1, 3 * BLOB_PAYLOAD + 17] {
            let path = dir.path().join(format!("blob{len}"));
            let bytes: Vec<u8> = (0..len).map(|i| (i * 31 / 7) as u8).collect();
            let mut writer = BlobWriter::create(&path, 5).unwrap();
            bytes.chunks(1000).for_each(|c| writer.write(c).unwrap());
            assert_eq!(writer.finish().unwrap(), len as u64);
            let reader = BlobReader::open(&path, 5, len as u64).unwrap();
            assert_eq!(reader.read_all().unwrap(), bytes);
            reader.verify().unwrap();
            let keeping = BlobReader::open(&path, 5, len as u64).unwrap().keeping(2);
            for at in [0, len / 2, len.saturating_sub(9), 0, len / 3] {
                let mut some = vec![0; (len - at).min(BLOB_PAYLOAD + 5)];
                keeping.read_at(at as u64, &mut some).unwrap();
                assert!(some == bytes[at..at + some.len()]);
                assert!(keeping.kept.lock().unwrap().places.len() <= 2);
            }
            assert!(reader.read_at(len as u64, &mut [0]).is_err());
            if len > 0 {
                assert!(BlobReader::open(&path, 6, len as u64).unwrap().read_all().unwrap_err().is_corruption());
                let mut raw = std::fs::read(&path).unwrap();
                let last = raw.len() - 1;
                raw[last] ^= 1;
                std::fs::write(&path, &raw).unwrap();
                let error = reader.verify().unwrap_err().to_string();
                assert!(error.contains("corrupt at byte"), "{error}");
                std::fs::write(&path, &raw[..last]).unwrap();
                assert!(BlobReader::open(&path, 5, len as u64).is_err());
            }
        }
    }
}
