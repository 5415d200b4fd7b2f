//! What `serve` can be told: by a flag, else by a variable (`ROXANNE_` and the flag's name), else by the configuration file. One list of names serves
//! all three.

use crate::{failure::Failure, parse};
use roxanne_engine::collection::PromoteMode;
use serde::{Deserialize, Deserializer, de::Error};
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// See the module. `None` is what nobody said.
#[derive(Clone, Debug, Default, clap::Args, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Settings {
    /// The directory of collections; made where it is not there [default: data]
    #[arg(long, env = "ROXANNE_DATA", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Where to listen [default: 127.0.0.1:6333]
    #[arg(long, env = "ROXANNE_BIND", value_name = "ADDR:PORT")]
    pub(crate) bind: Option<SocketAddr>,
    /// Listen beyond this machine without a key
    #[arg(long, env = "ROXANNE_INSECURE", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "true|false")]
    pub(crate) insecure: Option<bool>,
    /// Most memory to serve the base of a collection, such as 8G: what codes leave of it keeps pages; refused where codes alone take more
    /// [default: a quarter of the memory that this process may have]
    #[arg(long, env = "ROXANNE_RAM", value_name = "SIZE", value_parser = parse::size)]
    #[serde(default, deserialize_with = "size")]
    pub(crate) ram: Option<u64>,
    /// Most memory of a collection's vectors that are in no base yet [default: 256M]
    #[arg(long, env = "ROXANNE_DELTA_RAM", value_name = "SIZE", value_parser = parse::size)]
    #[serde(default, deserialize_with = "size")]
    pub(crate) delta_ram: Option<u64>,
    /// Most memory of a build of a base [default: 2G]
    #[arg(long, env = "ROXANNE_BUILD_RAM", value_name = "SIZE", value_parser = parse::size)]
    #[serde(default, deserialize_with = "size")]
    pub(crate) build_ram: Option<u64>,
    /// In whose memory a base takes the place of another: overlap has both for a moment, half reads the old one from flash, drain refuses searches meanwhile
    /// [default: overlap]
    #[arg(long, env = "ROXANNE_PROMOTE_MODE", value_name = "overlap|half|drain")]
    #[serde(default, deserialize_with = "mode")]
    pub(crate) promote_mode: Option<PromoteMode>,
    /// Speak TLS: a certificate and those it hangs on, in PEM; read again when it changes
    #[arg(long, env = "ROXANNE_TLS_CERT", value_name = "FILE")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its private key, in PEM
    #[arg(long, env = "ROXANNE_TLS_KEY", value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Pages of other origins that may ask, such as https://app.example.com
    #[arg(long, env = "ROXANNE_CORS_ORIGINS", value_name = "ORIGIN,...", value_delimiter = ',')]
    pub(crate) cors_origins: Option<Vec<String>>,
    /// How to log [default: text]
    #[arg(long, env = "ROXANNE_LOG_FORMAT", value_enum)]
    pub(crate) log_format: Option<LogFormat>,
    /// What to log [default: info]
    #[arg(long, env = "ROXANNE_LOG_LEVEL", value_enum)]
    pub(crate) log_level: Option<LogLevel>,
    /// Searches that took so long are logged; 0 for none [default: 500ms]
    #[arg(long, env = "ROXANNE_SLOW_QUERY", value_name = "TIME", value_parser = parse::duration)]
    #[serde(default, deserialize_with = "duration")]
    pub(crate) slow_query: Option<Duration>,
    /// Send traces of requests to a collector of OpenTelemetry, such as http://127.0.0.1:4318 [default: none]
    #[arg(long, env = "ROXANNE_OTLP_ENDPOINT", value_name = "URL")]
    pub(crate) otlp_endpoint: Option<String>,
    /// How often recall is measured, in the background, by queries that were asked; 0 for never [default: 60s]
    #[arg(long, env = "ROXANNE_CANARY_EVERY", value_name = "TIME", value_parser = parse::duration)]
    #[serde(default, deserialize_with = "duration")]
    pub(crate) canary_every: Option<Duration>,
}

/// How to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// Lines for people.
    Text,
    /// An object a line.
    Json,
}

/// What to log: so much, and what is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogLevel {
    /// What failed.
    Error,
    /// What may fail soon, and slow searches.
    Warn,
    /// What changed.
    Info,
    /// Every request.
    Debug,
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    parse::size(&String::deserialize(deserializer)?).map(Some).map_err(D::Error::custom)
}

fn mode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PromoteMode>, D::Error> {
    String::deserialize(deserializer)?.parse().map(Some).map_err(D::Error::custom)
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    parse::duration(&String::deserialize(deserializer)?).map(Some).map_err(D::Error::custom)
}

impl Settings {
    /// Those of a file.
    pub(crate) fn read(path: &Path) -> Result<Settings, Failure> {
        let text = fs::read_to_string(path).map_err(Failure::io(path, "read the configuration"))?;
        let settings: Settings = toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            Failure::input(format!("{}: line {line}: {}", path.display(), error.message()))
        })?;
        settings.check().map_err(|failure| failure.at(path.display()))?;
        Ok(settings)
    }

    /// These, and what they do not say from `file`.
    pub(crate) fn or(self, file: Settings) -> Settings {
        Settings {
            data: self.data.or(file.data),
            bind: self.bind.or(file.bind),
            insecure: self.insecure.or(file.insecure),
            ram: self.ram.or(file.ram),
            delta_ram: self.delta_ram.or(file.delta_ram),
            build_ram: self.build_ram.or(file.build_ram),
            promote_mode: self.promote_mode.or(file.promote_mode),
            tls_cert: self.tls_cert.or(file.tls_cert),
            tls_key: self.tls_key.or(file.tls_key),
            cors_origins: self.cors_origins.or(file.cors_origins),
            log_format: self.log_format.or(file.log_format),
            log_level: self.log_level.or(file.log_level),
            slow_query: self.slow_query.or(file.slow_query),
            otlp_endpoint: self.otlp_endpoint.or(file.otlp_endpoint),
            canary_every: self.canary_every.or(file.canary_every),
        }
    }

    /// Refuses what makes no sense together.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.tls_cert.is_some() != self.tls_key.is_some() {
            return Err(Failure::usage("tls-cert and tls-key go together: one of them is missing"));
        }
        let is_origin = |origin: &&String| {
            let host = origin.strip_prefix("https://").or(origin.strip_prefix("http://"));
            host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '*', ' ']))
        };
        match self.cors_origins.iter().flatten().find(|origin| !is_origin(origin)) {
            Some(origin) => Err(Failure::usage(format!("cors-origins: {origin:?} is none; https://app.example.com is one"))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("roxanne.toml");
        fs::write(&path, text).unwrap();
        Settings::read(&path).map_err(|failure| failure.line())
    }

    #[test]
    fn a_bad_line_is_named() {
        assert!(read("data = \"a\"\n\nbnd = \"127.0.0.1:1\"\n").unwrap_err().contains("line 3: unknown field `bnd`"));
        assert!(read("ram = \"8G\"\ndelta-ram = \"many\"\n").unwrap_err().contains("line 2: write a whole number"));
        assert!(read("bind = 7\n").unwrap_err().contains("line 1"));
        assert!(read("tls-cert = \"a.pem\"\n").unwrap_err().contains("tls-key"));
        assert!(read("cors-origins = [\"*\"]\n").unwrap_err().contains("is none"));
        assert!(read("api-key = \"secret\"\n").unwrap_err().contains("unknown field"));
    }

    #[test]
    fn what_is_nearer_wins() {
        let file = read("ram = \"8G\"\nslow-query = \"2s\"\n").unwrap();
        let flags = Settings { ram: Some(1), ..Settings::default() };
        let both = flags.or(file);
        assert_eq!((both.ram, both.slow_query, both.data), (Some(1), Some(Duration::from_secs(2)), None));
    }
}
