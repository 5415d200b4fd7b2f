//! What a route is: who may ask for it, what it takes, what it gives, and how it is answered. `routes` is the table of them.

use crate::{
    Server,
    access::{Caller, Role},
    body,
    collections::Served,
    dashboard,
    jobs::{self, Work},
    reply::{Refusal, envelope},
};
use hyper::{Method, StatusCode};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// A request, once it is known who asks for what.
pub(crate) struct Call<'a> {
    pub(crate) server: &'a Arc<Server>,
    pub(crate) request_id: &'a str,
    pub(crate) caller: &'a Caller,
    /// What stands where the path has braces.
    pub(crate) names: &'a [String],
    pub(crate) query: Option<&'a str>,
    pub(crate) start: Instant,
    /// Others wait for this thread: what is not over soon is done by another.
    pub(crate) at_once: bool,
}

impl Call<'_> {
    /// What stands in the path's braces of this number.
    pub(crate) fn name(&self, number: usize) -> &str {
        self.names.get(number).map_or("", String::as_str)
    }

    /// The collection that the path names first, or of which it names an alias.
    pub(crate) fn served(&self) -> Result<Arc<Served>, Refusal> {
        self.server.collections.get(self.name(0))
    }

    /// Its own name.
    pub(crate) fn own_name(&self) -> Result<String, Refusal> {
        self.server.collections.own_name(self.name(0))
    }

    /// Whether the caller may see the collection of this name.
    pub(crate) fn sees(&self, own: &str) -> bool {
        self.server.collections.may_see(self.caller, own)
    }

    /// A number behind the question mark.
    pub(crate) fn number(&self, name: &str) -> Result<Option<usize>, Refusal> {
        number(self.query, name)
    }

    /// How long a search may take, where `timeout` says so.
    pub(crate) fn deadline(&self) -> Result<Option<Duration>, Refusal> {
        let time = self.number("timeout")?.map_or(LONGEST, |seconds| Duration::from_secs(seconds as u64));
        match time.checked_sub(self.start.elapsed()) {
            Some(left) => Ok(Some(left)),
            None => Err(late()),
        }
    }

    /// Until when.
    pub(crate) fn until(&self) -> Result<Option<Instant>, Refusal> {
        Ok(self.deadline()?.map(|left| Instant::now() + left))
    }
}

/// How long a request's searches may take, unless it says.
const LONGEST: Duration = Duration::from_secs(60);

/// A search that took longer than it may.
pub(crate) fn late() -> Refusal {
    Refusal::new(StatusCode::GATEWAY_TIMEOUT, "deadline", "the search did not end in the time given")
}

type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// What a request brings.
pub(crate) enum Takes {
    Nothing,
    /// JSON, and whether there may be none of it.
    Json(SchemaOf, bool),
    /// Rows of little-endian f32.
    Rows,
}

/// What goes back.
pub(crate) enum Gives {
    /// In the envelope.
    Json(SchemaOf),
    /// As it is, of this type.
    Bare(&'static str),
}

/// A parameter behind the question mark: a number.
pub(crate) struct Parameter {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) least: usize,
    pub(crate) most: usize,
}

type Answer = Box<dyn Fn(&Call, &[u8]) -> Result<Vec<u8>, Refusal> + Send + Sync>;

fn number(query: Option<&str>, name: &str) -> Result<Option<usize>, Refusal> {
    let given = query.and_then(|query| query.split('&').find_map(|part| part.strip_prefix(name)?.strip_prefix('=')));
    given.map(str::parse).transpose().map_err(|_| Refusal::bad("bad_input", format!("{name}: a whole number is expected")).field(name))
}

impl Parameter {
    /// Refuses a number that is out of its range.
    pub(crate) fn check(&self, query: Option<&str>) -> Result<(), Refusal> {
        match number(query, self.name)? {
            Some(got) if !(self.least..=self.most).contains(&got) => Err(Refusal::out_of_range(self.name, got, self.least, self.most)),
            _ => Ok(()),
        }
    }
}

/// How a request is answered.
pub(crate) enum Run {
    /// By the engine, which blocks.
    Engine(Answer),
    /// By the engine, which is asked at once first where the answer may be at hand.
    Search(Answer),
    /// At once.
    Now(Answer),
    /// When a job has ended.
    Wait,
    /// By a job's changes, as they come.
    Events,
}

/// A row of the table.
pub(crate) struct Route {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// What a key must allow; none for who has none.
    pub(crate) role: Option<Role>,
    /// Which collections it must be for.
    pub(crate) scope: Scope,
    pub(crate) takes: Takes,
    pub(crate) gives: Gives,
    pub(crate) status: StatusCode,
    pub(crate) parameters: &'static [Parameter],
    pub(crate) run: Run,
}

/// Which collections a route is about.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Scope {
    /// The one in its path.
    One,
    /// Those that the caller may see: it looks itself.
    Seen,
    /// All of them.
    All,
}

impl Route {
    /// The part of the API that it belongs to.
    pub(crate) fn tag(&self) -> &'static str {
        let of = ["/points", "/snapshots", "/aliases", "/v1/", "/collections"].iter().zip([
            "points",
            "snapshots",
            "aliases",
            "v1",
            "collections",
        ]);
        of.filter(|(part, _)| self.path.contains(**part)).map(|(_, tag)| tag).next().unwrap_or("service")
    }

    /// What stands in the braces of its path.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        segments(self.path).filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
    }

    /// The same for a key of some collections: what it gives is theirs alone, or nobody's.
    pub(crate) fn seen(self) -> Route {
        Route { scope: Scope::Seen, ..self }
    }

    pub(crate) fn over(mut self, parameters: &'static [Parameter]) -> Route {
        self.parameters = parameters;
        self
    }
}

/// A route without a body.
pub(crate) fn plain<A: Serialize + JsonSchema + 'static>(
    method: Method,
    path: &'static str,
    name: &'static str,
    role: Role,
    about: &'static str,
    run: fn(&Call) -> Result<A, Refusal>,
) -> Route {
    let answer = move |call: &Call, _: &[u8]| envelope(run(call)?, call.start.elapsed().as_secs_f64());
    Route {
        method,
        path,
        name,
        about,
        role: Some(role),
        scope: if path.contains("/{collection}") { Scope::One } else { Scope::All },
        takes: Takes::Nothing,
        gives: Gives::Json(|generator| generator.subschema_for::<A>()),
        status: StatusCode::OK,
        parameters: &[],
        run: Run::Engine(Box::new(answer)),
    }
}

/// A route with a body of JSON.
pub(crate) fn with<B: DeserializeOwned + JsonSchema + 'static, A: Serialize + JsonSchema + 'static>(
    method: Method,
    path: &'static str,
    name: &'static str,
    role: Role,
    about: &'static str,
    run: fn(&Call, B) -> Result<A, Refusal>,
) -> Route {
    let answer = move |call: &Call, bytes: &[u8]| envelope(run(call, body::read(bytes)?)?, call.start.elapsed().as_secs_f64());
    Route {
        takes: Takes::Json(|generator| generator.subschema_for::<B>(), body::read::<B>(b"").is_ok()),
        run: Run::Engine(Box::new(answer)),
        ..plain::<A>(method, path, name, role, about, |_| Err(Refusal::failed()))
    }
}

/// The same of searches: those of which `is_quick` says so are asked for where they are read, as going to another thread and back costs half of what they do.
pub(crate) fn searching<B: DeserializeOwned + JsonSchema + 'static, A: Serialize + JsonSchema + 'static>(
    path: &'static str,
    name: &'static str,
    about: &'static str,
    is_quick: fn(&B) -> bool,
    run: fn(&Call, &Served, B) -> Result<A, Refusal>,
) -> Route {
    let answer = move |call: &Call, bytes: &[u8]| {
        let body = body::read::<B>(bytes)?;
        if call.at_once && !is_quick(&body) {
            return Err(Refusal::not_at_hand());
        }
        envelope(run(call, &*call.served()?, body)?, call.start.elapsed().as_secs_f64())
    };
    Route { run: Run::Search(Box::new(answer)), ..with::<B, A>(Method::POST, path, name, Role::Read, about, |_, _| Err(Refusal::failed())) }
}

/// A route that begins a job.
pub(crate) fn job(path: &'static str, name: &'static str, about: &'static str, run: fn(&Call) -> Result<Work, Refusal>) -> Route {
    let answer =
        move |call: &Call, _: &[u8]| envelope(call.server.jobs.begin(call.server, run(call)?)?, call.start.elapsed().as_secs_f64());
    Route {
        status: StatusCode::ACCEPTED,
        run: Run::Engine(Box::new(answer)),
        ..plain::<jobs::Job>(Method::POST, path, name, Role::Admin, about, |_| Err(Refusal::failed()))
    }
}

/// A route that begins a job of which a body says more.
pub(crate) fn job_with<B: DeserializeOwned + JsonSchema + 'static>(
    path: &'static str,
    name: &'static str,
    about: &'static str,
    run: fn(&Call, B) -> Result<Work, Refusal>,
) -> Route {
    let answer = move |call: &Call, bytes: &[u8]| {
        let work = run(call, body::read(bytes)?)?;
        envelope(call.server.jobs.begin(call.server, work)?, call.start.elapsed().as_secs_f64())
    };
    Route {
        takes: Takes::Json(|generator| generator.subschema_for::<B>(), body::read::<B>(b"").is_ok()),
        run: Run::Engine(Box::new(answer)),
        ..job(path, name, about, |_| Err(Refusal::failed()))
    }
}

/// A route that gives something else than an envelope, at once.
pub(crate) fn bare(
    path: &'static str,
    name: &'static str,
    role: Option<Role>,
    kind: &'static str,
    about: &'static str,
    run: fn(&Call) -> Result<Vec<u8>, Refusal>,
) -> Route {
    Route {
        role,
        gives: Gives::Bare(kind),
        run: Run::Now(Box::new(move |call, _| run(call))),
        ..plain::<Value>(Method::GET, path, name, Role::Read, about, |_| Err(Refusal::failed()))
    }
}

/// A file of the dashboard's.
pub(crate) fn file(path: &'static str, name: &'static str) -> Route {
    let (kind, bytes) = dashboard::file(path);
    Route {
        run: Run::Now(Box::new(move |_, _| Ok(bytes.to_vec()))),
        ..bare(path, name, Some(Role::Read), kind, "A part of the pages for people", |_| Err(Refusal::failed()))
    }
}

/// The parts of a path.
pub(crate) fn segments(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.split('/').filter(|segment| !segment.is_empty())
}
