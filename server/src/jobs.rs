//! What takes longer than a request: it is begun, looked at, and ended by requests.
//!
//! Every job is a file of `DATA/jobs`, written when it begins, when it is told to stop, and when it ends. One that the end of the server cut off is begun
//! again at the next start: it either happens at once, or goes on, or makes something of its own once more, such as a snapshot. An import is not:
//! what was written after its first rows must not be undone.

mod child;
mod measure;
mod plan;
mod work;

use crate::{ServeError, Server, access::Caller, files, reply::Refusal};
use hyper::StatusCode;
pub(crate) use measure::{Measure, distances, recall};
pub(crate) use plan::plan;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};
use tokio::sync::watch;
pub(crate) use work::{Work, incoming_list};

/// Jobs that are remembered when they have ended.
const REMEMBERED: usize = 100;
/// Times that one is begun.
const MOST_ATTEMPTS: u32 = 3;

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    Running,
    Done,
    Failed,
    Cancelled,
}

impl State {
    pub(crate) const ALL: [State; 4] = [State::Running, State::Done, State::Failed, State::Cancelled];

    pub(crate) fn name(self) -> &'static str {
        ["running", "done", "failed", "cancelled"][self as usize]
    }
}

/// How far a job is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Progress {
    /// What it is at.
    pub(crate) phase: String,
    pub(crate) done: u64,
    pub(crate) total: u64,
    /// Of what.
    pub(crate) unit: String,
    /// Until the end of the phase, as far as can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) eta_seconds: Option<f64>,
}

/// A job as it is shown, and as its file holds it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Job {
    pub(crate) id: u64,
    #[serde(flatten)]
    pub(crate) work: Work,
    pub(crate) state: State,
    /// Why it failed.
    error: Option<String>,
    /// When, in UTC.
    begun: String,
    /// That it took, or has taken.
    seconds: f64,
    #[serde(default)]
    pub(crate) progress: Option<Progress>,
    /// What it found, where it looked for something.
    #[serde(default)]
    result: Option<Value>,
    /// Times that it was begun: more than one where the server ended meanwhile.
    attempts: u32,
    /// Whether it was told to stop.
    #[serde(default)]
    is_cancelled: bool,
}

/// All jobs.
#[derive(Serialize, JsonSchema)]
pub(crate) struct JobList {
    jobs: Vec<Job>,
}

struct Entry {
    job: Job,
    start: Instant,
    control: Arc<Control>,
}

impl Entry {
    fn is_running(&self) -> bool {
        self.job.state == State::Running
    }

    fn shown(&self) -> Job {
        let mut job = self.job.clone();
        if self.is_running() {
            job.seconds = self.start.elapsed().as_secs_f64();
        }
        job
    }
}

/// What a job at work hears and says.
pub(crate) struct Control {
    /// Set to end it.
    pub(crate) stop: Arc<AtomicBool>,
    progress: Mutex<Option<Progress>>,
    changed: watch::Sender<u64>,
}

impl Control {
    fn new(changed: &watch::Sender<u64>) -> Control {
        Control { stop: Arc::default(), progress: Mutex::default(), changed: changed.clone() }
    }

    /// Of what is no job.
    fn alone() -> Control {
        Control::new(&watch::Sender::new(0))
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    pub(crate) fn say(&self, progress: Progress) {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress);
        self.changed.send_modify(|changes| *changes += 1);
    }
}

#[derive(Default)]
struct All {
    entries: BTreeMap<u64, Entry>,
    last: u64,
}

impl All {
    /// The job of this collection that is at work.
    fn running_of(&self, collection: &str) -> Result<(), Refusal> {
        match self.entries.values().find(|entry| entry.is_running() && entry.job.work.collection() == Some(collection)) {
            Some(Entry { job, .. }) => {
                let detail = format!("job {} ({}) of this collection is at work", job.id, job.work.kind());
                Err(Refusal::conflict("job_at_work", detail))
            }
            None => Ok(()),
        }
    }
}

pub(crate) struct Jobs {
    /// The data directory, which is nobody's business.
    data: String,
    directory: PathBuf,
    all: Mutex<All>,
    changed: watch::Sender<u64>,
    /// Whether the server ends, and what is cut off shall go on at the next start.
    ending: AtomicBool,
}

impl Jobs {
    /// Those of the data directory, none of them at work yet.
    pub(crate) fn open(data: &Path) -> Result<Jobs, ServeError> {
        let directory = data.join("jobs");
        let failed = |error| ServeError::Data { path: directory.clone(), error };
        fs::create_dir_all(&directory).map_err(failed)?;
        let (mut all, changed) = (All::default(), watch::Sender::new(0));
        for entry in fs::read_dir(&directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            // Its number is taken, whatever is in it.
            let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
            all.last = all.last.max(number.unwrap_or(0));
            // One that is none of ours, or of another version, keeps no server from starting.
            match serde_json::from_slice::<Job>(&fs::read(&path).map_err(failed)?) {
                Ok(job) => {
                    all.last = all.last.max(job.id);
                    all.entries.insert(job.id, Entry { job, start: Instant::now(), control: Arc::new(Control::new(&changed)) });
                }
                Err(error) => tracing::error!(path = %path.display(), %error, "a job that cannot be read is left alone"),
            }
        }
        let (all, ending) = (Mutex::new(all), AtomicBool::new(false));
        Ok(Jobs { data: data.display().to_string(), directory, all, changed, ending })
    }

    fn locked(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on with what the end of a server has cut off.
    pub(crate) fn resume(&self, server: &Arc<Server>) {
        let cut_off: Vec<u64> = self.locked().entries.values().filter(|entry| entry.is_running()).map(|entry| entry.job.id).collect();
        for id in cut_off {
            let mut all = self.locked();
            let Some(entry) = all.entries.get_mut(&id) else { continue };
            entry.job.attempts += 1;
            tracing::info!(job = id, kind = entry.job.work.kind(), attempt = entry.job.attempts, "a job goes on");
            let outcome = if entry.job.is_cancelled {
                Err("it was stopped".to_string())
            } else if let Work::Import { .. } = entry.job.work {
                Err("the end of the server cut it off; rows that were put are kept".to_string())
            } else if entry.job.attempts > MOST_ATTEMPTS {
                Err(format!("it was cut off {MOST_ATTEMPTS} times"))
            } else {
                self.keep(&entry.job).and_then(|()| start(server, entry)).map_err(|refusal| refusal.detail)
            };
            drop(all);
            if let Err(error) = outcome {
                self.end(id, Err(error));
            }
        }
    }

    /// Refuses where a job of this collection is at work.
    pub(crate) fn none_of(&self, collection: &str) -> Result<(), Refusal> {
        self.locked().running_of(collection)
    }

    /// Begins a job, one at a time for a collection.
    pub(crate) fn begin(&self, server: &Arc<Server>, work: Work) -> Result<Job, Refusal> {
        let mut all = self.locked();
        work.collection().map_or(Ok(()), |collection| all.running_of(collection))?;
        // Builds and checks of indexes share the machine with all that is served: one at a time.
        let is_apart = |entry: &&Entry| entry.is_running() && entry.job.work.collection().is_none();
        if let Some(Entry { job, .. }) = all.entries.values().find(is_apart).filter(|_| work.collection().is_none()) {
            return Err(Refusal::conflict("job_at_work", format!("job {} ({}) is at work", job.id, job.work.kind())));
        }
        while all.entries.len() >= REMEMBERED {
            let Some(old) = all.entries.values().find(|entry| !entry.is_running()).map(|entry| entry.job.id) else { break };
            all.entries.remove(&old);
            let _ = fs::remove_file(self.file_of(old));
        }
        all.last += 1;
        let (id, begun) = (all.last, files::now());
        let job = Job {
            id,
            work,
            state: State::Running,
            error: None,
            begun,
            seconds: 0.0,
            progress: None,
            result: None,
            attempts: 1,
            is_cancelled: false,
        };
        self.keep(&job)?;
        tracing::info!(job = id, kind = job.work.kind(), collection = job.work.collection(), "a job begins");
        let entry = Entry { job, start: Instant::now(), control: Arc::new(Control::new(&self.changed)) };
        if let Err(refusal) = start(server, &entry) {
            let _ = fs::remove_file(self.file_of(id));
            return Err(refusal);
        }
        let shown = entry.shown();
        all.entries.insert(id, entry);
        Ok(shown)
    }

    fn file_of(&self, id: u64) -> PathBuf {
        self.directory.join(format!("{id:08}.json"))
    }

    fn keep(&self, job: &Job) -> Result<(), Refusal> {
        let path = self.file_of(job.id);
        let text = serde_json::to_vec_pretty(job).map_err(std::io::Error::from);
        text.and_then(|text| files::replace(&path, &text)).map_err(|error| files::failed(&path, error))
    }

    fn end(&self, id: u64, outcome: Result<Option<Value>, String>) {
        let mut all = self.locked();
        if let Some(Entry { job, start, control }) = all.entries.get_mut(&id) {
            job.seconds = start.elapsed().as_secs_f64();
            job.progress = control.progress.lock().unwrap_or_else(PoisonError::into_inner).clone();
            match outcome {
                // It goes on at the next start, as its file says.
                Err(_) if self.ending.load(Relaxed) && !job.is_cancelled => return,
                Ok(result) => (job.state, job.result) = (State::Done, result),
                Err(error) => {
                    job.state = if job.is_cancelled { State::Cancelled } else { State::Failed };
                    job.error = Some(files::without(&error, &self.data));
                }
            }
            tracing::info!(
                job = id,
                kind = job.work.kind(),
                state = job.state.name(),
                error = job.error,
                seconds = job.seconds,
                "a job has ended"
            );
            if let Err(refusal) = self.keep(job) {
                tracing::error!(
                    job = id,
                    error = refusal.detail,
                    "the end of a job is not on the disk: it is done again at the next start"
                );
            }
        }
        drop(all);
        self.changed.send_modify(|changes| *changes += 1);
    }

    /// `GET jobs`: those that `caller` may see.
    pub(crate) fn list(&self, server: &Server, caller: &Caller) -> JobList {
        let all = self.locked();
        let seen = all.entries.values().map(Entry::shown).filter(|job| may_see(server, caller, job).is_ok());
        JobList { jobs: seen.map(|job| self.with_progress(&all, job)).collect() }
    }

    fn with_progress(&self, all: &All, job: Job) -> Job {
        let said = all.entries.get(&job.id).and_then(|entry| entry.control.progress.lock().unwrap_or_else(PoisonError::into_inner).clone());
        Job { progress: said.or(job.progress), ..job }
    }

    /// Those at work, and how many there are of every state; for the metrics.
    pub(crate) fn counts(&self) -> (Vec<Job>, [u64; 4]) {
        let (all, mut counts) = (self.locked(), [0; 4]);
        all.entries.values().for_each(|entry| counts[entry.job.state as usize] += 1);
        let running = all.entries.values().filter(|entry| entry.is_running()).map(|entry| self.with_progress(&all, entry.shown()));
        (running.collect(), counts)
    }

    pub(crate) fn get(&self, server: &Server, id: &str, caller: &Caller) -> Result<Job, Refusal> {
        let number = id.parse().map_err(|_| Refusal::bad("bad_input", "the number of a job is expected").field("id"))?;
        let all = self.locked();
        let job = all.entries.get(&number).map(Entry::shown).ok_or_else(|| Refusal::not_found(format!("job {number}")))?;
        may_see(server, caller, &job)?;
        Ok(self.with_progress(&all, job))
    }

    /// `GET jobs/ID`, when it has ended or `wait` is over.
    pub(crate) async fn wait(&self, server: &Server, id: &str, caller: &Caller, wait: Duration) -> Result<Job, Refusal> {
        let (mut changes, until) = (self.changed.subscribe(), tokio::time::Instant::now() + wait);
        loop {
            let job = self.get(server, id, caller)?;
            let is_over =
                job.state != State::Running || self.is_ending() || tokio::time::timeout_at(until, changes.changed()).await.is_err();
            if is_over {
                return Ok(job);
            }
        }
    }

    /// Hears of every change of any job.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// `DELETE jobs/ID`: asks it to stop; what a promotion or a rollback has begun goes to its end.
    pub(crate) fn cancel(&self, server: &Server, id: &str, caller: &Caller) -> Result<Job, Refusal> {
        let job = self.get(server, id, caller)?;
        if let Some(entry) = self.locked().entries.get_mut(&job.id).filter(|entry| entry.is_running()) {
            entry.job.is_cancelled = true;
            self.keep(&entry.job)?;
            entry.control.stop.store(true, Relaxed);
        }
        self.get(server, id, caller)
    }

    /// Asks all to stop; they go on at the next start.
    pub(crate) fn stop(&self) {
        self.ending.store(true, Relaxed);
        self.locked().entries.values().for_each(|entry| entry.control.stop.store(true, Relaxed));
        self.changed.send_modify(|changes| *changes += 1);
    }

    /// Whether the server ends.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Relaxed)
    }

    /// Whether none is at work.
    pub(crate) fn are_idle(&self) -> bool {
        self.locked().entries.values().all(|entry| Arc::strong_count(&entry.control) == 1)
    }
}

fn may_see(server: &Server, caller: &Caller, job: &Job) -> Result<(), Refusal> {
    match job.work.collection() {
        Some(collection) if server.collections.may_see(caller, collection) => Ok(()),
        Some(_) => Err(caller.hidden()),
        None => caller.sees_all(),
    }
}

/// Begins the work of a job on a thread of its own.
fn start(server: &Arc<Server>, entry: &Entry) -> Result<(), Refusal> {
    let (server, control) = (Arc::clone(server), Arc::clone(&entry.control));
    let (id, work, attempts) = (entry.job.id, entry.job.work.clone(), entry.job.attempts);
    let run = move || {
        // However it ends, it has ended.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work.run(&server, &control, attempts)));
        server.jobs.end(id, outcome.unwrap_or_else(|_| Err("it failed; the server's log says how".to_string())));
        // Its end is on the disk: the process may end.
        drop(control);
    };
    let no_thread = |error| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "busy", format!("no thread for it: {error}"));
    thread::Builder::new().name(format!("roxanne-job-{id}")).spawn(run).map(drop).map_err(no_thread)
}
