//! One page: 40 bytes of header, then what it holds, then zeros. The checksum covers all of it but itself.

use bytemuck::{Pod, Zeroable};
use xxhash_rust::xxh3::xxh3_64;

/// The head of every page of every file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct PageHeader {
    /// xxh3-64 of every later byte of the page.
    pub checksum: u64,
    /// [`super::file_id`] of the file.
    pub file_id: u64,
    /// Number of the page in its file.
    pub page: u64,
    /// Sequence number of the change that last wrote it; 0 from a build.
    pub lsn: u64,
    /// Records in use.
    pub live: u16,
    /// Layout of what follows; 1.
    pub format: u16,
    /// Zero.
    pub reserved: u32,
}

/// Bytes of a [`PageHeader`].
pub const HEADER_BYTES: usize = size_of::<PageHeader>();

/// What is wrong with a page, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// The bytes changed after they were written.
    #[error("checksum {got:016x}, expected {expected:016x}")]
    Checksum {
        /// In the page.
        expected: u64,
        /// Of the bytes.
        got: u64,
    },
    /// A good page in a wrong place.
    #[error("page {page} of file {file_id:016x} found where page {wanted_page} of file {wanted_file:016x} belongs")]
    Misplaced {
        /// Found.
        page: u64,
        /// Found.
        file_id: u64,
        /// Expected.
        wanted_page: u64,
        /// Expected.
        wanted_file: u64,
    },
    /// A layout this version does not know.
    #[error("page format {0}, this version knows 1")]
    Format(u16),
}

/// Records in use of a page that was checked.
pub fn live(page: &[u8]) -> u16 {
    bytemuck::pod_read_unaligned::<PageHeader>(&page[..HEADER_BYTES]).live
}

/// The number of the change that last wrote a page that was checked.
pub fn lsn(page: &[u8]) -> u64 {
    bytemuck::pod_read_unaligned::<PageHeader>(&page[..HEADER_BYTES]).lsn
}

/// Writes the header into `page` and seals it. The rest of the page must be in place.
pub fn seal(page: &mut [u8], mut header: PageHeader) {
    header.format = 1;
    page[..HEADER_BYTES].copy_from_slice(bytemuck::bytes_of(&header));
    let checksum = xxh3_64(&page[8..]);
    page[..8].copy_from_slice(&checksum.to_le_bytes());
}

/// Proves that `page` is page number `number` of file `file_id`, unaltered.
///
/// # Errors
/// See [`PageError`].
pub fn check(page: &[u8], file_id: u64, number: u64) -> Result<PageHeader, PageError> {
    let header: PageHeader = bytemuck::pod_read_unaligned(&page[..HEADER_BYTES]);
    let got = xxh3_64(&page[8..]);
    if got != header.checksum {
        return Err(PageError::Checksum { expected: header.checksum, got });
    }
    if header.page != number || header.file_id != file_id {
        return Err(PageError::Misplaced { page: header.page, file_id: header.file_id, wanted_page: number, wanted_file: file_id });
    }
    if header.format != 1 {
        return Err(PageError::Format(header.format));
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flipped_bit_and_any_swap_is_found() {
        let mut page = vec![7u8; 4096];
        seal(&mut page, PageHeader { file_id: 3, page: 9, live: 2, ..PageHeader::default() });
        assert_eq!(check(&page, 3, 9).unwrap().live, 2);
        assert!(matches!(check(&page, 3, 8), Err(PageError::Misplaced { .. })));
        assert!(matches!(check(&page, 4, 9), Err(PageError::Misplaced { .. })));
        for bit in (0..4096 * 8).step_by(61) {
            page[bit / 8] ^= 1 << (bit % 8);
            assert!(check(&page, 3, 9).is_err(), "bit {bit}");
            page[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
