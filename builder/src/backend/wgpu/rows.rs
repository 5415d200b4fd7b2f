//! The rows of a build: on the host always, on the device where they fit.
//!
//! The shaders read `rows[id]` either way. Resident, an id is a row's own; else the host gathers the rows of a batch densely and an id is
//! a place in that.

use super::{
    device::{Gpu, GpuError},
    launch::{Binding, beyond},
};
use ::wgpu::Buffer;
use roxanne_core::tile::{BuildMetric, ROW_ALIGN};

/// Rows on the device: a copy of what [`Gpu::load`] was given.
pub struct Resident {
    buffer: Buffer,
    bytes: usize,
}

/// Rows [n x stride] of u8 build codes.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    bytes: &'a [u8],
    stride: usize,
    resident: Option<&'a Resident>,
}

impl<'a> Rows<'a> {
    /// Rows of `stride` bytes, and their copy on the device where there is one.
    ///
    /// # Errors
    /// A stride that is no multiple of 32, bytes that are no whole rows, or a copy of other rows.
    pub fn new(bytes: &'a [u8], stride: usize, resident: Option<&'a Resident>) -> Result<Rows<'a>, GpuError> {
        if stride == 0 || !stride.is_multiple_of(ROW_ALIGN) || !bytes.len().is_multiple_of(stride) {
            return Err(GpuError::Other(format!("{} bytes in rows of {stride}: rows are multiples of {ROW_ALIGN} bytes", bytes.len())));
        }
        if resident.is_some_and(|r| r.bytes != bytes.len()) {
            return Err(GpuError::Other("the rows on the device are not these".into()));
        }
        Ok(Rows { bytes, stride, resident })
    }

    pub(super) fn n(&self) -> usize {
        self.bytes.len() / self.stride
    }

    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    /// Bytes that a batch sends for each row it gathers.
    pub(super) fn gathered_bytes(&self) -> u64 {
        if self.resident.is_some() { 0 } else { self.stride as u64 }
    }

    /// Fails when an id names no row.
    pub(super) fn check(&self, ids: &[u32]) -> Result<(), GpuError> {
        ids.iter().find(|&&id| id as usize >= self.n()).map_or(Ok(()), |&id| Err(beyond(id, self.n())))
    }

    /// What a batch binds as `rows`, and calls the rows `ids` (which become places in the batch unless rows are resident).
    pub(super) fn bind<'b>(&'b self, ids: &'b [u32], called: &mut Vec<u32>) -> Binding<'b> {
        called.clear();
        match self.resident {
            Some(resident) => {
                called.extend_from_slice(ids);
                Binding::Resident(&resident.buffer)
            }
            None => {
                called.extend(0..ids.len() as u32);
                Binding::Gather { rows: self.bytes, stride: self.stride, ids }
            }
        }
    }

    /// What a batch of the rows `first .. first + count` binds, and what it calls the first of them.
    pub(super) fn bind_run(&self, first: usize, count: usize) -> (Binding<'_>, usize) {
        match self.resident {
            Some(resident) => (Binding::Resident(&resident.buffer), first),
            None => (Binding::Bytes(&self.bytes[first * self.stride..(first + count) * self.stride]), 0),
        }
    }
}

impl Gpu {
    /// Copies `rows` to the device; `None` where they do not fit, and are gathered batch by batch instead.
    ///
    /// # Errors
    /// A lost device.
    pub fn load(&self, rows: &[u8]) -> Result<Option<Resident>, GpuError> {
        // Shaders count words in 32 bits.
        if rows.len() as u64 / 4 > u64::from(u32::MAX) || rows.len() as u64 > self.room {
            return Ok(None);
        }
        match self.upload(rows) {
            Ok(buffer) => Ok(Some(Resident { buffer, bytes: rows.len() })),
            Err(GpuError::OutOfMemory) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// What the shaders call a metric.
pub(super) fn metric_number(metric: BuildMetric) -> u32 {
    match metric {
        BuildMetric::L2 => 0,
        BuildMetric::Manhattan => 1,
        BuildMetric::Hamming => 2,
    }
}
