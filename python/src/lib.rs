//! The native half of the Python package `roxanne`: plain values and buffers in and out. What arrays are, and what is shown to users, is the other
//! half (`roxanne/__init__.py`).
//!
//! The GIL is released while the engine works; what may take longer than a moment runs on threads of its own, and Ctrl-C is looked for meanwhile.

mod building;

use pyo3::{
    buffer::PyBuffer,
    create_exception,
    exceptions::{PyException, PyKeyboardInterrupt, PyMemoryError},
    prelude::*,
    types::{PyBytes, PyDict},
};
use roxanne::{
    Answer, Budget, BuildError, BuildParams, Change, Collection, CollectionConfig, CollectionError, CollectionOptions, ErrorClass, Filter,
    Index, KeyKind, MergeLimits, OpenError, Point, PointKey, Previous, SearchError, SearchParams, SearchStats, Silent, rebuild,
};
use serde_json::Value;
use std::{
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::Duration,
};

create_exception!(roxanne, RoxanneError, PyException, "What roxanne says when it does not do as it was told.");
create_exception!(roxanne, InputError, RoxanneError, "A call or an input that makes no sense.");
create_exception!(roxanne, BudgetError, RoxanneError, "It does not fit the memory or the disk that is allowed.");
create_exception!(roxanne, GateError, RoxanneError, "A gate or a check said no.");
create_exception!(roxanne, CorruptError, RoxanneError, "Damage, with its file and offset.");
create_exception!(roxanne, BusyError, RoxanneError, "Locked by another process, full, or without space; later it may work.");
create_exception!(roxanne, DeviceError, RoxanneError, "A device or a disk that does not work.");

/// Between two looks at Ctrl-C.
const LOOK: Duration = Duration::from_millis(20);
/// Queries that are answered without looking for it.
const A_MOMENT: usize = 16;
/// Queries in flight of each thread.
const IN_FLIGHT: usize = 16;
/// The key of a hit that there is none of.
const NO_KEY: u64 = u64::MAX;

fn raised(class: ErrorClass, text: String) -> PyErr {
    match class {
        ErrorClass::Usage | ErrorClass::BadInput => InputError::new_err(text),
        ErrorClass::Budget => BudgetError::new_err(text),
        ErrorClass::Gate => GateError::new_err(text),
        ErrorClass::Corrupt => CorruptError::new_err(text),
        ErrorClass::Busy => BusyError::new_err(text),
        ErrorClass::Device => DeviceError::new_err(text),
        ErrorClass::Interrupted => PyKeyboardInterrupt::new_err(text),
    }
}

/// An error of any part as its exception.
trait Raise<T> {
    fn raise(self) -> PyResult<T>;
}

macro_rules! raise {
    ($($error:ty),*) => {$(
        impl<T> Raise<T> for Result<T, $error> {
            fn raise(self) -> PyResult<T> {
                self.map_err(|error| raised(error.class(), error.to_string()))
            }
        }
    )*};
}

raise!(BuildError, OpenError, SearchError, CollectionError, rebuild::RebuildError);

/// Does `work` on a thread of its own, without the GIL, and tells it to stop at Ctrl-C.
fn patiently<T: Send>(py: Python<'_>, stop: &AtomicBool, work: impl FnOnce() -> T + Send) -> PyResult<T> {
    thread::scope(|scope| {
        let (done, outcome) = mpsc::channel();
        let caught = move || drop(done.send(panic::catch_unwind(AssertUnwindSafe(work))));
        let worker = thread::Builder::new().spawn_scoped(scope, caught);
        worker.map_err(|error| PyMemoryError::new_err(format!("no thread: {error}")))?;
        // The receiver stays on this thread.
        let outcome = Mutex::new(outcome);
        let mut signal = Ok(());
        loop {
            let received = py.detach(|| locked(&outcome).recv_timeout(LOOK));
            match received {
                Ok(Ok(value)) => return signal.map(|()| value),
                Ok(Err(_)) | Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Err(RoxanneError::new_err("it panicked; stderr says where"));
                }
                Err(mpsc::RecvTimeoutError::Timeout) if signal.is_ok() => {
                    signal = py.check_signals();
                    stop.store(signal.is_err(), Relaxed);
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
        }
    })
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn budget(ram: Option<u64>) -> Budget {
    ram.map_or_else(Budget::default, Budget::ram)
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> PyResult<T> {
    text.parse().map_err(|error: T::Err| InputError::new_err(error.to_string()))
}

/// Rows of `dim` numbers.
fn rows_of(py: Python<'_>, buffer: &PyBuffer<f32>, dim: usize) -> PyResult<Vec<f32>> {
    let values = buffer.to_vec(py)?;
    if dim == 0 || !values.len().is_multiple_of(dim) {
        return Err(InputError::new_err(format!("{} numbers are no rows of {dim}", values.len())));
    }
    Ok(values)
}

/// What a search is asked.
#[derive(FromPyObject)]
struct Asked {
    #[pyo3(item)]
    k: usize,
    #[pyo3(item)]
    list_size: usize,
    #[pyo3(item)]
    threads: usize,
    #[pyo3(item)]
    exact: bool,
    #[pyo3(item)]
    deadline: Option<f64>,
}

impl Asked {
    fn params(&self) -> PyResult<SearchParams> {
        let deadline = self
            .deadline
            .map(|seconds| Duration::try_from_secs_f64(seconds).map_err(|error| InputError::new_err(format!("deadline: {error}"))));
        Ok(SearchParams { k: self.k, list_size: self.list_size, deadline: deadline.transpose()?, ..SearchParams::DEFAULT })
    }

    /// Asked of the machine only where it matters: that takes longer than a search.
    fn threads(&self, queries: usize) -> usize {
        if queries == 1 {
            1
        } else if self.threads > 0 {
            self.threads
        } else {
            thread::available_parallelism().map_or(1, usize::from)
        }
    }
}

/// What one query found: keys and distances, nearest first.
struct Row {
    hits: Vec<(PointKey, f32)>,
    complete: bool,
    stats: SearchStats,
}

impl Row {
    fn of(index: &Index, answer: &Answer) -> Result<Row, SearchError> {
        let key = |key| Ok::<_, SearchError>(index.key_name(key)?.map_or(PointKey::Number(key.0), |name| PointKey::Text(name.into())));
        let hits = answer.hits.iter().map(|hit| Ok((key(hit.key)?, hit.distance))).collect::<Result<_, SearchError>>()?;
        Ok(Row { hits, complete: answer.complete, stats: answer.stats })
    }
}

/// Answers as arrays: keys `[nq, k]` (u64, or lists of texts), distances `[nq, k]` f32, and of each query pages read, microseconds and whether it came to
/// its end. What is not there is `NO_KEY` at an infinite distance.
fn matches<'py>(py: Python<'py>, rows: &[Row], k: usize, texts: bool) -> PyResult<Bound<'py, PyDict>> {
    let out = PyDict::new(py);
    let mut distances = Vec::with_capacity(rows.len() * k * 4);
    for row in rows {
        let found = row.hits.iter().map(|(_, distance)| *distance).chain(std::iter::repeat(f32::INFINITY)).take(k);
        found.for_each(|distance| distances.extend_from_slice(&distance.to_le_bytes()));
    }
    if texts {
        let keys: Vec<Vec<String>> = rows.iter().map(|row| row.hits.iter().map(|(key, _)| key.to_string()).collect()).collect();
        out.set_item("keys", keys)?;
    } else {
        let mut keys = Vec::with_capacity(rows.len() * k * 8);
        for row in rows {
            let number = |key: &PointKey| if let PointKey::Number(number) = key { *number } else { NO_KEY };
            let found = row.hits.iter().map(|(key, _)| number(key)).chain(std::iter::repeat(NO_KEY)).take(k);
            found.for_each(|key| keys.extend_from_slice(&key.to_le_bytes()));
        }
        out.set_item("keys", PyBytes::new(py, &keys))?;
    }
    let words = |of: fn(&Row) -> u64| -> Vec<u8> { rows.iter().flat_map(|row| of(row).to_le_bytes()).collect() };
    out.set_item("distances", PyBytes::new(py, &distances))?;
    out.set_item("reads", PyBytes::new(py, &words(|row| row.stats.reads)))?;
    out.set_item("micros", PyBytes::new(py, &words(|row| row.stats.micros)))?;
    out.set_item("complete", rows.iter().map(|row| row.complete).collect::<Vec<bool>>())?;
    Ok(out)
}

/// Answers all queries, on `threads` threads, each of which takes the next ones.
fn answered<E: Send>(
    queries: &[f32],
    dim: usize,
    threads: usize,
    answer: impl Fn(&AtomicUsize, &mut Vec<(usize, Row)>) -> Result<(), E> + Sync,
) -> Result<Vec<Row>, E> {
    let count = queries.len() / dim;
    let next = AtomicUsize::new(0);
    let work = || {
        let mut found = Vec::new();
        let outcome = answer(&next, &mut found);
        if outcome.is_err() {
            // The others need not go on.
            next.store(usize::MAX / 2, Relaxed);
        }
        outcome.map(|()| found)
    };
    let mut rows: Vec<(usize, Row)> = if threads == 1 || count == 1 {
        work()?
    } else {
        thread::scope(|scope| {
            let workers: Vec<_> = (0..threads.min(count)).map(|_| scope.spawn(work)).collect();
            let mut rows = Vec::with_capacity(count);
            for worker in workers {
                rows.extend(worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
            }
            Ok::<_, E>(rows)
        })?
    };
    rows.sort_unstable_by_key(|(number, _)| *number);
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

/// An index that was built and does not change.
#[pyclass(frozen, module = "roxanne._native")]
struct NativeIndex {
    index: Index,
}

#[pymethods]
impl NativeIndex {
    #[new]
    #[pyo3(signature = (path, ram=None))]
    fn new(py: Python<'_>, path: String, ram: Option<u64>) -> PyResult<NativeIndex> {
        let index = py.detach(|| Index::open(&path, budget(ram))).raise()?;
        Ok(NativeIndex { index })
    }

    fn info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (info, out) = (self.index.info(), PyDict::new(py));
        out.set_item("n", info.n)?;
        out.set_item("dim", info.dim)?;
        out.set_item("metric", info.metric.to_string())?;
        out.set_item("element", info.element.to_string())?;
        out.set_item("string_keys", info.string_keys)?;
        out.set_item("max_degree", info.max_degree)?;
        out.set_item("code_bytes", info.code_bytes)?;
        out.set_item("page_bytes", info.page_bytes)?;
        out.set_item("index_bytes", info.index_bytes)?;
        out.set_item("resident_bytes", info.resident_bytes)?;
        out.set_item("all_resident", info.all_resident)?;
        out.set_item("reader", info.reader)?;
        Ok(out)
    }

    fn search<'py>(&self, py: Python<'py>, queries: PyBuffer<f32>, asked: Asked) -> PyResult<Bound<'py, PyDict>> {
        let (index, params) = (&self.index, asked.params()?);
        let dim = index.info().dim;
        let queries = rows_of(py, &queries, dim)?;
        let (stop, threads) = (AtomicBool::new(false), asked.threads(queries.len() / dim));
        let each = |next: &AtomicUsize, found: &mut Vec<(usize, Row)>| -> Result<(), SearchError> {
            let count = queries.len() / dim;
            let query = |number: usize| &queries[number * dim..][..dim];
            let take = || Some(next.fetch_add(1, Relaxed)).filter(|&number| number < count && !stop.load(Relaxed));
            if asked.exact {
                while let Some(number) = take() {
                    let answers = index.exact(&[query(number)], params.k, None)?;
                    for answer in &answers {
                        found.push((number, Row::of(index, answer)?));
                    }
                }
                return Ok(());
            }
            if count == 1 {
                while let Some(number) = take() {
                    found.push((number, Row::of(index, &index.search(query(number), &params)?)?));
                }
                return Ok(());
            }
            let mut searcher = index.searcher_of(IN_FLIGHT)?;
            loop {
                while searcher.has_room() {
                    let Some(number) = take() else { break };
                    searcher.submit(number as u64, query(number), &params, None)?;
                }
                let mut failed = None;
                let ended = searcher.wait(&mut |number, answer| {
                    let row = answer.and_then(|answer| Row::of(index, &answer));
                    match row {
                        Ok(row) => found.push((number as usize, row)),
                        Err(error) => failed = Some(error),
                    }
                })?;
                failed.map_or(Ok(()), Err)?;
                if ended == 0 {
                    return Ok(());
                }
            }
        };
        let work = || answered(&queries, dim, threads, each);
        let few = queries.len() / dim <= A_MOMENT && !asked.exact;
        let rows = if few { py.detach(work) } else { patiently(py, &stop, work)? };
        matches(py, &rows.raise()?, params.k, index.info().string_keys)
    }

    fn get(&self, py: Python<'_>, key: String) -> PyResult<Option<Vec<f32>>> {
        py.detach(|| self.index.get(&key)).raise()
    }
}

/// A collection that changes while it is searched; closed by `close`, or when nobody holds it.
#[pyclass(frozen, module = "roxanne._native")]
struct NativeCollection {
    config: CollectionConfig,
    open: RwLock<Option<Collection>>,
}

/// A key as Python has it.
#[derive(FromPyObject)]
enum AnyKey {
    Number(u64),
    Text(String),
}

fn key_of(kind: KeyKind, key: &AnyKey) -> PyResult<PointKey> {
    match (kind, key) {
        (KeyKind::Numbers, AnyKey::Number(number)) => Ok(PointKey::Number(*number)),
        (KeyKind::Strings, AnyKey::Text(text)) => kind.parse(text).raise(),
        (_, AnyKey::Number(number)) => Err(InputError::new_err(format!("key {number}: the collection's keys are {}", kind.name()))),
        (_, AnyKey::Text(text)) => Err(InputError::new_err(format!("key {text:?}: the collection's keys are {}", kind.name()))),
    }
}

impl NativeCollection {
    fn of(collection: Collection) -> NativeCollection {
        NativeCollection { config: *collection.config(), open: RwLock::new(Some(collection)) }
    }

    fn collection(&self) -> PyResult<Collection> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.clone().ok_or_else(|| InputError::new_err("the collection is closed"))
    }

    fn filter(&self, filter: Option<String>) -> PyResult<Option<Filter>> {
        let Some(text) = filter else { return Ok(None) };
        let json: Value = serde_json::from_str(&text).map_err(|error| InputError::new_err(format!("filter: {error}")))?;
        Ok(Some(Filter::from_json(&json, self.config.keys).raise()?))
    }
}

#[pymethods]
impl NativeCollection {
    #[staticmethod]
    fn create(py: Python<'_>, path: String, dim: usize, metric: &str, element: &str, keys: &str) -> PyResult<NativeCollection> {
        let keys = if keys == "strings" { KeyKind::Strings } else { KeyKind::Numbers };
        let config = CollectionConfig { dim, metric: parsed(metric)?, element: parsed(element)?, keys };
        let options = rebuild::by_itself(CollectionOptions::default(), Budget::ram(2 << 30));
        Ok(NativeCollection::of(py.detach(|| Collection::create(&path, &config, &options)).raise()?))
    }

    #[staticmethod]
    #[pyo3(signature = (path, ram=None, read_only=false))]
    fn open(py: Python<'_>, path: String, ram: Option<u64>, read_only: bool) -> PyResult<NativeCollection> {
        let mut options = CollectionOptions { read_only, ..CollectionOptions::default() };
        options.base.budget = budget(ram);
        let options = rebuild::by_itself(options, Budget::ram(2 << 30));
        Ok(NativeCollection::of(py.detach(|| Collection::open(&path, &options)).raise()?))
    }

    fn info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (collection, out) = (self.collection()?, PyDict::new(py));
        let (config, stats) = (self.config, collection.stats());
        out.set_item("n", stats.points)?;
        out.set_item("dim", config.dim)?;
        out.set_item("metric", config.metric.to_string())?;
        out.set_item("element", config.element.to_string())?;
        out.set_item("string_keys", config.keys == KeyKind::Strings)?;
        out.set_item("sequence", stats.sequence)?;
        out.set_item("base_points", stats.base_points)?;
        out.set_item("in_memory", stats.delta_points - stats.delta_dead)?;
        out.set_item("memory_bytes", stats.delta_bytes)?;
        out.set_item("previous", collection.previous().raise()?)?;
        out.set_item("trouble", collection.trouble())?;
        Ok(out)
    }

    fn upsert(
        &self,
        py: Python<'_>,
        keys: Vec<AnyKey>,
        vectors: PyBuffer<f32>,
        payloads: Option<Vec<String>>,
        insert_only: bool,
    ) -> PyResult<u64> {
        let (collection, dim) = (self.collection()?, self.config.dim);
        let values = rows_of(py, &vectors, dim)?;
        let payloads = payloads.unwrap_or_else(|| vec![String::new(); keys.len()]);
        if values.len() / dim != keys.len() || payloads.len() != keys.len() {
            let text = format!(
                "{} keys, {} vectors and {} payloads: as many of each are expected",
                keys.len(),
                values.len() / dim,
                payloads.len()
            );
            return Err(InputError::new_err(text));
        }
        let mut changes = Vec::with_capacity(keys.len());
        for ((key, vector), payload) in keys.iter().zip(values.chunks_exact(dim)).zip(payloads) {
            let point = Point { key: key_of(self.config.keys, key)?, vector: vector.to_vec(), payload };
            changes.push(if insert_only { Change::Insert(point) } else { Change::Upsert(point) });
        }
        Ok(py.detach(|| collection.write(changes)).raise()?.sequence)
    }

    fn delete(&self, py: Python<'_>, keys: Vec<AnyKey>) -> PyResult<u64> {
        let collection = self.collection()?;
        let changes = keys.iter().map(|key| key_of(self.config.keys, key).map(Change::Delete)).collect::<PyResult<Vec<_>>>()?;
        Ok(py.detach(|| collection.write(changes)).raise()?.deleted)
    }

    /// The vector and the payload of a key.
    fn get(&self, py: Python<'_>, key: AnyKey) -> PyResult<Option<(Vec<f32>, String)>> {
        let (collection, key) = (self.collection()?, key_of(self.config.keys, &key)?);
        let point = py.detach(|| collection.get(&key)).raise()?;
        Ok(point.map(|point| (point.vector, point.payload)))
    }

    /// Keys and payloads behind `after`, in their order.
    fn scroll<'py>(
        &self,
        py: Python<'py>,
        after: Option<AnyKey>,
        limit: usize,
        filter: Option<String>,
    ) -> PyResult<Vec<(Bound<'py, PyAny>, String)>> {
        let (collection, filter) = (self.collection()?, self.filter(filter)?);
        let after = after.map(|key| key_of(self.config.keys, &key)).transpose()?;
        let points = py.detach(|| collection.scroll(after.as_ref(), limit, filter.as_ref())).raise()?;
        let key = |key: PointKey| -> PyResult<Bound<'py, PyAny>> {
            Ok(match key {
                PointKey::Number(number) => number.into_pyobject(py)?.into_any(),
                PointKey::Text(text) => text.into_string().into_pyobject(py)?.into_any(),
            })
        };
        points.into_iter().map(|(name, payload)| Ok((key(name)?, payload))).collect()
    }

    fn count(&self, py: Python<'_>, filter: Option<String>) -> PyResult<u64> {
        let (collection, filter) = (self.collection()?, self.filter(filter)?);
        match filter {
            None => Ok(collection.count()),
            Some(filter) => py.detach(|| collection.count_filtered(&filter)).raise(),
        }
    }

    fn search<'py>(&self, py: Python<'py>, queries: PyBuffer<f32>, asked: Asked, filter: Option<String>) -> PyResult<Bound<'py, PyDict>> {
        let (collection, dim, params, filter) = (self.collection()?, self.config.dim, asked.params()?, self.filter(filter)?);
        let queries = rows_of(py, &queries, dim)?;
        let (stop, threads) = (AtomicBool::new(false), asked.threads(queries.len() / dim));
        let each = |next: &AtomicUsize, found: &mut Vec<(usize, Row)>| -> Result<(), CollectionError> {
            loop {
                let number = next.fetch_add(1, Relaxed);
                if number >= queries.len() / dim || stop.load(Relaxed) {
                    return Ok(());
                }
                let query = &queries[number * dim..][..dim];
                let answer = match (&filter, asked.exact) {
                    (None, false) => collection.search(query, &params),
                    (None, true) => collection.exact(query, params.k),
                    (Some(filter), false) => collection.search_filtered(query, &params, filter),
                    (Some(filter), true) => collection.exact_filtered(query, params.k, filter),
                }?;
                let hits = answer.hits.into_iter().map(|hit| (hit.key, hit.distance)).collect();
                found.push((number, Row { hits, complete: answer.complete, stats: answer.stats }));
            }
        };
        let work = || answered(&queries, dim, threads, each);
        let few = queries.len() / dim <= A_MOMENT && !asked.exact;
        let rows = if few { py.detach(work) } else { patiently(py, &stop, work)? };
        matches(py, &rows.raise()?, params.k, self.config.keys == KeyKind::Strings)
    }

    /// Merges all that waits into the base; builds one where there is none that can be changed in place.
    fn merge(&self, py: Python<'_>) -> PyResult<()> {
        let collection = self.collection()?;
        let stop = Arc::new(AtomicBool::new(false));
        if collection.count() == 0 {
            return Ok(());
        }
        if !collection.merges_in_place() {
            let params = BuildParams { capacity: rebuild::room_for(collection.count()), ..BuildParams::default() };
            let observer = Arc::new(Silent);
            let how = rebuild::Rebuild { params, budget: Budget::default(), threads: 0, observer, stop: Arc::clone(&stop) };
            return patiently(py, &stop, || rebuild::rebuild(&collection, &how))?.raise().map(|_| ());
        }
        let work = || -> Result<(), CollectionError> {
            while !stop.load(Relaxed) {
                let report = collection.merge(&MergeLimits::default())?;
                if report.inserted + report.removed == 0 {
                    break;
                }
            }
            Ok(())
        };
        patiently(py, &stop, work)?.raise()
    }

    fn promote(&self, py: Python<'_>, index: String, sequence: u64, keep_previous: bool) -> PyResult<()> {
        let collection = self.collection()?;
        let previous = if keep_previous { Previous::Keep } else { Previous::Remove };
        py.detach(|| collection.promote(&index, sequence, previous)).raise()
    }

    fn rollback(&self, py: Python<'_>) -> PyResult<()> {
        let collection = self.collection()?;
        py.detach(|| collection.rollback()).raise()
    }

    fn snapshot(&self, py: Python<'_>, out: String) -> PyResult<u64> {
        let collection = self.collection()?;
        Ok(py.detach(|| collection.snapshot(&out)).raise()?.sequence)
    }

    fn catch_up(&self, py: Python<'_>) -> PyResult<u64> {
        let collection = self.collection()?;
        py.detach(|| collection.catch_up()).raise()
    }

    fn close(&self, py: Python<'_>) {
        let collection = self.open.write().unwrap_or_else(PoisonError::into_inner).take();
        py.detach(|| drop(collection));
    }
}

/// Makes a collection of a snapshot.
#[pyfunction]
fn restore(py: Python<'_>, snapshot: String, path: String) -> PyResult<u64> {
    Ok(py.detach(|| Collection::restore(&snapshot, &path)).raise()?.sequence)
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add_class::<NativeIndex>()?;
    module.add_class::<NativeCollection>()?;
    module.add_function(wrap_pyfunction!(building::build, module)?)?;
    module.add_function(wrap_pyfunction!(building::import_index, module)?)?;
    module.add_function(wrap_pyfunction!(building::plan, module)?)?;
    module.add_function(wrap_pyfunction!(restore, module)?)?;
    module.add("RoxanneError", py.get_type::<RoxanneError>())?;
    module.add("InputError", py.get_type::<InputError>())?;
    module.add("BudgetError", py.get_type::<BudgetError>())?;
    module.add("GateError", py.get_type::<GateError>())?;
    module.add("CorruptError", py.get_type::<CorruptError>())?;
    module.add("BusyError", py.get_type::<BusyError>())?;
    module.add("DeviceError", py.get_type::<DeviceError>())?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))
}
