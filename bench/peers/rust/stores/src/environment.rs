//! How an LMDB environment is opened.

use anyhow::{Context, Result};
use heed::{CommitOrAbort, Database, Env, EnvOpenOptions};
use std::path::Path;

/// Address space of an environment: more than any index that is measured.
const MAP_BYTES: usize = 64 << 30;

/// Opens the environment in the directory `path`.
#[allow(unsafe_code)]
pub(crate) fn open(path: &Path) -> Result<Env> {
    // SAFETY: LMDB maps the file, and a mapped file must not be changed by others. run.py gives each process a directory of its own
    // and runs one after the other.
    let opened = unsafe { EnvOpenOptions::new().map_size(MAP_BYTES).open(path) };
    opened.with_context(|| format!("{}: open", path.display()))
}

/// The one database of an environment, made where there is none.
pub(crate) fn database<K: 'static, V: 'static>(environment: &Env) -> Result<Database<'static, K, V>> {
    let change = environment.write_txn()?;
    let made = environment
        .create_databases_and_commit(change, |opener, change| opener.create_database(change, None).map(CommitOrAbort::<_, ()>::Commit))?;
    Ok(made.unwrap_commit())
}
