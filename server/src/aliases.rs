//! Other names of collections. All of a request change at once; `aliases.json` in the data directory holds them.

use crate::{ServeError, files, reply::Refusal};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

const FILE: &str = "aliases.json";

/// The collection of each alias.
type Names = BTreeMap<String, String>;

/// One other name.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Alias {
    alias_name: String,
    collection_name: String,
}

/// Other names.
#[derive(Serialize, JsonSchema)]
pub(crate) struct AliasList {
    aliases: Vec<Alias>,
}

/// Changes, made all at once or not at all.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Changes {
    actions: Vec<AliasChange>,
}

#[derive(Deserialize, JsonSchema)]
enum AliasChange {
    #[serde(rename = "create_alias")]
    Create(Alias),
    #[serde(rename = "delete_alias")]
    Delete(OneAlias),
    #[serde(rename = "rename_alias")]
    Rename(Rename),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OneAlias {
    alias_name: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Rename {
    old_alias_name: String,
    new_alias_name: String,
}

pub(crate) struct Aliases {
    path: PathBuf,
    names: Mutex<Names>,
    /// Held by who changes them.
    changing: Mutex<()>,
}

impl Aliases {
    /// Those of the data directory `data`.
    pub(crate) fn open(data: &Path) -> Result<Aliases, ServeError> {
        let path = data.join(FILE);
        let failed = |error| ServeError::Data { path: path.clone(), error };
        let names = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Names::new(),
            bytes => serde_json::from_slice(&bytes.map_err(failed)?).map_err(|error| failed(error.into()))?,
        };
        Ok(Aliases { path, names: Mutex::new(names), changing: Mutex::default() })
    }

    fn locked(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The collection that `name` is an alias of.
    pub(crate) fn find(&self, name: &str) -> Option<String> {
        self.locked().get(name).cloned()
    }

    /// Other names of a collection.
    pub(crate) fn of(&self, collection: &str) -> Vec<String> {
        self.locked().iter().filter(|(_, own)| *own == collection).map(|(alias, _)| alias.clone()).collect()
    }

    /// Those that `which` is true of, by the alias and its collection.
    pub(crate) fn shown(&self, which: impl Fn(&str, &str) -> bool) -> AliasList {
        let names = self.locked();
        let shown = names.iter().filter(|(alias, collection)| which(alias, collection));
        AliasList { aliases: shown.map(|(alias, own)| Alias { alias_name: alias.clone(), collection_name: own.clone() }).collect() }
    }

    /// Makes all changes of a request, or none; `is_there` says whether there is a collection of a name.
    pub(crate) fn change(&self, body: Changes, is_there: &dyn Fn(&str) -> bool) -> Result<(), Refusal> {
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = self.locked().clone();
        for (i, change) in body.actions.into_iter().enumerate() {
            let at = |refusal: Refusal| refusal.within(&format!("actions[{i}]"));
            let unknown = |alias: &str| Refusal::not_found(format!("Alias {alias} does not exists!"));
            let take_name = |alias: &str| {
                if !files::is_name(alias) {
                    return Err(Refusal::bad("bad_name", files::NAMES).field("alias_name"));
                }
                let taken = || Refusal::bad("exists", format!("Collection with the same name as alias {alias} already exists!"));
                if is_there(alias) { Err(taken()) } else { Ok(()) }
            };
            match change {
                AliasChange::Create(Alias { alias_name, collection_name }) => {
                    if !is_there(&collection_name) {
                        return Err(Refusal::not_found(format!("Collection `{collection_name}` doesn't exist!")));
                    }
                    take_name(&alias_name).map_err(at)?;
                    next.insert(alias_name, collection_name);
                }
                AliasChange::Delete(OneAlias { alias_name }) => _ = next.remove(&alias_name).ok_or_else(|| unknown(&alias_name))?,
                AliasChange::Rename(Rename { old_alias_name, new_alias_name }) => {
                    take_name(&new_alias_name).map_err(at)?;
                    let own = next.remove(&old_alias_name).ok_or_else(|| unknown(&old_alias_name))?;
                    next.insert(new_alias_name, own);
                }
            }
        }
        self.keep(next)
    }

    /// The collection is no more.
    pub(crate) fn forget(&self, collection: &str) -> Result<(), Refusal> {
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let names = self.locked().clone();
        let mut next = names.clone();
        next.retain(|_, of| of != collection);
        if next == names { Ok(()) } else { self.keep(next) }
    }

    /// First on the disk, then for all to see: who looks a name up waits for no disk.
    fn keep(&self, next: Names) -> Result<(), Refusal> {
        let text = serde_json::to_vec_pretty(&next).map_err(io::Error::from);
        text.and_then(|text| files::replace(&self.path, &text)).map_err(|error| files::failed(&self.path, error))?;
        *self.locked() = next;
        Ok(())
    }
}
