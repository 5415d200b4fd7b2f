//! What jobs do.

use super::{Control, Measure, Progress, child};
use crate::{ImportFiles, Server, collections::Served, files, points::search::LIST_SIZE, reply::Refusal, route::Call};
use roxanne_core::format::manifest::Manifest;
use roxanne_engine::{
    Index,
    collection::{CollectionError, Previous, PromoteMode, Promotion},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    cell::Cell,
    fs,
    path::PathBuf,
    sync::{Arc, atomic::Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

/// Where indexes lie that shall become the base of a collection, and vectors to build them of, within the data directory.
pub(super) const INCOMING: &str = "incoming";
/// The form of a name, as `files::is_name` says it.
const NAME: &str = "^[A-Za-z0-9_-][A-Za-z0-9_.-]*$";
/// Seconds between refusing new work at /readyz and refusing searches, unless said; at most; and between two looks at them.
const DRAIN: u64 = 15;
const LONGEST_DRAIN: u64 = 600;
const LOOK: Duration = Duration::from_millis(100);
/// Vectors of a base that a gate looks for, unless said.
const GATE_QUERIES: usize = 100;

/// What a job does; generations are said in hexadecimal digits, as no number of JSON holds them.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Work {
    /// Makes an index that lies in `incoming` the base.
    Promote {
        collection: String,
        index: String,
        sequence: u64,
        keep_previous: bool,
        gate: Option<Gate>,
        generation: String,
        #[serde(flatten)]
        way: Way,
    },
    /// Goes back to the base before.
    Rollback {
        collection: String,
        generation: Option<String>,
        #[serde(flatten)]
        way: Way,
    },
    /// Builds a base of all points.
    Rebuild { collection: String },
    /// Copies the collection.
    Snapshot { collection: String },
    /// Recall and speed at several list sizes.
    Measure(Measure),
    /// Builds an index of a file, in `incoming`.
    Build { input: String, output: String, keys: Option<String>, arguments: Vec<String> },
    /// Checks every byte of an index in `incoming`.
    Verify { index: String },
    /// Puts the vectors of a file in `incoming`.
    Import { collection: String, vectors: String, keys: Option<String>, payload: Option<String> },
}

/// What an index must reach before it becomes the base.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Gate {
    /// Of a search with a list of 100 for vectors of its own, against all of them.
    #[schemars(range(min = 0.0, max = 1.0))]
    recall_at_10: f64,
    /// Vectors that are looked for; 100 unless said.
    #[schemars(range(min = 1, max = 1000))]
    queries: Option<usize>,
}

/// In whose memory a base takes the place of another.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Mode {
    /// Both are in memory for a moment.
    Overlap,
    /// The old one is read from flash while the new one is loaded.
    Half,
    /// The old one leaves first; searches are refused meanwhile.
    Drain,
}

/// How a base takes the place of another.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Way {
    /// In whose memory; as the server was started unless said.
    mode: Option<Mode>,
    /// How long /readyz refuses before searches are, under `drain`: for others to take over.
    drain_seconds: Option<u64>,
}

/// Which base comes back, and how.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RollbackBody {
    /// In whose memory; as the server was started unless said.
    mode: Option<Mode>,
    /// As for a promotion.
    #[schemars(range(max = 600))]
    drain_seconds: Option<u64>,
}

impl Way {
    fn checked(mode: Option<Mode>, drain_seconds: Option<u64>) -> Result<Way, Refusal> {
        match drain_seconds.filter(|&seconds| seconds > LONGEST_DRAIN) {
            Some(seconds) => Err(Refusal::out_of_range("drain_seconds", seconds as usize, 0, LONGEST_DRAIN as usize)),
            None => Ok(Way { mode, drain_seconds }),
        }
    }

    fn mode(self, server: &Server) -> PromoteMode {
        self.mode.map_or(server.collections.mode(), |mode| match mode {
            Mode::Overlap => PromoteMode::Overlap,
            Mode::Half => PromoteMode::Half,
            Mode::Drain => PromoteMode::Drain,
        })
    }

    /// Before searches are refused, others have the time to take over.
    fn notice(self, served: &Served, control: &Control) -> Result<(), String> {
        served.leaving.store(true, Relaxed);
        let (begin, total) = (Instant::now(), self.drain_seconds.unwrap_or(DRAIN));
        while begin.elapsed() < Duration::from_secs(total) {
            if control.stopped() {
                return Err("it was stopped".to_string());
            }
            let done = begin.elapsed().as_secs();
            control.say(Progress { phase: "drain".into(), done, total, unit: "seconds".into(), ..Progress::default() });
            thread::sleep(LOOK);
        }
        Ok(())
    }
}

/// Says that a collection is here to stay again.
struct Back<'a>(&'a Served);

impl Drop for Back<'_> {
    fn drop(&mut self) {
        self.0.leaving.store(false, Relaxed);
    }
}

/// Which index becomes the base.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PromoteBody {
    /// The name of a directory in DATA/incoming.
    #[schemars(regex(pattern = NAME), length(max = 200))]
    index: String,
    /// The batch after which its vectors were read.
    sequence: u64,
    /// Whether the base before is kept for a rollback; true unless said.
    keep_previous: Option<bool>,
    gate: Option<Gate>,
    /// In whose memory; as the server was started unless said.
    mode: Option<Mode>,
    /// How long /readyz refuses before searches are, under `drain`: for others to take over. 15 unless said.
    #[schemars(range(max = 600))]
    drain_seconds: Option<u64>,
}

/// Of which file an index is built, and how.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BuildBody {
    /// The name of a file in DATA/incoming.
    #[schemars(regex(pattern = NAME), length(max = 200))]
    input: String,
    /// The name of the index, in DATA/incoming.
    #[schemars(regex(pattern = NAME), length(max = 200))]
    output: String,
    /// l2, cos, dot, l1 or hamming.
    metric: Metric,
    /// The name of a file of keys in DATA/incoming: a key a line.
    keys: Option<String>,
    /// Keys are texts, as ids of collections made over HTTP are; true unless said.
    string_keys: Option<bool>,
    /// Points that it has room for.
    capacity: Option<u64>,
    /// Neighbors of a node at most (R).
    #[schemars(range(min = 4, max = 512))]
    degree: Option<u32>,
    /// Where: auto, cpu, cuda:0, wgpu.
    device: Option<String>,
    /// Most memory, such as 8G.
    ram: Option<String>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Metric {
    L2,
    Cos,
    Dot,
    L1,
    Hamming,
}

/// Which vectors are put.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImportBody {
    /// The name of a file of vectors in DATA/incoming: fbin, npy, and what else `roxanne insert` reads.
    #[schemars(regex(pattern = NAME), length(max = 200))]
    vectors: String,
    /// The name of a file of ids in DATA/incoming, one a line; the rows' numbers unless said.
    keys: Option<String>,
    /// The name of a file of payloads in DATA/incoming: a JSON object a line.
    payload: Option<String>,
}

/// Which index is checked.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VerifyBody {
    /// The name of a directory in DATA/incoming.
    #[schemars(regex(pattern = NAME), length(max = 200))]
    index: String,
}

fn in_hex(generation: u64) -> String {
    format!("{generation:016x}")
}

/// The path of something in `incoming`, which must be there.
fn incoming(server: &Server, field: &str, name: &str) -> Result<PathBuf, Refusal> {
    if !files::is_name(name) {
        return Err(Refusal::bad("bad_name", format!("{field}: {}", files::NAMES)).field(field));
    }
    let path = server.path.join(INCOMING).join(name);
    if path.exists() { Ok(path) } else { Err(Refusal::not_found(format!("{name} in DATA/incoming")).field(field)) }
}

/// What lies in `incoming`, by name.
pub(crate) fn incoming_list(server: &Server) -> Value {
    let entries = fs::read_dir(server.path.join(INCOMING)).into_iter().flatten().filter_map(Result::ok);
    let mut shown: Vec<(String, Value)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok().filter(|name| files::is_name(name))?;
            let metadata = entry.metadata().ok()?;
            let manifest = metadata.is_dir().then(|| Manifest::read(&entry.path()).ok()).flatten();
            let bytes = manifest.as_ref().map_or(metadata.len(), Manifest::total_bytes);
            Some((name.clone(), json!({"name": name, "is_index": manifest.is_some(), "bytes": bytes})))
        })
        .collect();
    shown.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    shown.into_iter().map(|(_, shown)| shown).collect()
}

impl Work {
    /// `POST promote`.
    pub(crate) fn promotion(call: &Call, body: PromoteBody) -> Result<Work, Refusal> {
        // What lies there is of all collections.
        call.caller.sees_all()?;
        let path = incoming(call.server, "index", &body.index)?;
        let rejected = |error: &dyn std::fmt::Display| {
            Refusal::conflict("gen_rejected", files::without(&format!("{}: {error}", body.index), &call.server.data)).field("index")
        };
        let generation = in_hex(Manifest::read(&path).map_err(|error| rejected(&error))?.generation);
        if body.gate.as_ref().is_some_and(|gate| !(0.0..=1.0).contains(&gate.recall_at_10)) {
            return Err(Refusal::bad("bad_input", "gate.recall_at_10: it is 0 to 1").field("gate.recall_at_10"));
        }
        if let Some(queries) = body.gate.as_ref().and_then(|gate| gate.queries).filter(|queries| !(1..=1000).contains(queries)) {
            return Err(Refusal::out_of_range("gate.queries", queries, 1, 1000));
        }
        Ok(Work::Promote {
            collection: call.own_name()?,
            index: body.index,
            sequence: body.sequence,
            keep_previous: body.keep_previous.unwrap_or(true),
            gate: body.gate,
            generation,
            way: Way::checked(body.mode, body.drain_seconds)?,
        })
    }

    /// `POST rollback`.
    pub(crate) fn rollback(call: &Call, body: RollbackBody) -> Result<Work, Refusal> {
        let served = call.served()?;
        if served.collection.previous()?.is_none() {
            return Err(CollectionError::NoPrevious { path: served.collection.path().to_path_buf() }.into());
        }
        let way = Way::checked(body.mode, body.drain_seconds)?;
        Ok(Work::Rollback { collection: call.own_name()?, generation: served.collection.base_generation().map(in_hex), way })
    }

    /// `POST rebuild`.
    pub(crate) fn rebuild(call: &Call) -> Result<Work, Refusal> {
        let served = call.served()?;
        if served.rebuild.is_none() {
            return Err(Refusal::not_there("building within this server"));
        }
        if served.collection.count() == 0 {
            return Err(Refusal::conflict("empty", "there are no points to build a base of"));
        }
        Ok(Work::Rebuild { collection: call.own_name()? })
    }

    /// `POST /v1/builds`.
    pub(crate) fn build(call: &Call, body: &BuildBody) -> Result<Work, Refusal> {
        let server = call.server;
        incoming(server, "input", &body.input)?;
        if !files::is_name(&body.output) {
            return Err(Refusal::bad("bad_name", format!("output: {}", files::NAMES)).field("output"));
        }
        if server.path.join(INCOMING).join(&body.output).exists() {
            return Err(Refusal::conflict("exists", format!("{} is there already in DATA/incoming", body.output)).field("output"));
        }
        let metric = ["l2", "cos", "dot", "l1", "hamming"][body.metric as usize];
        let mut arguments = vec!["--metric".to_string(), metric.to_string()];
        let mut add = |name: &str, value: String| arguments.extend([name.to_string(), value]);
        body.keys.as_ref().map_or(Ok(()), |keys| incoming(server, "keys", keys).map(drop))?;
        body.capacity.into_iter().for_each(|capacity| add("--capacity", capacity.to_string()));
        body.degree.into_iter().for_each(|degree| add("--degree", degree.to_string()));
        for (field, option, value) in [("device", "--device", &body.device), ("ram", "--ram", &body.ram)] {
            let Some(value) = value else { continue };
            // It is an argument, not another option.
            if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'.')) {
                return Err(Refusal::bad("bad_input", format!("{field}: {value:?} is none")).field(field));
            }
            add(option, value.clone());
        }
        if body.keys.is_some() && body.string_keys.unwrap_or(true) {
            arguments.push("--string-keys".to_string());
        }
        Ok(Work::Build { input: body.input.clone(), output: body.output.clone(), keys: body.keys.clone(), arguments })
    }

    /// `POST /v1/verifications`.
    pub(crate) fn verification(call: &Call, body: VerifyBody) -> Result<Work, Refusal> {
        incoming(call.server, "index", &body.index)?;
        Ok(Work::Verify { index: body.index })
    }

    /// `POST import`.
    pub(crate) fn import(call: &Call, body: ImportBody) -> Result<Work, Refusal> {
        call.served()?;
        call.caller.sees_all()?;
        if call.server.import.is_none() {
            return Err(Refusal::not_there("importing within this server"));
        }
        incoming(call.server, "vectors", &body.vectors)?;
        for (field, name) in [("keys", &body.keys), ("payload", &body.payload)] {
            name.as_ref().map_or(Ok(()), |name| incoming(call.server, field, name).map(drop))?;
        }
        Ok(Work::Import { collection: call.own_name()?, vectors: body.vectors, keys: body.keys, payload: body.payload })
    }

    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Work::Promote { .. } => "promote",
            Work::Rollback { .. } => "rollback",
            Work::Rebuild { .. } => "rebuild",
            Work::Snapshot { .. } => "snapshot",
            Work::Measure(_) => "measure",
            Work::Build { .. } => "build",
            Work::Verify { .. } => "verify",
            Work::Import { .. } => "import",
        }
    }

    /// The collection that it is about.
    pub(crate) fn collection(&self) -> Option<&str> {
        match self {
            Work::Promote { collection, .. } | Work::Rollback { collection, .. } | Work::Rebuild { collection } => Some(collection),
            Work::Snapshot { collection } | Work::Import { collection, .. } | Work::Measure(Measure { collection, .. }) => Some(collection),
            Work::Build { .. } | Work::Verify { .. } => None,
        }
    }

    /// Does it; it may have been begun before, by a server that ended meanwhile.
    pub(super) fn run(&self, server: &Arc<Server>, control: &Control, attempt: u32) -> Result<Option<Value>, String> {
        let told = |refusal: Refusal| refusal.detail;
        let served = |name: &str| server.collections.get(name).map_err(told);
        match self {
            Work::Promote { collection, index, sequence, keep_previous, gate, generation, way } => {
                let previous = if *keep_previous { Previous::Keep } else { Previous::Remove };
                let served = served(collection)?;
                let is_there = |generation: &str| served.collection.base_generation().map(in_hex).as_deref() == Some(generation);
                if is_there(generation) {
                    return Ok(None);
                }
                let path = server.path.join(INCOMING).join(index);
                // One that was moved to its place and never counted can be promoted from there.
                let moved = served.collection.path().join(format!("base-{generation}"));
                let path = if path.exists() { path } else { moved };
                // Another may lie there by now.
                let found = Manifest::read(&path).map(|manifest| in_hex(manifest.generation)).map_err(|error| error.to_string())?;
                if found != *generation {
                    return Err(format!("{index} in DATA/incoming is another index by now"));
                }
                let (_back, recall) = (Back(&served), Cell::new(None));
                let notice = || way.notice(&served, control);
                let judge =
                    |index: &Index| gate.as_ref().map_or(Ok(()), |gate| pass(gate, index, control).map(|found| recall.set(Some(found))));
                let promotion = Promotion { previous, mode: way.mode(server), notice: Some(&notice), gate: Some(&judge) };
                served.collection.promote_with(&path, *sequence, &promotion).map_err(|error| told(error.into()))?;
                Ok(recall.get().map(|recall| json!({"recall_at_10": recall})))
            }
            Work::Rollback { collection, generation, way } => {
                let served = served(collection)?;
                if served.collection.base_generation().map(in_hex) == *generation {
                    let _back = Back(&served);
                    let notice = || way.notice(&served, control);
                    served.collection.rollback_with(way.mode(server), Some(&notice)).map_err(|error| told(error.into()))?;
                } else if attempt == 1 {
                    return Err("another base has come meanwhile".to_string());
                }
                Ok(None)
            }
            Work::Rebuild { collection } => {
                let served: Arc<Served> = served(collection)?;
                let rebuild = served.rebuild.as_ref().ok_or("there is no builder")?;
                control.say(Progress {
                    phase: "build".into(),
                    total: served.collection.count(),
                    unit: "points".into(),
                    ..Progress::default()
                });
                rebuild(&served.collection, &control.stop).map(|()| None).map_err(|error| {
                    tracing::error!(%error, collection, "a build failed");
                    "the build failed; the server's log says how".to_string()
                })
            }
            Work::Snapshot { collection } => {
                let served = served(collection)?;
                let made = server.snapshots.create(collection, &served).map_err(told)?;
                Ok(Some(json!({"name": made.name})))
            }
            Work::Measure(measure) => measure.run(&*served(&measure.collection)?, control).map(Some),
            Work::Build { input, output, keys, arguments } => {
                let directory = server.path.join(INCOMING);
                let mut all = vec!["build".to_string(), directory.join(input).display().to_string()];
                all.extend(["-o".to_string(), directory.join(output).display().to_string(), "--progress".to_string(), "json".to_string()]);
                all.extend_from_slice(arguments);
                all.extend(keys.iter().flat_map(|keys| ["--keys".to_string(), directory.join(keys).display().to_string()]));
                child::run(server.program()?, &all, control).map(|_| None)
            }
            Work::Import { collection, vectors, keys, payload } => {
                let served = served(collection)?;
                let import = server.import.as_ref().ok_or("nothing imports here")?;
                let at = |name: &String| server.path.join(INCOMING).join(name);
                let files = ImportFiles { vectors: at(vectors), keys: keys.as_ref().map(at), payload: payload.as_ref().map(at) };
                let rows = import(&served.collection, &files, &mut |done, total| {
                    control.say(Progress { phase: "import".into(), done, total, unit: "rows".into(), ..Progress::default() });
                    !control.stopped()
                })?;
                Ok(Some(json!({"rows": rows})))
            }
            Work::Verify { index } => {
                let path = server.path.join(INCOMING).join(index).display().to_string();
                let said = child::run(server.program()?, &["verify".to_string(), path, "--json".to_string()], control)?;
                Ok(serde_json::from_str(&said).ok())
            }
        }
    }
}

/// Measures whether an index passes a gate; gives its recall.
fn pass(gate: &Gate, index: &Index, control: &Control) -> Result<f64, String> {
    let mut done = 0;
    let mut each = |total: u64| {
        control.say(Progress { phase: "gate".into(), done, total, unit: "queries".into(), ..Progress::default() });
        done += 1;
        !control.stopped()
    };
    let recall = index.own_recall(gate.queries.unwrap_or(GATE_QUERIES) as u64, LIST_SIZE, &mut each);
    let recall = recall.map_err(|error| format!("the gate could not be measured: {error}"))?.ok_or("it was stopped")?;
    if recall >= gate.recall_at_10 {
        Ok(recall)
    } else {
        Err(format!("its recall@10 is {recall:.4}, the gate asks for {}; the old base serves", gate.recall_at_10))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_that_an_older_server_wrote_are_read() {
        let promote = r#"{"kind": "promote", "collection": "c", "index": "i", "sequence": 7, "keep_previous": true, "gate": {"recall_at_10": 0.9}, "generation": "0f"}"#;
        let Work::Promote { way, sequence: 7, .. } = serde_json::from_str(promote).unwrap() else { panic!("a promotion") };
        assert!(way.mode.is_none() && way.drain_seconds.is_none());
        let rollback = r#"{"kind": "rollback", "collection": "c", "generation": null}"#;
        assert!(matches!(serde_json::from_str(rollback).unwrap(), Work::Rollback { generation: None, .. }));
        let half = serde_json::to_string(&Work::Rollback {
            collection: "c".into(),
            generation: None,
            way: Way { mode: Some(Mode::Half), drain_seconds: Some(3) },
        });
        assert_eq!(half.unwrap(), r#"{"kind":"rollback","collection":"c","generation":null,"mode":"half","drain_seconds":3}"#);
    }
}
