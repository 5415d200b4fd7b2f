//! Who may ask, and for what: keys with roles, all of them or for some collections.
//!
//! `DATA/keys.json` holds keys as SHA-256 hashes: a key is 256 random bits, which nobody guesses from its hash. A running server reads the file
//! again when it has changed.

use crate::{
    files::{self, Written},
    reply::Refusal,
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use hyper::{HeaderMap, StatusCode, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Arc, PoisonError, RwLock},
};

/// The file of keys within the data directory.
const FILE: &str = "keys.json";
/// Whose lock changes of it take.
const LOCK: &str = "keys.lock";
/// Random bytes of a key.
const KEY_BYTES: usize = 32;

/// What a key allows; each allows what those before it do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Search and look.
    Read,
    /// Put and delete points.
    Write,
    /// Make and remove collections, promote, roll back, snapshots, jobs.
    Admin,
}

impl Role {
    /// Its name.
    pub fn name(self) -> &'static str {
        ["read", "write", "admin"][self as usize]
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(name: &str) -> Result<Role, String> {
        let all = [Role::Read, Role::Write, Role::Admin];
        all.into_iter().find(|role| role.name() == name).ok_or_else(|| format!("{name:?} is no role: read, write or admin"))
    }
}

/// A key as the file holds it: all but the key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRecord {
    /// What people call it.
    pub name: String,
    /// What it allows.
    pub role: Role,
    /// Collections (or aliases) that it is for; none for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collections: Option<Vec<String>>,
    /// When it was made, in UTC.
    pub created: String,
    sha256: String,
}

/// Why keys could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said, or what is wrong with it.
        error: io::Error,
    },
    /// A name that is none, or is taken.
    #[error("{0}")]
    Name(String),
}

/// The keys of a data directory, to look at and to change them: what `roxanne key` does.
pub struct KeyFile {
    path: PathBuf,
    keys: Vec<KeyRecord>,
    /// Held while they may be changed.
    _lock: Option<File>,
}

impl KeyFile {
    /// Those of `data`, to change them, which one process at a time does; none where there is no file.
    ///
    /// # Errors
    /// A file that cannot be read or is none of ours.
    pub fn open(data: &Path) -> Result<KeyFile, KeyError> {
        let path = data.join(LOCK);
        let lock = File::create(&path).and_then(|file| file.lock().map(|()| file)).map_err(|error| KeyError::Io { path, error })?;
        Ok(KeyFile { _lock: Some(lock), ..KeyFile::look(data)? })
    }

    /// The same, to look at them alone.
    ///
    /// # Errors
    /// As [`KeyFile::open`].
    pub fn look(data: &Path) -> Result<KeyFile, KeyError> {
        let path = data.join(FILE);
        let failed = |error| KeyError::Io { path: path.clone(), error };
        let keys = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            bytes => serde_json::from_slice(&bytes.map_err(failed)?).map_err(|error| failed(error.into()))?,
        };
        Ok(KeyFile { path, keys, _lock: None })
    }

    /// All of them.
    pub fn keys(&self) -> &[KeyRecord] {
        &self.keys
    }

    /// Makes one, durably, and gives the key itself, which is kept nowhere.
    ///
    /// # Errors
    /// A name that is none or is taken; a failing disk.
    pub fn create(&mut self, name: &str, role: Role, collections: Option<Vec<String>>) -> Result<String, KeyError> {
        if !files::is_name(name) {
            return Err(KeyError::Name(files::NAMES.to_string()));
        }
        if self.keys.iter().any(|key| key.name == name) {
            return Err(KeyError::Name(format!("there is a key {name} already; revoke it first")));
        }
        let mut bytes = [0u8; KEY_BYTES];
        let path = Path::new("/dev/urandom");
        File::open(path)
            .and_then(|mut file| file.read_exact(&mut bytes))
            .map_err(|error| KeyError::Io { path: path.to_path_buf(), error })?;
        let key = format!("rx_{}", URL_SAFE_NO_PAD.encode(bytes));
        self.keys.push(KeyRecord { name: name.to_string(), role, collections, created: files::now(), sha256: hash_of(&key) });
        self.keep().map(|()| key)
    }

    /// Removes one; false where there is none of this name.
    ///
    /// # Errors
    /// A failing disk.
    pub fn revoke(&mut self, name: &str) -> Result<bool, KeyError> {
        let before = self.keys.len();
        self.keys.retain(|key| key.name != name);
        let revoked = self.keys.len() < before;
        if revoked {
            self.keep()?;
        }
        Ok(revoked)
    }

    fn keep(&self) -> Result<(), KeyError> {
        let text = serde_json::to_vec_pretty(&self.keys).map_err(io::Error::from);
        text.and_then(|text| files::replace(&self.path, &text)).map_err(|error| KeyError::Io { path: self.path.clone(), error })
    }
}

fn hash_of(key: &str) -> String {
    format!("{:x}", Sha256::digest(key))
}

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) name: String,
    role: Role,
    collections: Option<Vec<String>>,
}

impl Caller {
    fn all(name: &str) -> Caller {
        Caller { name: name.to_string(), role: Role::Admin, collections: None }
    }

    /// Who asks for what everybody may.
    pub(crate) fn nobody() -> Caller {
        Caller { name: "nobody".to_string(), role: Role::Read, collections: Some(Vec::new()) }
    }

    /// Refuses what its role does not allow.
    pub(crate) fn may(&self, role: Role) -> Result<(), Refusal> {
        if self.role >= role {
            return Ok(());
        }
        let detail = format!("the key {} has the role {}, this takes {}", self.name, self.role.name(), role.name());
        Err(Refusal::new(StatusCode::FORBIDDEN, "role", detail))
    }

    pub(crate) fn role(&self) -> Role {
        self.role
    }

    /// Whether it may see the collection that is asked for by `name`.
    pub(crate) fn sees(&self, name: &str) -> bool {
        self.collections.as_ref().is_none_or(|collections| collections.iter().any(|collection| collection == name))
    }

    /// Refuses what concerns all collections, or no particular one, to who may see some alone.
    pub(crate) fn sees_all(&self) -> Result<(), Refusal> {
        if self.collections.is_none() { Ok(()) } else { Err(self.hidden()) }
    }

    pub(crate) fn hidden(&self) -> Refusal {
        Refusal::new(StatusCode::FORBIDDEN, "scope", format!("the key {} is for some collections, and not for this", self.name))
    }
}

struct Known {
    keys: Vec<(KeyRecord, Caller)>,
    /// When the file was written that they are from.
    written: Option<Written>,
}

/// All that are let in.
pub(crate) struct Access {
    data: PathBuf,
    /// The hash of the key of the command line, which may do all.
    first: Option<String>,
    known: RwLock<Arc<Known>>,
    /// Whether only this machine reaches the address.
    is_local: bool,
    /// Pages of other origins that may ask.
    origins: Vec<String>,
}

impl Access {
    pub(crate) fn open(data: &Path, api_key: Option<&str>, is_local: bool, origins: Vec<String>) -> Result<Access, KeyError> {
        let known = RwLock::new(Arc::new(Known::read(data)?));
        Ok(Access { data: data.to_path_buf(), first: api_key.map(hash_of), known, is_local, origins })
    }

    fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a request must bring a key: where there is a file of keys, even one of none.
    pub(crate) fn is_locked(&self) -> bool {
        self.first.is_some() || self.known().written.is_some()
    }

    /// All but the keys themselves.
    pub(crate) fn shown(&self) -> Value {
        let shown = |(key, _): &(KeyRecord, Caller)| json!({"name": key.name, "role": key.role.name(), "collections": key.collections, "created": key.created});
        self.known().keys.iter().map(shown).collect()
    }

    /// Reads the file again where it has changed. One that cannot be read changes nothing.
    pub(crate) fn refresh(&self) {
        let written = files::written(&self.data.join(FILE));
        if written == self.known().written {
            return;
        }
        match Known::read(&self.data) {
            // A door does not open because a file has gone.
            _ if written.is_none() => tracing::error!("{FILE} has gone; keys stay as they were until the next start"),
            Ok(known) => {
                tracing::info!(keys = known.keys.len(), "keys were read again");
                *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(known);
            }
            Err(error) => tracing::error!(%error, "keys stay as they were"),
        }
    }

    /// Who asks, where they may.
    pub(crate) fn caller(&self, headers: &HeaderMap) -> Result<Caller, Refusal> {
        self.check_origin(headers)?;
        let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        if !self.is_locked() {
            if self.is_local && !is_here(text(header::HOST).unwrap_or("localhost")) {
                return Err(Refusal::new(
                    StatusCode::FORBIDDEN,
                    "host",
                    "without a key only programs on this machine may ask, by its own name",
                ));
            }
            return Ok(Caller::all("everybody"));
        }
        let given = headers.get("api-key").and_then(|value| value.to_str().ok()).map(str::to_string);
        let given = given.or_else(|| {
            let (scheme, value) = text(header::AUTHORIZATION)?.split_once(' ')?;
            match scheme.to_ascii_lowercase().as_str() {
                "bearer" => Some(value.trim().to_string()),
                "basic" => password(value.trim()),
                _ => None,
            }
        });
        let refused = || {
            let detail = "a key is needed: the header api-key, a bearer's token, or the password of a browser";
            Refusal::new(StatusCode::UNAUTHORIZED, "key", detail)
        };
        let hash = hash_of(&given.ok_or_else(refused)?);
        let known = self.known();
        let mut found = None;
        // All are looked at, whichever it is.
        for (record, caller) in &known.keys {
            if is_same(&record.sha256, &hash) {
                found = Some(caller.clone());
            }
        }
        if self.first.as_ref().is_some_and(|first| is_same(first, &hash)) {
            found = Some(Caller::all("first"));
        }
        found.ok_or_else(refused)
    }

    /// A page of another origin, in a browser here, may ask for nothing: browsers send what they know of this server along.
    fn check_origin(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
        let (origin, host) = (origin.to_str().unwrap_or("null"), headers.get(header::HOST).and_then(|host| host.to_str().ok()));
        // A proxy may speak TLS for this one, so either scheme of the same host is its own.
        let is_own = host.is_some_and(|host| origin.split_once("://").is_some_and(|(_, origin)| origin == host));
        if is_own || self.is_allowed(origin) {
            return Ok(());
        }
        Err(Refusal::new(StatusCode::FORBIDDEN, "origin", format!("pages of {origin} may not ask; cors-origins says which do")))
    }

    /// Whether pages of this origin may ask, by the setting `cors-origins`.
    pub(crate) fn is_allowed(&self, origin: &str) -> bool {
        self.origins.iter().any(|allowed| allowed == origin)
    }
}

impl Known {
    fn read(data: &Path) -> Result<Known, KeyError> {
        let written = files::written(&data.join(FILE));
        let caller = |key: &KeyRecord| Caller { name: key.name.clone(), role: key.role, collections: key.collections.clone() };
        let keys = KeyFile::look(data)?.keys.into_iter().map(|key| (key.clone(), caller(&key))).collect();
        Ok(Known { keys, written })
    }
}

/// Whether a host is this machine, by a name that no page of another can have.
fn is_here(host: &str) -> bool {
    let host = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())).map_or(host, |(host, _)| host);
    matches!(host, "localhost" | "127.0.0.1" | "[::1]" | "::1")
}

/// The password of `user:password` in base64.
fn password(basic: &str) -> Option<String> {
    let text = String::from_utf8(STANDARD.decode(basic).ok()?).ok()?;
    text.split_once(':').map(|(_, password)| password.to_string())
}

/// Compared in a time that depends on lengths alone.
fn is_same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_known_by_its_hash() {
        let data = tempfile::tempdir().unwrap();
        let mut file = KeyFile::open(data.path()).unwrap();
        let key = file.create("app", Role::Write, Some(vec!["docs".into()])).unwrap();
        assert!(file.create("app", Role::Read, None).is_err() && file.create("../x", Role::Read, None).is_err());
        let text = fs::read_to_string(data.path().join(FILE)).unwrap();
        assert!(!text.contains(&key[3..]));
        let access = Access::open(data.path(), None, true, Vec::new()).unwrap();
        let with = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            access.caller(&headers)
        };
        let caller = with("api-key", &key).unwrap();
        assert!(caller.may(Role::Write).is_ok() && caller.may(Role::Admin).is_err());
        assert!(caller.sees("docs") && !caller.sees("other") && caller.sees_all().is_err());
        assert!(with("authorization", &format!("Bearer {key}")).is_ok());
        for wrong in ["", "rx_", &key[1..], &key.to_uppercase()] {
            assert_eq!(with("api-key", wrong).unwrap_err().status, StatusCode::UNAUTHORIZED, "{wrong}");
        }
        assert!(file.revoke("app").unwrap() && !file.revoke("app").unwrap());
    }

    #[test]
    fn a_browser_brings_the_key_as_a_password() {
        assert_eq!(password("dXNlcjpzZWNyZXQ="), Some("secret".into()));
        assert_eq!(password("OnM="), Some("s".into()));
        assert!(password("!!!").is_none() && password("c2VjcmV0").is_none());
    }

    #[test]
    fn a_page_of_another_origin_may_not_ask() {
        let data = tempfile::tempdir().unwrap();
        let access = Access::open(data.path(), None, true, vec!["https://app.example.com".into()]).unwrap();
        let from = |origin: &str, host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ORIGIN, origin.parse().unwrap());
            headers.insert(header::HOST, host.parse().unwrap());
            access.caller(&headers).is_ok()
        };
        assert!(from("http://localhost:6333", "localhost:6333") && from("https://app.example.com", "localhost:6333"));
        assert!(!from("https://evil.example", "localhost:6333") && !from("null", "localhost:6333"));
        // A name that somebody else's page resolves to this machine.
        assert!(!from("http://evil.example:6333", "evil.example:6333"));
    }
}
