//! A base for a collection, built of all that is in it, while it is searched and written to.
//!
//! ```no_run
//! use roxanne::{Budget, Collection, CollectionOptions, rebuild};
//!
//! // Builds a first base when enough has gathered in memory, and a larger one when there is no room left.
//! let options = rebuild::by_itself(CollectionOptions::default(), Budget::ram(4 << 30));
//! let collection = Collection::open("docs", &options)?;
//! # Ok::<(), roxanne::CollectionError>(())
//! ```

use roxanne_builder::{BuildError, BuildParams, Builder, Observer, Report, Silent};
use roxanne_core::{
    Budget, ErrorClass,
    dataset::{Dataset, DatasetError, DatasetWriter},
    element::ElementType,
    format::keys::KeyList,
    id::MAX_NODES,
};
use roxanne_engine::collection::{Collection, CollectionError, CollectionOptions, KeyKind, PointKey};
use std::{
    fs, io,
    path::PathBuf,
    sync::{
        Arc, Mutex, TryLockError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

/// How a base is built.
#[derive(Clone)]
pub struct Rebuild {
    /// What shapes it; `capacity` says how many points it has room for.
    pub params: BuildParams,
    /// Within which memory and disk.
    pub budget: Budget,
    /// Threads; 0 is one a core.
    pub threads: usize,
    /// Hears of progress.
    pub observer: Arc<dyn Observer>,
    /// Set to stop it; the collection is then as it was.
    pub stop: Arc<AtomicBool>,
}

/// Why there is no new base. The old one serves on.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The collection.
    #[error(transparent)]
    Collection(#[from] CollectionError),
    /// The builder.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// Its directory.
    #[error("{path}: {error}")]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the operating system said.
        error: io::Error,
    },
}

impl RebuildError {
    /// How a door reports it.
    pub fn class(&self) -> ErrorClass {
        match self {
            RebuildError::Collection(error) => error.class(),
            RebuildError::Build(error) => error.class(),
            RebuildError::Io { error, .. } => ErrorClass::of_io(error),
        }
    }
}

impl From<DatasetError> for RebuildError {
    fn from(error: DatasetError) -> RebuildError {
        RebuildError::Build(error.into())
    }
}

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
/// Between two looks at whether another has come to its end.
const LOOK: Duration = Duration::from_millis(50);

/// Room for as many points again as there are, and a million more.
pub fn room_for(points: u64) -> u64 {
    (2 * points + 1_000_000).min(MAX_NODES)
}

/// Builds a base of all points of this moment and puts it in the place of the old one; what is written meanwhile is kept.
///
/// # Errors
/// What the collection, the builder or the disk says; a stop.
pub fn rebuild(collection: &Collection, how: &Rebuild) -> Result<Report, RebuildError> {
    // One in a process: budgets are of one, and so is the directory.
    let _alone = loop {
        match ONE_AT_A_TIME.try_lock() {
            Ok(alone) => break alone,
            Err(TryLockError::Poisoned(alone)) => break alone.into_inner(),
            Err(TryLockError::WouldBlock) if how.stop.load(Relaxed) => return Err(BuildError::Stopped.into()),
            Err(TryLockError::WouldBlock) => thread::sleep(LOOK),
        }
    };
    let config = *collection.config();
    // Beside what it becomes, so that it can be moved; whatever an interrupted one left goes first.
    let place = collection.path().join("merge");
    let failed = |error| RebuildError::Io { path: place.clone(), error };
    match fs::remove_dir_all(&place) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => fs::create_dir(&place).map_err(failed)?,
    }
    let build = || -> Result<Report, RebuildError> {
        let (rows, index) = (place.join(file_of(config.element)), place.join("base.rx"));
        let packed = config.element == ElementType::Binary;
        let (dim, element) = if packed { (config.dim / 8, ElementType::U8) } else { (config.dim, config.element) };
        let mut writer = DatasetWriter::create(&rows, element, dim)?;
        let (mut numbers, mut names) = (Vec::new(), Vec::new());
        let mut failed = None;
        let of = collection.base_generation();
        let sequence = collection.export(|key, row| {
            if how.stop.load(Relaxed) {
                let error = io::ErrorKind::Interrupted.into();
                return Err(CollectionError::Io { path: rows.clone(), error });
            }
            match key {
                PointKey::Number(number) => numbers.push(number),
                PointKey::Text(name) => names.push(name.into_string()),
            }
            if failed.is_none() {
                failed = writer.push_rows(row).err();
            }
            Ok(())
        })?;
        failed.map_or(Ok(()), Err)?;
        writer.finish()?;
        let keys = if config.keys == KeyKind::Numbers { KeyList::Numbers(numbers) } else { KeyList::Strings(names) };
        let dataset = Dataset::open(&rows.to_string_lossy())?;
        let report = Builder::new(config.metric)
            .params(how.params.clone())
            .budget(how.budget)
            .threads(how.threads)
            .keys(keys)
            .dataset(dataset)
            .observer(Arc::clone(&how.observer))
            .stop(Arc::clone(&how.stop))
            .build(&index)?;
        collection.replace(&index, sequence, of)?;
        Ok(report)
    };
    let outcome = build();
    let removed = fs::remove_dir_all(&place).map_err(failed);
    outcome.and_then(|report| removed.map(|()| report))
}

/// The same options, and a collection that builds by itself: a first base when enough has gathered in memory, a new one when there is no room left
/// in it or when so much has gathered that building takes less than merging.
pub fn by_itself(options: CollectionOptions, budget: Budget) -> CollectionOptions {
    let build = move |collection: &Collection, stop: &Arc<AtomicBool>| {
        let points = collection.count();
        let params = BuildParams { capacity: room_for(points), ..BuildParams::default() };
        // What deletes and merges need is left to them. The rows are written twice: for the builder, and in the base.
        let rows = points * collection.config().element.row_bytes(collection.config().dim) as u64;
        let free = collection.disk_free()?;
        if free < 2 * rows {
            return Err(format!(
                "{free} bytes of the disk are free beyond the reserve, a base of {points} points takes more than {}",
                2 * rows
            )
            .into());
        }
        let budget = Budget { disk: budget.disk.min(free - rows), ..budget };
        let how = Rebuild { params, budget, threads: 0, observer: Arc::new(Silent), stop: Arc::clone(stop) };
        rebuild(collection, &how).map(|_| ()).map_err(Into::into)
    };
    CollectionOptions { rebuild: Some(Arc::new(build)), ..options }
}

/// A file of rows of this type.
fn file_of(element: ElementType) -> &'static str {
    match element {
        ElementType::F32 => "rows.fbin",
        ElementType::F16 => "rows.f16bin",
        ElementType::Bf16 => "rows.bf16bin",
        ElementType::I8 => "rows.i8bin",
        ElementType::U8 | ElementType::Binary => "rows.u8bin",
    }
}
