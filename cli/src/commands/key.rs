//! `key`: who may ask a server. It reads the file again, and need not be told.

use super::print_json;
use crate::failure::Failure;
use roxanne_core::ErrorClass;
use roxanne_server::{KeyError, KeyFile, Role};
use serde_json::json;
use std::{
    io::Write,
    path::{Path, PathBuf},
};

/// Make, list and revoke keys of a server
#[derive(clap::Subcommand)]
#[command(after_help = "Examples:
  roxanne key create app --role write --collections docs --data /srv/vectors      prints the key, once
  roxanne key list --data /srv/vectors
  roxanne key revoke app --data /srv/vectors

read: search and look. write: put and delete points, too. admin: all. A running server takes changes up within seconds; where there is a file of keys
it asks everybody for one.")]
pub(crate) enum Args {
    /// Make a key and print it: it is kept nowhere, only its hash is
    Create {
        /// What people call it
        name: String,
        /// read, write or admin
        #[arg(long)]
        role: Role,
        /// Collections (or aliases) that it is for; all unless said
        #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
        collections: Option<Vec<String>>,
        #[command(flatten)]
        of: Of,
    },
    /// Names, roles and collections
    List {
        #[command(flatten)]
        of: Of,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Take a key back
    Revoke {
        /// Its name
        name: String,
        #[command(flatten)]
        of: Of,
    },
}

/// Of which server.
#[derive(clap::Args)]
pub(crate) struct Of {
    /// The server's directory
    #[arg(long, env = "ROXANNE_DATA", value_name = "DIR", default_value = "data")]
    data: PathBuf,
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Failure {
        let class = match &error {
            KeyError::Io { error, .. } => ErrorClass::of_io(error),
            KeyError::Name(_) => ErrorClass::Usage,
        };
        Failure::new(class, error)
    }
}

fn open(data: &Path) -> Result<KeyFile, Failure> {
    if !data.is_dir() {
        return Err(Failure::usage(format!(
            "{}: there is no such directory; `roxanne serve` makes it, or name another with --data",
            data.display()
        )));
    }
    Ok(KeyFile::open(data)?)
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    match args {
        Args::Create { name, role, collections, of } => {
            let key = open(&of.data)?.create(name, *role, collections.clone())?;
            Ok(writeln!(out, "{key}")?)
        }
        Args::List { of, json } => {
            let file = KeyFile::look(&of.data)?;
            if *json {
                let keys = file
                    .keys()
                    .iter()
                    .map(|key| json!({"name": key.name, "role": key.role.name(), "collections": key.collections, "created": key.created}));
                return Ok(print_json(out, &json!(keys.collect::<Vec<_>>()))?);
            }
            for key in file.keys() {
                let collections = key.collections.as_ref().map_or("all collections".to_string(), |names| names.join(", "));
                writeln!(out, "{:<20} {:<6} {}  {collections}", key.name, key.role.name(), key.created)?;
            }
            Ok(())
        }
        Args::Revoke { name, of } => {
            if !open(&of.data)?.revoke(name)? {
                return Err(Failure::usage(format!("there is no key {name}")));
            }
            Ok(())
        }
    }
}
