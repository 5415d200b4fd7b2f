//! What the driver hands out, each with an owner that gives it back when it is dropped. All but [`Context`] want its context current on the
//! thread, then too; errors of giving back are swallowed, since they come again at the next call that can tell them.
#![allow(unsafe_code)]

use std::ffi::{CString, c_int, c_void};
use std::ptr;

use cudarc::driver::sys;
use sys::{CUevent_flags as EventFlag, CUfunction_attribute as FunctionAttribute};

use super::super::driver::{Address, Arg, DriverError, Launch};
use super::super::images;
use super::calls;
use super::found::device;
use super::said::check;

/// A slot is large enough to keep the bus busy while the host fills the next.
pub(super) const SLOT_BYTES: usize = 16 << 20;

/// The device's primary context, kept alive: what all other users of the device in this process share.
pub(super) struct Context {
    device: sys::CUdevice,
    handle: sys::CUcontext,
}

impl Context {
    /// Also makes it the current one of this thread.
    pub(super) fn retain(ordinal: c_int) -> Result<Self, DriverError> {
        let device = device(ordinal)?;
        let mut handle = ptr::null_mut();
        // SAFETY: `handle` is a place for the answer, `device` came from the driver.
        let said = unsafe { calls::cuDevicePrimaryCtxRetain(&mut handle, device) };
        check(said, 0, format_args!("opening device cuda:{ordinal}"))?;
        let context = Self { device, handle };
        context.enter()?;
        Ok(context)
    }

    pub(super) fn enter(&self) -> Result<(), DriverError> {
        // SAFETY: the handle was retained and is released in drop alone.
        check(unsafe { calls::cuCtxSetCurrent(self.handle) }, 0, format_args!("entering the device's context"))
    }

    /// Free bytes and all bytes.
    pub(super) fn memory(&self) -> Result<(u64, u64), DriverError> {
        self.enter()?;
        let (mut free, mut all) = (0, 0);
        // SAFETY: both are places for answers.
        check(unsafe { calls::cuMemGetInfo_v2(&mut free, &mut all) }, 0, format_args!("asking for free memory"))?;
        Ok((free as u64, all as u64))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: it was retained once and is released once; no thread is left in it by this one.
        unsafe {
            let _ = calls::cuCtxSetCurrent(ptr::null_mut());
            let _ = calls::cuDevicePrimaryCtxRelease_v2(self.device);
        }
    }
}

pub(super) struct Stream(pub(super) sys::CUstream);

impl Stream {
    pub(super) fn new() -> Result<Self, DriverError> {
        let mut stream = ptr::null_mut();
        // SAFETY: `stream` is a place for the answer.
        let said = unsafe { calls::cuStreamCreate(&mut stream, sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32) };
        check(said, 0, format_args!("making a stream"))?;
        Ok(Self(stream))
    }

    /// What is queued here from now on runs after what is queued on `earlier` by now. Any event serves, and may be used again at once: the
    /// driver notes its state when it is asked to wait.
    pub(super) fn follow(&self, earlier: &Stream, event: &Event) -> Result<(), DriverError> {
        event.record(earlier)?;
        // SAFETY: both live and are of one context.
        check(unsafe { calls::cuStreamWaitEvent(self.0, event.0, 0) }, 0, format_args!("joining streams"))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: made by `new`, destroyed once.
        let _ = unsafe { calls::cuStreamDestroy_v2(self.0) };
    }
}

pub(super) struct Event(pub(super) sys::CUevent);

impl Event {
    pub(super) fn new(flags: u32) -> Result<Self, DriverError> {
        let mut event = ptr::null_mut();
        // SAFETY: `event` is a place for the answer.
        check(unsafe { calls::cuEventCreate(&mut event, flags) }, 0, format_args!("making an event"))?;
        Ok(Self(event))
    }

    /// One for order alone; who waits for it sleeps.
    pub(super) fn untimed() -> Result<Self, DriverError> {
        Self::new(EventFlag::CU_EVENT_DISABLE_TIMING as u32 | EventFlag::CU_EVENT_BLOCKING_SYNC as u32)
    }

    pub(super) fn record(&self, stream: &Stream) -> Result<(), DriverError> {
        // SAFETY: both live and are of one context.
        check(unsafe { calls::cuEventRecord(self.0, stream.0) }, 0, format_args!("recording an event"))
    }

    /// Returns at once when it was never recorded.
    pub(super) fn wait(&self) -> Result<(), DriverError> {
        // SAFETY: it lives.
        check(unsafe { calls::cuEventSynchronize(self.0) }, 0, format_args!("waiting for the device"))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: made by `new`, destroyed once.
        let _ = unsafe { calls::cuEventDestroy_v2(self.0) };
    }
}

/// SLOT_BYTES of pinned memory: the device reaches it without the host's help.
pub(super) struct Pinned(*mut u8);

impl Pinned {
    pub(super) fn new(flags: u32) -> Result<Self, DriverError> {
        let mut memory: *mut c_void = ptr::null_mut();
        // SAFETY: `memory` is a place for the answer.
        let said = unsafe { calls::cuMemHostAlloc(&mut memory, SLOT_BYTES, flags) };
        check(said, SLOT_BYTES as u64, format_args!("pinning host memory")).map_err(|error| match error {
            DriverError::OutOfMemory { .. } => DriverError::Refused(format!("the host has no {SLOT_BYTES} bytes to pin: free some memory")),
            other => other,
        })?;
        let memory = Self(memory.cast());
        // SAFETY: just taken, of this length.
        unsafe { ptr::write_bytes(memory.0, 0, SLOT_BYTES) };
        Ok(memory)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: made by `new`, freed once; `State::drop` has waited for all copies, or the device is lost and the driver refuses.
        let _ = unsafe { calls::cuMemFreeHost(self.0.cast()) };
    }
}

/// A slot of a ring.
pub(super) struct Slot {
    memory: Pinned,
    /// Recorded behind the last copy from or to it.
    passed: Event,
}

impl Slot {
    pub(super) fn new(flags: u32) -> Result<Self, DriverError> {
        Ok(Self { memory: Pinned::new(flags)?, passed: Event::untimed()? })
    }

    /// Queues a copy of at most [`SLOT_BYTES`] to the device, once the slot's last copy has passed.
    pub(super) fn send(&self, stream: &Stream, to: Address, from: &[u8]) -> Result<(), DriverError> {
        assert!(from.len() <= SLOT_BYTES);
        self.passed.wait()?;
        // SAFETY: `from` fits the slot (above), and no copy reads the slot any more (the wait).
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), self.memory.0, from.len()) };
        // SAFETY: the slot has as many bytes; it is written after `passed` alone, and not freed before the driver has waited for this copy.
        let said = unsafe { calls::cuMemcpyHtoDAsync_v2(to, self.memory.0.cast(), from.len(), stream.0) };
        check(said, 0, format_args!("copying {} bytes to the device", from.len()))?;
        self.passed.record(stream)
    }

    /// Queues a copy of at most [`SLOT_BYTES`] from the device.
    pub(super) fn fetch(&self, stream: &Stream, from: Address, bytes: usize) -> Result<(), DriverError> {
        assert!(bytes <= SLOT_BYTES);
        if bytes > 0 {
            // SAFETY: the slot has as many bytes (above); it is read after `passed` alone, and not freed before the driver has waited for
            // this copy.
            let said = unsafe { calls::cuMemcpyDtoHAsync_v2(self.memory.0.cast(), from, bytes, stream.0) };
            check(said, 0, format_args!("copying {bytes} bytes from the device"))?;
        }
        self.passed.record(stream)
    }

    /// Waits for [`Slot::fetch`] and takes what it brought.
    pub(super) fn empty(&self, to: &mut [u8]) -> Result<(), DriverError> {
        assert!(to.len() <= SLOT_BYTES);
        self.passed.wait()?;
        // SAFETY: `to` fits the slot (above), whose bytes are all set (`Pinned::new`), and no copy writes it any more (the wait).
        unsafe { ptr::copy_nonoverlapping(self.memory.0, to.as_mut_ptr(), to.len()) };
        Ok(())
    }
}

pub(super) struct Module(sys::CUmodule);

impl Module {
    pub(super) fn load(image: &images::Loadable) -> Result<Self, DriverError> {
        let mut module = ptr::null_mut();
        // SAFETY: the image is whole (`images::image` checked it) and tells its own length: an ELF file, or text with its zero.
        let said = unsafe { calls::cuModuleLoadData(&mut module, image.code.as_ptr().cast()) };
        check(said, image.code.len() as u64, format_args!("loading {}", image.name))?;
        Ok(Self(module))
    }

    pub(super) fn function(&self, entry: &str) -> Result<Function, DriverError> {
        let name = CString::new(entry).map_err(|_| DriverError::Refused(format!("no kernel is called {entry:?}")))?;
        let mut handle = ptr::null_mut();
        // SAFETY: the module lives, the name ends with a zero, `handle` is a place for the answer.
        let said = unsafe { calls::cuModuleGetFunction(&mut handle, self.0, name.as_ptr()) };
        check(said, 0, format_args!("looking for the kernel {entry}"))?;
        let mut shared = 0;
        // SAFETY: the function was just found, `shared` is a place for the answer.
        let said = unsafe { calls::cuFuncGetAttribute(&mut shared, Function::MOST_SHARED, handle) };
        check(said, 0, format_args!("asking for the shared memory of {entry}"))?;
        Ok(Function { handle, shared_bytes: u32::try_from(shared).unwrap_or(0) })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: made by `load`, unloaded once; nothing of it runs after `State::drop` has waited.
        let _ = unsafe { calls::cuModuleUnload(self.0) };
    }
}

/// A kernel of a module that lives as long as this.
pub(super) struct Function {
    handle: sys::CUfunction,
    /// Dynamic shared memory that a launch may ask for without asking for more first: 48 KiB less what is fixed.
    shared_bytes: u32,
}

impl Function {
    const MOST_SHARED: FunctionAttribute = FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;

    /// Queues it. `images::check_args` has held the launch's arguments against what the entry declares.
    pub(super) fn launch(&mut self, launch: &Launch<'_>, stream: &Stream) -> Result<(), DriverError> {
        let &Launch { entry, grid, block, shared_bytes, args, .. } = launch;
        self.allow_shared(shared_bytes, entry)?;
        // The driver reads each argument's own width from its first byte on: little-endian, like every host of a CUDA device.
        let mut values: Vec<u64> = args.iter().map(|&arg| value_of(arg)).collect();
        let mut pointers: Vec<*mut c_void> = values.iter_mut().map(|value| ptr::from_mut(value).cast()).collect();
        // SAFETY: the function's module is loaded. The driver reads as many arguments as the entry declares, 4 or 8 bytes each, before the
        // call returns: number and widths are those of `args` (`images::check_args`), and each pointer has 8 bytes. What the kernel does
        // to device memory is the contract of kernels/README.md.
        let said = unsafe {
            calls::cuLaunchKernel(self.handle, grid, 1, 1, block, 1, 1, shared_bytes, stream.0, pointers.as_mut_ptr(), ptr::null_mut())
        };
        check(said, 0, format_args!("launching {entry}, {grid} blocks of {block} threads with {shared_bytes} bytes of shared memory"))
    }

    fn allow_shared(&mut self, bytes: u32, entry: &str) -> Result<(), DriverError> {
        if bytes > self.shared_bytes {
            let value = c_int::try_from(bytes).unwrap_or(c_int::MAX);
            // SAFETY: the function's module is loaded.
            let said = unsafe { calls::cuFuncSetAttribute(self.handle, Self::MOST_SHARED, value) };
            check(said, 0, format_args!("giving {entry} {bytes} bytes of shared memory a block"))?;
            self.shared_bytes = bytes;
        }
        Ok(())
    }
}

fn value_of(arg: Arg) -> u64 {
    match arg {
        Arg::Address(at) => at,
        Arg::U32(value) => u64::from(value),
        Arg::U64(value) => value,
    }
}

/// Waits for all streams of the current context.
pub(super) fn synchronize() -> Result<(), DriverError> {
    // SAFETY: asks for nothing.
    check(unsafe { calls::cuCtxSynchronize() }, 0, format_args!("waiting for the device"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_is_its_own_first_bytes() {
        assert_eq!(value_of(Arg::U32(0x0102_0304)).to_ne_bytes()[..4], 0x0102_0304_u32.to_ne_bytes());
        assert_eq!(value_of(Arg::U64(u64::MAX)), u64::MAX);
        assert_eq!(value_of(Arg::Address(7)), 7);
    }
}
