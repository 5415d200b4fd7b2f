//! The CUDA backend without a GPU: its driver is a shared library of the same kernels, made by the C++ compiler, in which blocks are loops
//! and lanes are fibers that meet at barriers (kernels/host). Slow, and for tests alone.
#![allow(unsafe_code)]

use libloading::{Library, Symbol};
use roxanne_builder::backend::cuda::{
    Cuda,
    driver::{Address, Arg, Driver, DriverError, Facts, Launch, Ticket},
};
use std::{
    alloc::{Layout, alloc, dealloc},
    collections::BTreeMap,
    ffi::{CStr, CString, c_char, c_void},
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
};

/// Memory of the device that is played.
const MEMORY_BYTES: u64 = 256 << 20;
/// Bytes on both sides of what is taken that no kernel may touch.
const GUARD: usize = 4096;
const POISON: u8 = 0xA5;
/// Small, so that a few hundred rows come in several downloads.
const SLOT_BYTES: usize = 16 << 10;

type LaunchFn = unsafe extern "C" fn(*const c_char, u64, u32, u32, *mut *mut c_void, *mut c_char, u64) -> i32;
type SeedFn = unsafe extern "C" fn(u64);

/// The CUDA backend on kernels made for `architecture` (750: dp4a, 800: mma).
pub(crate) fn open(architecture: u32) -> Result<Cuda, String> {
    // Each buffer by itself: its guards see every write past its end.
    Cuda::with_buffers_apart(Arc::new(HostDriver::open(architecture)?), MEMORY_BYTES / 2).map_err(|e| e.to_string())
}

/// In one range, as on a device, with a budget and the driver below it.
pub(crate) fn open_with(architecture: u32, bytes: u64) -> Result<(Cuda, Arc<HostDriver>), String> {
    let driver = Arc::new(HostDriver::open(architecture)?);
    Ok((Cuda::new(driver.clone(), bytes).map_err(|e| e.to_string())?, driver))
}

pub(crate) struct HostDriver {
    library: Library,
    facts: Facts,
    /// What was taken: the whole of each, with its guards.
    taken: Mutex<BTreeMap<Address, Layout>>,
    /// Downloads under way; the copy is made when they begin, as a device might.
    slots: Mutex<BTreeMap<usize, Vec<u8>>>,
    launches: Mutex<u64>,
    /// The launch, from 1 on, that loses the device.
    lost_at: Mutex<u64>,
}

impl std::fmt::Debug for HostDriver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HostDriver")
    }
}

impl HostDriver {
    fn open(architecture: u32) -> Result<HostDriver, String> {
        let path = compiled(architecture)?;
        // SAFETY: the library is ours, made a moment ago from kernels/; loading it runs the constructors of its entry tables and nothing else.
        let library = unsafe { Library::new(&path) }.map_err(|e| e.to_string())?;
        let facts = Facts {
            name: "host".into(),
            driver: "none".into(),
            capability: (architecture / 100, architecture / 10 % 10),
            memory_bytes: MEMORY_BYTES,
            free_bytes: MEMORY_BYTES,
            shared_bytes: 64 << 10,
            multiprocessors: 1,
        };
        Ok(HostDriver {
            library,
            facts,
            taken: Mutex::default(),
            slots: Mutex::default(),
            launches: Mutex::new(0),
            lost_at: Mutex::new(u64::MAX),
        })
    }

    /// Launches so far.
    pub(crate) fn launches(&self) -> u64 {
        *self.launches.lock().unwrap()
    }

    /// Loses the device by that launch, counted from 1.
    pub(crate) fn lose_at(&self, launch: u64) {
        *self.lost_at.lock().unwrap() = launch;
    }

    /// How many pieces of memory were not given back.
    pub(crate) fn left(&self) -> usize {
        self.taken.lock().unwrap().len()
    }

    fn alive(&self) -> Result<(), DriverError> {
        let is_lost = self.launches() >= *self.lost_at.lock().unwrap();
        if is_lost { Err(DriverError::Lost("as the test wanted it".into())) } else { Ok(()) }
    }

    /// Bytes of device memory, which is host memory here.
    #[allow(clippy::mut_from_ref)]
    fn memory(&self, at: Address, bytes: usize) -> &mut [u8] {
        let taken = self.taken.lock().unwrap();
        let (&base, layout) = taken.range(..=at).next_back().expect("an address inside memory that was taken");
        assert!(at + bytes as u64 <= base + (layout.size() - 2 * GUARD) as u64, "a copy beyond what was taken");
        // SAFETY: inside a live allocation (asserted); the backend calls one method at a time, so nobody else looks at it.
        unsafe { std::slice::from_raw_parts_mut(at as *mut u8, bytes) }
    }

    fn guards_are_whole(&self, base: Address, layout: Layout) -> bool {
        // SAFETY: the allocation that `take` made, guards included.
        let all = unsafe { std::slice::from_raw_parts((base as usize - GUARD) as *const u8, layout.size()) };
        all[..GUARD].iter().chain(&all[layout.size() - GUARD..]).all(|&byte| byte == POISON)
    }
}

/// The library of kernels for `architecture`, compiled once for each state of the sources.
fn compiled(architecture: u32) -> Result<PathBuf, String> {
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernels");
    let state = format!("{architecture}-{:016x}", state_of(&kernels)?);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cuda-host");
    fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
    let path = folder.join(format!("{state}.so"));
    // Tests are processes of their own: the first one compiles, the others wait.
    let lock = File::create(folder.join(format!("{architecture}.lock"))).map_err(|e| e.to_string())?;
    lock.lock().map_err(|e| e.to_string())?;
    if !path.exists() {
        let unfinished = folder.join(format!("{state}.part"));
        compile(&kernels, &["host/kernels.cpp"], architecture, &["-shared", "-fPIC"], &unfinished)?;
        fs::rename(&unfinished, &path).map_err(|e| e.to_string())?;
    }
    Ok(path)
}

/// Compiles sources of kernels/ for the host.
pub(crate) fn compile(kernels: &Path, sources: &[&str], architecture: u32, flags: &[&str], out: &Path) -> Result<(), String> {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let mut command = Command::new(&compiler);
    command.args(["-std=c++20", "-O2", "-DROXANNE_HOST"]).arg(format!("-DROXANNE_HOST_ARCH={architecture}")).args(flags);
    command.arg("-I").arg(kernels).args(sources.iter().map(|source| kernels.join(source))).arg("-o").arg(out);
    let output = command.output().map_err(|e| format!("no C++ compiler ({compiler}): {e}"))?;
    if output.status.success() { Ok(()) } else { panic!("{sources:?} do not compile:\n{}", String::from_utf8_lossy(&output.stderr)) }
}

/// A hash over the names and texts of all sources.
fn state_of(kernels: &Path) -> Result<u64, String> {
    let mut texts = BTreeMap::new();
    for folder in [kernels.to_path_buf(), kernels.join("host")] {
        for entry in fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?.flatten() {
            if entry.path().extension().is_some_and(|e| ["cu", "cuh", "h", "cpp"].iter().any(|known| e == *known)) {
                texts.insert(entry.path(), fs::read(entry.path()).map_err(|e| e.to_string())?);
            }
        }
    }
    let words = texts.iter().flat_map(|(path, text)| [path.as_os_str().as_encoded_bytes(), text.as_slice()]).flatten();
    // FNV-1a: a name for a file, not a proof.
    Ok(words.fold(0xCBF2_9CE4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3)))
}

impl Driver for HostDriver {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn take(&self, bytes: u64) -> Result<Address, DriverError> {
        self.alive()?;
        if bytes > MEMORY_BYTES {
            return Err(DriverError::OutOfMemory { asked: bytes });
        }
        let layout = Layout::from_size_align(bytes as usize + 2 * GUARD, 4096).unwrap();
        // SAFETY: the size is not zero.
        let start = unsafe { alloc(layout) };
        assert!(!start.is_null());
        // SAFETY: as long as the layout says, and nobody else knows it yet.
        unsafe { start.write_bytes(POISON, layout.size()) };
        let at = start as usize + GUARD;
        self.taken.lock().unwrap().insert(at as u64, layout);
        Ok(at as u64)
    }

    fn give(&self, at: Address) {
        let layout = self.taken.lock().unwrap().remove(&at).expect("given back once");
        let whole = self.guards_are_whole(at, layout);
        // SAFETY: `take` made it with this layout, and it was in the table, so it was not given back before.
        unsafe { dealloc((at as usize - GUARD) as *mut u8, layout) };
        assert!(whole, "a kernel wrote outside of device memory");
    }

    fn upload(&self, to: Address, from: &[u8]) -> Result<(), DriverError> {
        self.memory(to, from.len()).copy_from_slice(from);
        self.alive()
    }

    fn download(&self, from: Address, to: &mut [u8]) -> Result<(), DriverError> {
        to.copy_from_slice(self.memory(from, to.len()));
        self.alive()
    }

    fn slot_bytes(&self) -> usize {
        SLOT_BYTES
    }

    fn start_download(&self, from: Address, bytes: usize) -> Result<Ticket, DriverError> {
        let mut slots = self.slots.lock().unwrap();
        assert!(bytes <= SLOT_BYTES && slots.len() < 2, "two downloads under way at most, each within a slot");
        let slot = slots.keys().last().map_or(0, |last| last + 1);
        slots.insert(slot, self.memory(from, bytes).to_vec());
        self.alive()?;
        Ok(Ticket { slot, bytes })
    }

    fn finish_download(&self, ticket: Ticket, to: &mut [u8]) -> Result<(), DriverError> {
        let mut slots = self.slots.lock().unwrap();
        assert_eq!(slots.keys().next(), Some(&ticket.slot), "downloads end in order");
        to.copy_from_slice(&slots.remove(&ticket.slot).unwrap());
        self.alive()
    }

    fn fill(&self, at: Address, bytes: u64, byte: u8) -> Result<(), DriverError> {
        self.memory(at, bytes as usize).fill(byte);
        self.alive()
    }

    fn copy(&self, to: Address, from: Address, bytes: u64) -> Result<(), DriverError> {
        let copied = self.memory(from, bytes as usize).to_vec();
        self.memory(to, bytes as usize).copy_from_slice(&copied);
        self.alive()
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<(), DriverError> {
        self.alive()?;
        let mut values: Vec<u64> = launch
            .args
            .iter()
            .map(|arg| match *arg {
                Arg::Address(at) => at,
                Arg::U32(number) => u64::from(number),
                Arg::U64(number) => number,
            })
            .collect();
        // A little-endian u64 begins with its u32.
        let mut pointers: Vec<*mut c_void> = values.iter_mut().map(|value| std::ptr::from_mut(value).cast()).collect();
        let entry = CString::new(launch.entry).unwrap();
        let mut message = [0 as c_char; 512];
        let mut launches = self.launches.lock().unwrap();
        *launches += 1;
        // Queued, as on a device, where the next call tells.
        if *launches == *self.lost_at.lock().unwrap() {
            return Ok(());
        }
        // SAFETY: the signatures are those of kernels/host/shim.h; arguments are in the contract's order and outlive the call; the message
        // buffer is as long as said. Lanes run in an order of their own in every launch.
        let code = unsafe {
            let seed: Symbol<'_, SeedFn> = self.library.get(b"roxanne_host_seed").map_err(|e| DriverError::Refused(e.to_string()))?;
            let run: Symbol<'_, LaunchFn> = self.library.get(b"roxanne_host_launch").map_err(|e| DriverError::Refused(e.to_string()))?;
            seed(*launches);
            let (text, room) = (message.as_mut_ptr(), message.len() as u64);
            run(entry.as_ptr(), u64::from(launch.grid), launch.block, launch.shared_bytes, pointers.as_mut_ptr(), text, room)
        };
        for (&base, &layout) in self.taken.lock().unwrap().iter() {
            assert!(self.guards_are_whole(base, layout), "{} wrote outside of device memory", launch.entry);
        }
        if code == 0 {
            return Ok(());
        }
        // SAFETY: the library ends its message with a zero within the buffer.
        let text = unsafe { CStr::from_ptr(message.as_ptr()) }.to_string_lossy().into_owned();
        Err(DriverError::Refused(format!("{}: {text}", launch.entry)))
    }

    fn synchronize(&self) -> Result<(), DriverError> {
        self.alive()
    }
}
