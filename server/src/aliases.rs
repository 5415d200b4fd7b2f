//! Other names of collections. All of a request change at once; `aliases.json` in the data directory holds them.

use crate::{ServeError, files, reply::Refusal};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

const FILE: &str = "aliases.json";

/// The collection of each alias.
type Names = BTreeMap<String, String>;

pub(crate) struct Aliases {
    path: PathBuf,
    names: Mutex<Names>,
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
        Ok(Aliases { path, names: Mutex::new(names) })
    }

    fn locked(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The collection that `name` is an alias of.
    pub(crate) fn find(&self, name: &str) -> Option<String> {
        self.locked().get(name).cloned()
    }

    /// All, or those of one collection, as Qdrant shows them.
    pub(crate) fn shown(&self, of: Option<&str>) -> Value {
        let names = self.locked();
        let shown = names.iter().filter(|(_, collection)| of.is_none_or(|of| of == *collection));
        let shown: Vec<Value> = shown.map(|(alias, collection)| json!({"alias_name": alias, "collection_name": collection})).collect();
        json!({"aliases": shown})
    }

    /// Makes all changes of a request, or none; `is_there` says whether there is a collection of a name.
    pub(crate) fn change(&self, body: &Value, is_there: &dyn Fn(&str) -> bool) -> Result<(), Refusal> {
        let actions = body.get("actions").and_then(Value::as_array).ok_or_else(|| Refusal::bad("actions: a list is expected"))?;
        let mut names = self.locked();
        let mut next = names.clone();
        for (i, action) in actions.iter().enumerate() {
            let part = |name: &str, field: &str| {
                let text = action[name].get(field).and_then(Value::as_str);
                text.map(str::to_string).ok_or_else(|| Refusal::bad(format!("actions[{i}].{name}.{field}: a text is expected")))
            };
            let unknown = |alias: &str| Refusal::not_found(format!("Alias {alias} does not exists!"));
            let take_name = |alias: &str| {
                if !files::is_name(alias) {
                    return Err(Refusal::bad(format!("actions[{i}]: {}", files::NAMES)));
                }
                let taken = || Refusal::bad(format!("Collection with the same name as alias {alias} already exists!"));
                if is_there(alias) { Err(taken()) } else { Ok(()) }
            };
            if action.get("create_alias").is_some() {
                let (collection, alias) = (part("create_alias", "collection_name")?, part("create_alias", "alias_name")?);
                if !is_there(&collection) {
                    return Err(Refusal::not_found(format!("Collection `{collection}` doesn't exist!")));
                }
                take_name(&alias)?;
                next.insert(alias, collection);
            } else if action.get("delete_alias").is_some() {
                let alias = part("delete_alias", "alias_name")?;
                next.remove(&alias).ok_or_else(|| unknown(&alias))?;
            } else if action.get("rename_alias").is_some() {
                let (old, new) = (part("rename_alias", "old_alias_name")?, part("rename_alias", "new_alias_name")?);
                take_name(&new)?;
                let collection = next.remove(&old).ok_or_else(|| unknown(&old))?;
                next.insert(new, collection);
            } else {
                return Err(Refusal::bad(format!("actions[{i}]: create_alias, delete_alias or rename_alias is expected")));
            }
        }
        self.keep(&mut names, next)
    }

    /// The collection is no more.
    pub(crate) fn forget(&self, collection: &str) -> Result<(), Refusal> {
        let mut names = self.locked();
        let mut next = names.clone();
        next.retain(|_, of| of != collection);
        if next == *names { Ok(()) } else { self.keep(&mut names, next) }
    }

    fn keep(&self, names: &mut Names, next: Names) -> Result<(), Refusal> {
        let text = serde_json::to_vec_pretty(&next).map_err(io::Error::from);
        text.and_then(|text| files::replace(&self.path, &text)).map_err(|error| files::failed(&self.path, error))?;
        *names = next;
        Ok(())
    }
}
