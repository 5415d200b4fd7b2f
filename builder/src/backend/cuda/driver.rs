//! What the CUDA backend asks of a device: memory, copies, launches. Real devices (`nvidia`) answer through the NVIDIA driver; the test
//! suite answers with the same kernels compiled for the host, so that everything above this line is tested without a GPU.
//!
//! All work is in order: a copy sees what launches before it wrote, a launch sees what copies before it brought.

use std::fmt;

/// A place in device memory.
pub type Address = u64;

/// One argument of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arg {
    /// A pointer into device memory; 0 is null.
    Address(Address),
    /// A 32-bit number.
    U32(u32),
    /// A 64-bit number.
    U64(u64),
}

/// One launch: `grid` blocks in one dimension, `block` threads each.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// The file of the kernel without its ending: `leaf_knn`.
    pub stem: &'static str,
    /// The entry in it: `leaf_knn_l2_narrow_5`.
    pub entry: &'a str,
    /// Blocks, 1 to 2^31 - 1.
    pub grid: u32,
    /// Threads of a block, a multiple of 32.
    pub block: u32,
    /// Dynamic shared memory of a block, at most [`Facts::shared_bytes`].
    pub shared_bytes: u32,
    /// In the order of the contract (kernels/README.md).
    pub args: &'a [Arg],
}

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its product name.
    pub name: String,
    /// The driver's version, such as `13.0`: the newest CUDA it serves.
    pub driver: String,
    /// Compute capability, such as (9, 0).
    pub capability: (u32, u32),
    /// All its memory.
    pub memory_bytes: u64,
    /// What of it was free when the device was opened.
    pub free_bytes: u64,
    /// Shared memory that one block may ask for.
    pub shared_bytes: u32,
    /// Multiprocessors.
    pub multiprocessors: u32,
}

/// Why a device did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DriverError {
    /// No driver, no such device, a driver that is too old: said when opening, with how to mend it.
    #[error("{0}")]
    Unavailable(String),
    /// A request for memory was refused; the device is as it was.
    #[error("out of device memory: asked for {asked} bytes")]
    OutOfMemory {
        /// Bytes asked for.
        asked: u64,
    },
    /// A sticky error: this process can use the device no more.
    #[error("the device is lost: {0}")]
    Lost(String),
    /// Anything else the driver said; a kernel image that it does not take.
    #[error("{0}")]
    Refused(String),
}

/// A download under way: what [`Driver::finish_download`] ends.
#[derive(Debug)]
pub struct Ticket {
    /// The slot of the ring it lands in.
    pub slot: usize,
    /// How long it is.
    pub bytes: usize,
}

/// See the module. Methods may be called from any thread, one at a time.
pub trait Driver: Send + Sync + fmt::Debug {
    /// What the device is.
    fn facts(&self) -> &Facts;

    /// Takes memory, aligned to 256 bytes, with any content. Never managed memory.
    ///
    /// # Errors
    /// `OutOfMemory`.
    fn take(&self, bytes: u64) -> Result<Address, DriverError>;

    /// Gives back what `take` gave.
    fn give(&self, at: Address);

    /// Copies to the device; `from` may be changed as soon as this returns.
    ///
    /// # Errors
    /// What the driver says, as for all below.
    fn upload(&self, to: Address, from: &[u8]) -> Result<(), DriverError>;

    /// Copies from the device.
    ///
    /// # Errors
    /// See `upload`.
    fn download(&self, from: Address, to: &mut [u8]) -> Result<(), DriverError>;

    /// Bytes that one `start_download` may bring.
    fn slot_bytes(&self) -> usize;

    /// Begins to copy at most [`Driver::slot_bytes`] while later launches run; nothing may write there until it is finished. At most two
    /// are under way at a time, and they are finished in the order they were begun.
    ///
    /// # Errors
    /// See `upload`.
    fn start_download(&self, from: Address, bytes: usize) -> Result<Ticket, DriverError>;

    /// Waits for a download; `to` is as long as it.
    ///
    /// # Errors
    /// See `upload`.
    fn finish_download(&self, ticket: Ticket, to: &mut [u8]) -> Result<(), DriverError>;

    /// Sets every byte of a range.
    ///
    /// # Errors
    /// See `upload`.
    fn fill(&self, at: Address, bytes: u64, byte: u8) -> Result<(), DriverError>;

    /// Copies within the device; the ranges do not overlap.
    ///
    /// # Errors
    /// See `upload`.
    fn copy(&self, to: Address, from: Address, bytes: u64) -> Result<(), DriverError>;

    /// Queues a kernel.
    ///
    /// # Errors
    /// An entry that no image has, and see `upload`; a kernel's own failure may be told by a later call.
    fn launch(&self, launch: &Launch<'_>) -> Result<(), DriverError>;

    /// Waits for everything queued.
    ///
    /// # Errors
    /// See `upload`.
    fn synchronize(&self) -> Result<(), DriverError>;
}
