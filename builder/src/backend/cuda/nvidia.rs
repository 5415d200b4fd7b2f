//! NVIDIA devices, through the driver's own library, which is looked for when a device is first asked for: nothing links to it.
//!
//! Three streams: launches run on one, copies in and out on one each, so that both directions of the bus and the multiprocessors work at
//! a time. Events keep what [`Driver`] promises: a copy in waits for all launches before it, and later launches wait for it; a copy out
//! waits for all launches before it. All copies go through rings of pinned slots, so that callers may pass any memory.
//!
//! An error after which the driver serves this process no more is remembered, and every later call answers with it.
#![allow(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::ffi::c_int;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use cudarc::driver::sys;
use sys::CUevent_flags as EventFlag;

use super::driver::{Address, Driver, DriverError, Facts, Launch, Ticket};
use super::images;

mod calls;
mod found;
mod handles;
mod said;

pub use found::check_capability;

use found::{device_count, facts_of, load_driver, unavailable};
use handles::{Context, Event, Function, Module, SLOT_BYTES, Slot, Stream, synchronize};
use said::check;

const UPLOAD_SLOTS: usize = 4;
/// For `download`: one is emptied while the other is filled.
const DOWNLOAD_SLOTS: usize = 2;
/// For `start_download`.
const TICKET_SLOTS: usize = 2;

/// One open device. Closing it (drop) frees all that it gave.
pub struct Nvidia {
    facts: Facts,
    state: Mutex<State>,
}

impl fmt::Debug for Nvidia {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nvidia").field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl Nvidia {
    /// Opens device `index` of those that [`Nvidia::probe`] lists.
    ///
    /// # Errors
    /// `Unavailable`: no driver, one that is too old, no such device, one that is too old or taken by another process.
    pub fn open(index: usize) -> Result<Self, DriverError> {
        let version = load_driver()?;
        let count = device_count()?;
        let Some(ordinal) = c_int::try_from(index).ok().filter(|&ordinal| ordinal < count) else {
            let named = |ordinal| facts_of(ordinal, version).map(|facts| format!("cuda:{ordinal} ({})", facts.name));
            let there = (0..count).map(named).collect::<Result<Vec<_>, _>>()?;
            return Err(DriverError::Unavailable(format!("no device cuda:{index}; there is {}", there.join(", "))));
        };
        let facts = facts_of(ordinal, version)?;
        check_capability(&facts)?;
        let context = Context::retain(ordinal).map_err(unavailable)?;
        let (free_bytes, memory_bytes) = context.memory().map_err(unavailable)?;
        let state = State::new(context).map_err(unavailable)?;
        Ok(Self { facts: Facts { free_bytes, memory_bytes, ..facts }, state: Mutex::new(state) })
    }

    /// What devices there are, by index, also such as are too old to be opened. `free_bytes` is 0 for one that cannot be.
    ///
    /// # Errors
    /// `Unavailable`: no driver, one that is too old, no device.
    pub fn probe() -> Result<Vec<Facts>, DriverError> {
        let version = load_driver()?;
        (0..device_count()?)
            .map(|ordinal| {
                let facts = facts_of(ordinal, version)?;
                let free_bytes = Context::retain(ordinal).and_then(|context| context.memory()).map_or(0, |(free, _)| free);
                Ok(Facts { free_bytes, ..facts })
            })
            .collect()
    }

    /// Seconds between two events around what `launches` queues; the device waiting for the host counts, so let it queue much.
    ///
    /// # Errors
    /// Those of `launches`, and what the driver says.
    pub fn time(&self, launches: &mut dyn FnMut() -> Result<(), DriverError>) -> Result<f64, DriverError> {
        let event = |state: &mut State| {
            let event = Event::new(EventFlag::CU_EVENT_DEFAULT as u32)?;
            event.record(&state.compute)?;
            Ok(event)
        };
        let begun = self.with(event)?;
        launches()?;
        let ended = self.with(event)?;
        self.with(|_| {
            ended.wait()?;
            let mut milliseconds = 0.0;
            // SAFETY: both events live, were recorded with timing on one stream, and the later one is reached.
            let said = unsafe { calls::cuEventElapsedTime(&mut milliseconds, begun.0, ended.0) };
            check(said, 0, format_args!("reading a timer"))?;
            Ok(f64::from(milliseconds) / 1e3)
        })
    }

    /// Runs `work` alone and with the device's context on this thread, unless the device is lost; remembers when it gets lost.
    fn with<T>(&self, work: impl FnOnce(&mut State) -> Result<T, DriverError>) -> Result<T, DriverError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = &state.lost {
            return Err(DriverError::Lost(why.clone()));
        }
        let done = state.context.enter().and_then(|()| work(&mut state));
        if let Err(DriverError::Lost(why)) = &done {
            state.lost = Some(why.clone());
        }
        done
    }
}

impl Driver for Nvidia {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn take(&self, bytes: u64) -> Result<Address, DriverError> {
        self.with(|state| state.take(bytes))
    }

    fn give(&self, at: Address) {
        // What fails here fails again, and is told, at the next call.
        let _ = self.with(|state| state.give(at));
    }

    fn upload(&self, to: Address, from: &[u8]) -> Result<(), DriverError> {
        self.with(|state| state.upload(to, from))
    }

    fn download(&self, from: Address, to: &mut [u8]) -> Result<(), DriverError> {
        self.with(|state| state.download(from, to))
    }

    fn slot_bytes(&self) -> usize {
        SLOT_BYTES
    }

    fn start_download(&self, from: Address, bytes: usize) -> Result<Ticket, DriverError> {
        self.with(|state| state.start_download(from, bytes))
    }

    fn finish_download(&self, ticket: Ticket, to: &mut [u8]) -> Result<(), DriverError> {
        self.with(|state| state.finish_download(&ticket, to))
    }

    fn fill(&self, at: Address, bytes: u64, byte: u8) -> Result<(), DriverError> {
        self.with(|state| {
            let length = host_size(bytes)?;
            if length == 0 {
                return Ok(());
            }
            // SAFETY: touches device memory alone; the stream lives as long as the state.
            let said = unsafe { calls::cuMemsetD8Async(at, byte, length, state.compute.0) };
            check(said, 0, format_args!("filling {bytes} bytes"))
        })
    }

    fn copy(&self, to: Address, from: Address, bytes: u64) -> Result<(), DriverError> {
        self.with(|state| {
            let length = host_size(bytes)?;
            if length == 0 {
                return Ok(());
            }
            // SAFETY: touches device memory alone; the stream lives as long as the state.
            let said = unsafe { calls::cuMemcpyDtoDAsync_v2(to, from, length, state.compute.0) };
            check(said, 0, format_args!("copying {bytes} bytes on the device"))
        })
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<(), DriverError> {
        images::check_args(launch.stem, launch.entry, launch.args)?;
        let capability = self.facts.capability;
        self.with(|state| state.launch(launch, capability))
    }

    fn synchronize(&self) -> Result<(), DriverError> {
        self.with(|_| synchronize())
    }
}

/// What an open device holds. Fields are dropped in this order: the context goes last.
struct State {
    /// Why the device is lost.
    lost: Option<String>,
    compute: Stream,
    up: Stream,
    down: Stream,
    /// By which one stream follows another.
    joint: Event,
    upload_slots: Vec<Slot>,
    /// How many uploads ran through the slots, in turn.
    uploads: usize,
    download_slots: Vec<Slot>,
    ticket_slots: Vec<Slot>,
    /// How many downloads were started; the next one's number.
    started: usize,
    /// What `take` gave and `give` did not get back.
    taken: HashSet<Address>,
    functions: HashMap<String, Function>,
    modules: HashMap<&'static str, Module>,
    context: Context,
}

// SAFETY: what keeps it from being Send are handles of the driver and pointers to pinned memory. Both belong to the process, not to a
// thread; the driver asks only that the context is current on the calling thread, which `Nvidia::with` and `drop` see to.
unsafe impl Send for State {}

impl State {
    fn new(context: Context) -> Result<Self, DriverError> {
        let slots = |count: usize, flags: u32| (0..count).map(|_| Slot::new(flags)).collect::<Result<Vec<_>, _>>();
        Ok(Self {
            lost: None,
            compute: Stream::new()?,
            up: Stream::new()?,
            down: Stream::new()?,
            joint: Event::untimed()?,
            // Write-combined memory crosses the bus faster, but the host reads it at a crawl: for the way up alone.
            upload_slots: slots(UPLOAD_SLOTS, sys::CU_MEMHOSTALLOC_WRITECOMBINED)?,
            uploads: 0,
            download_slots: slots(DOWNLOAD_SLOTS, 0)?,
            ticket_slots: slots(TICKET_SLOTS, 0)?,
            started: 0,
            taken: HashSet::new(),
            functions: HashMap::new(),
            modules: HashMap::new(),
            context,
        })
    }

    fn take(&mut self, bytes: u64) -> Result<Address, DriverError> {
        let length = usize::try_from(bytes).map_err(|_| DriverError::OutOfMemory { asked: bytes })?;
        let mut at: Address = 0;
        // SAFETY: `at` is a place for the answer. The driver refuses to give 0 bytes, so 1 is asked for instead.
        let said = unsafe { calls::cuMemAlloc_v2(&mut at, length.max(1)) };
        check(said, bytes, format_args!("taking {bytes} bytes"))?;
        self.taken.insert(at);
        Ok(at)
    }

    fn give(&mut self, at: Address) -> Result<(), DriverError> {
        if !self.taken.contains(&at) {
            return Ok(());
        }
        // Freeing is not ordered with streams that, like ours, do not wait for the default stream.
        synchronize()?;
        self.taken.remove(&at);
        // SAFETY: `at` came from `take`, is given back once, and nothing queued uses it.
        check(unsafe { calls::cuMemFree_v2(at) }, 0, format_args!("giving memory back"))
    }

    fn upload(&mut self, to: Address, from: &[u8]) -> Result<(), DriverError> {
        if from.is_empty() {
            return Ok(());
        }
        // What was launched before may still read or write there.
        self.up.follow(&self.compute, &self.joint)?;
        let mut at = to;
        for chunk in from.chunks(SLOT_BYTES) {
            self.upload_slots[self.uploads % UPLOAD_SLOTS].send(&self.up, at, chunk)?;
            self.uploads = self.uploads.wrapping_add(1);
            at += chunk.len() as u64;
        }
        self.compute.follow(&self.up, &self.joint)
    }

    fn download(&mut self, from: Address, to: &mut [u8]) -> Result<(), DriverError> {
        if to.is_empty() {
            return Ok(());
        }
        self.down.follow(&self.compute, &self.joint)?;
        let bytes = to.len();
        fill_one_empty_other(bytes, |step| match step {
            Step::Fill { slot, start, length } => self.download_slots[slot].fetch(&self.down, from + start as u64, length),
            Step::Empty { slot, start, length } => self.download_slots[slot].empty(&mut to[start..start + length]),
        })
    }

    fn start_download(&mut self, from: Address, bytes: usize) -> Result<Ticket, DriverError> {
        if bytes > SLOT_BYTES {
            return Err(DriverError::Refused(format!("a download of {bytes} bytes was started; a slot has {SLOT_BYTES}")));
        }
        self.down.follow(&self.compute, &self.joint)?;
        self.ticket_slots[self.started % TICKET_SLOTS].fetch(&self.down, from, bytes)?;
        // Tickets are numbered on and on: one whose slot was filled again is then known.
        let ticket = Ticket { slot: self.started, bytes };
        self.started += 1;
        Ok(ticket)
    }

    fn finish_download(&mut self, ticket: &Ticket, to: &mut [u8]) -> Result<(), DriverError> {
        let filled_again = ticket.slot + TICKET_SLOTS < self.started;
        if filled_again || ticket.slot >= self.started || ticket.bytes != to.len() {
            return Err(DriverError::Refused(format!(
                "download {} of {} bytes cannot be finished into {} bytes: {} were started since, its slot is kept for {}",
                ticket.slot,
                ticket.bytes,
                to.len(),
                self.started.saturating_sub(ticket.slot + 1),
                TICKET_SLOTS - 1
            )));
        }
        self.ticket_slots[ticket.slot % TICKET_SLOTS].empty(to)
    }

    fn launch(&mut self, launch: &Launch<'_>, capability: (u32, u32)) -> Result<(), DriverError> {
        self.load(launch.stem, launch.entry, capability)?;
        let Some(function) = self.functions.get_mut(launch.entry) else {
            return Err(DriverError::Refused(format!("{} was not loaded", launch.entry)));
        };
        function.launch(launch, &self.compute)
    }

    /// Loads an entry, and its stem before it, unless they are.
    fn load(&mut self, stem: &'static str, entry: &str, capability: (u32, u32)) -> Result<(), DriverError> {
        if self.functions.contains_key(entry) {
            return Ok(());
        }
        if !self.modules.contains_key(stem) {
            self.modules.insert(stem, Module::load(&images::image(stem, capability)?)?);
        }
        if let Some(module) = self.modules.get(stem) {
            self.functions.insert(entry.to_owned(), module.function(entry)?);
        }
        Ok(())
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // Errors are swallowed: a lost device frees nothing, and all of it goes with the process.
        let _ = self.context.enter().and_then(|()| synchronize());
        for &at in &self.taken {
            // SAFETY: `at` came from `take` and was not given back; nothing queued uses it after the wait above.
            let _ = unsafe { calls::cuMemFree_v2(at) };
        }
    }
}

/// One step of a long download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Fill { slot: usize, start: usize, length: usize },
    Empty { slot: usize, start: usize, length: usize },
}

/// The steps of a download of `bytes`: a slot is filled while the one before it is emptied.
fn fill_one_empty_other(bytes: usize, mut act: impl FnMut(Step) -> Result<(), DriverError>) -> Result<(), DriverError> {
    let count = bytes.div_ceil(SLOT_BYTES);
    let chunk = |index: usize| (index % DOWNLOAD_SLOTS, index * SLOT_BYTES, SLOT_BYTES.min(bytes - index * SLOT_BYTES));
    for index in 0..=count {
        if index < count {
            let (slot, start, length) = chunk(index);
            act(Step::Fill { slot, start, length })?;
        }
        if index > 0 {
            let (slot, start, length) = chunk(index - 1);
            act(Step::Empty { slot, start, length })?;
        }
    }
    Ok(())
}

fn host_size(bytes: u64) -> Result<usize, DriverError> {
    usize::try_from(bytes).map_err(|_| DriverError::Refused(format!("{bytes} bytes are more than this machine can address")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_driver_the_reason_and_the_way_out_are_told() {
        // SAFETY: opens a library of the system, as `load_driver` does.
        if unsafe { sys::is_culib_present() } {
            return;
        }
        for told in [Nvidia::probe().unwrap_err(), Nvidia::open(0).unwrap_err()] {
            let DriverError::Unavailable(text) = told else { panic!("{told:?}") };
            assert!(text.contains("libcuda.so") && text.contains("525") && text.contains("--device cpu"), "{text}");
        }
    }

    #[test]
    fn a_long_download_fills_one_slot_while_it_empties_the_other() {
        let steps = |bytes: usize| {
            let mut steps = Vec::new();
            fill_one_empty_other(bytes, |step| {
                steps.push(step);
                Ok(())
            })
            .unwrap();
            steps
        };
        assert_eq!(steps(0), []);
        assert_eq!(steps(3), [Step::Fill { slot: 0, start: 0, length: 3 }, Step::Empty { slot: 0, start: 0, length: 3 }]);
        assert_eq!(
            steps(2 * SLOT_BYTES + 1),
            [
                Step::Fill { slot: 0, start: 0, length: SLOT_BYTES },
                Step::Fill { slot: 1, start: SLOT_BYTES, length: SLOT_BYTES },
                Step::Empty { slot: 0, start: 0, length: SLOT_BYTES },
                Step::Fill { slot: 0, start: 2 * SLOT_BYTES, length: 1 },
                Step::Empty { slot: 1, start: SLOT_BYTES, length: SLOT_BYTES },
                Step::Empty { slot: 0, start: 2 * SLOT_BYTES, length: 1 },
            ]
        );
        assert_eq!(steps(SLOT_BYTES).len(), 2);
    }
}
