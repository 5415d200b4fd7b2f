//! What takes longer than a request: it is begun, looked at, and ended by requests. Jobs live as long as the server; what one was cut off in has either
//! happened or not.

use crate::{collections::Served, files, reply::Refusal};
use hyper::StatusCode;
use roxanne_engine::collection::{CollectionError, Previous};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

/// Where indexes lie that shall become the base of a collection, within the data directory.
const INCOMING: &str = "incoming";
/// Jobs that are remembered when they have ended.
const REMEMBERED: usize = 100;
/// How long a request waits for a job to end.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// What a job does.
enum Work {
    /// Makes an index that lies in `incoming` the base.
    Promote { index: PathBuf, sequence: u64, previous: Previous },
    /// Goes back to the base before.
    Rollback,
    /// Builds a base of all points.
    Rebuild,
}

#[derive(Clone)]
enum State {
    Running,
    Done,
    Failed(String),
}

struct Job {
    kind: &'static str,
    collection: String,
    begun: String,
    start: Instant,
    ended: Option<Duration>,
    state: State,
    stop: Arc<AtomicBool>,
}

#[derive(Default)]
struct All {
    jobs: BTreeMap<u64, Job>,
    last: u64,
}

impl All {
    fn none_of(&self, name: &str) -> Result<(), Refusal> {
        match self.jobs.iter().find(|(_, job)| job.collection == name && job.ended.is_none()) {
            Some((id, job)) => Err(Refusal::new(StatusCode::CONFLICT, format!("job {id} ({}) of this collection is at work", job.kind))),
            None => Ok(()),
        }
    }
}

pub(crate) struct Jobs {
    data: String,
    incoming: PathBuf,
    all: Mutex<All>,
    ended: Condvar,
}

impl Jobs {
    pub(crate) fn new(data: &Path) -> Jobs {
        Jobs { data: data.display().to_string(), incoming: data.join(INCOMING), all: Mutex::default(), ended: Condvar::new() }
    }

    fn locked(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `POST promote`.
    pub(crate) fn promote(self: &Arc<Self>, name: &str, served: Arc<Served>, body: &Value) -> Result<Value, Refusal> {
        let index = body.get("index").and_then(Value::as_str).filter(|name| files::is_name(name));
        let index = index.ok_or_else(|| Refusal::bad("index: the name of a directory in DATA/incoming is expected"))?;
        let sequence = body.get("sequence").and_then(Value::as_u64);
        let sequence = sequence.ok_or_else(|| Refusal::bad("sequence: the batch that the index was built after is expected"))?;
        let previous = match body.get("keep_previous") {
            None | Some(Value::Bool(true)) => Previous::Keep,
            Some(Value::Bool(false)) => Previous::Remove,
            Some(_) => return Err(Refusal::bad("keep_previous: true or false is expected")),
        };
        let index = self.incoming.join(index);
        if !index.is_dir() {
            return Err(Refusal::not_found(format!("index {} in DATA/incoming", body["index"])));
        }
        self.begin("promote", name, served, Work::Promote { index, sequence, previous })
    }

    /// `POST rollback`.
    pub(crate) fn rollback(self: &Arc<Self>, name: &str, served: Arc<Served>) -> Result<Value, Refusal> {
        if served.collection.previous()?.is_none() {
            return Err(CollectionError::NoPrevious { path: served.collection.path().to_path_buf() }.into());
        }
        self.begin("rollback", name, served, Work::Rollback)
    }

    /// `POST rebuild`.
    pub(crate) fn rebuild(self: &Arc<Self>, name: &str, served: Arc<Served>) -> Result<Value, Refusal> {
        if served.rebuild.is_none() {
            return Err(Refusal::not_there("building within this server"));
        }
        if served.collection.count() == 0 {
            return Err(Refusal::new(StatusCode::CONFLICT, "there are no points to build a base of"));
        }
        self.begin("rebuild", name, served, Work::Rebuild)
    }

    /// Refuses where a job of this collection is at work.
    pub(crate) fn none_of(&self, name: &str) -> Result<(), Refusal> {
        self.locked().none_of(name)
    }

    fn begin(self: &Arc<Self>, kind: &'static str, name: &str, served: Arc<Served>, work: Work) -> Result<Value, Refusal> {
        let mut all = self.locked();
        all.none_of(name)?;
        while all.jobs.len() >= REMEMBERED {
            let Some(old) = all.jobs.iter().find(|(_, job)| job.ended.is_some()).map(|(id, _)| *id) else { break };
            all.jobs.remove(&old);
        }
        all.last += 1;
        let (id, stop) = (all.last, Arc::new(AtomicBool::new(false)));
        let (collection, begun, start) = (name.to_string(), files::now(), Instant::now());
        let job = Job { kind, collection, begun, start, ended: None, state: State::Running, stop: Arc::clone(&stop) };
        all.jobs.insert(id, job);
        let jobs = Arc::clone(self);
        let started = thread::Builder::new().name(format!("roxanne-job-{id}")).spawn(move || {
            // However it ends, it has ended.
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&served, &work, &stop)));
            drop(served);
            jobs.end(id, outcome.unwrap_or_else(|_| Err("it failed; the server's log says how".to_string())));
        });
        if let Err(error) = started {
            all.jobs.remove(&id);
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, format!("no thread for it: {error}")));
        }
        Ok(all.jobs.get(&id).map_or(Value::Null, |job| job.shown(id)))
    }

    fn end(&self, id: u64, outcome: Result<(), String>) {
        let mut all = self.locked();
        if let Some(job) = all.jobs.get_mut(&id) {
            job.ended = Some(job.start.elapsed());
            job.state = outcome.map_or_else(|error| State::Failed(files::without(&error, &self.data)), |()| State::Done);
        }
        self.ended.notify_all();
    }

    /// `GET jobs`.
    pub(crate) fn shown(&self) -> Value {
        json!({"jobs": self.locked().jobs.iter().map(|(id, job)| job.shown(*id)).collect::<Vec<_>>()})
    }

    /// `GET jobs/ID`, when it has ended or `wait` is over.
    pub(crate) fn get(&self, id: &str, wait: Duration) -> Result<Value, Refusal> {
        let (number, begin, mut all) = (id_of(id)?, Instant::now(), self.locked());
        loop {
            let job = all.jobs.get(&number).ok_or_else(|| Refusal::not_found(format!("job {number}")))?;
            let left = wait.min(LONGEST_WAIT).saturating_sub(begin.elapsed());
            if job.ended.is_some() || left.is_zero() {
                return Ok(job.shown(number));
            }
            all = self.ended.wait_timeout(all, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// `DELETE jobs/ID`: asks it to stop; what a promotion or a rollback has begun goes to its end.
    pub(crate) fn cancel(&self, id: &str) -> Result<Value, Refusal> {
        let (number, all) = (id_of(id)?, self.locked());
        let job = all.jobs.get(&number).ok_or_else(|| Refusal::not_found(format!("job {number}")))?;
        job.stop.store(true, Relaxed);
        Ok(job.shown(number))
    }

    /// Asks all to stop.
    pub(crate) fn stop(&self) {
        self.locked().jobs.values().for_each(|job| job.stop.store(true, Relaxed));
    }
}

fn id_of(id: &str) -> Result<u64, Refusal> {
    id.parse().map_err(|_| Refusal::bad("the number of a job is expected"))
}

fn run(served: &Served, work: &Work, stop: &Arc<AtomicBool>) -> Result<(), String> {
    let collection = &served.collection;
    let told = |error: CollectionError| Refusal::from(error).detail;
    match work {
        Work::Promote { index, sequence, previous } => collection.promote(index, *sequence, *previous).map_err(told),
        Work::Rollback => collection.rollback().map_err(told),
        Work::Rebuild => match &served.rebuild {
            Some(rebuild) => rebuild(collection, stop).map_err(|error| {
                eprintln!("error: {error}");
                if stop.load(Relaxed) { "it was stopped".to_string() } else { "the build failed; the server's log says how".to_string() }
            }),
            None => Err("there is no builder".to_string()),
        },
    }
}

impl Job {
    fn shown(&self, id: u64) -> Value {
        let (state, error) = match &self.state {
            State::Running => ("running", None),
            State::Done => ("done", None),
            State::Failed(error) => ("failed", Some(error)),
        };
        let seconds = self.ended.unwrap_or_else(|| self.start.elapsed()).as_secs_f64();
        json!({
            "id": id, "kind": self.kind, "collection": self.collection, "state": state, "error": error, "begun": self.begun,
            "seconds": seconds,
        })
    }
}
