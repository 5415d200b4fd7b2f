//! Pages for people, in the binary: nothing is fetched from elsewhere. They ask the same API as everybody; `overview` is what they ask every few seconds.

use crate::{access::Role, collections, files, jobs, metrics::resident_bytes, reply::Refusal, route::Call};
use serde_json::{Value, json};

/// What a browser may do on these pages: nothing that did not come with them.
pub(crate) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'";

pub(crate) fn page() -> &'static [u8] {
    include_bytes!("dashboard/index.html")
}

/// The kind and the bytes of a file that the page asks for.
pub(crate) fn file(path: &str) -> (&'static str, &'static [u8]) {
    const PROGRAM: &str = "text/javascript; charset=utf-8";
    match path {
        "/dashboard/style.css" => ("text/css; charset=utf-8", include_bytes!("dashboard/style.css")),
        "/dashboard/lib.js" => (PROGRAM, include_bytes!("dashboard/lib.js")),
        "/dashboard/collections.js" => (PROGRAM, include_bytes!("dashboard/collections.js")),
        "/dashboard/search.js" => (PROGRAM, include_bytes!("dashboard/search.js")),
        "/dashboard/reference.js" => (PROGRAM, include_bytes!("dashboard/reference.js")),
        _ => (PROGRAM, include_bytes!("dashboard/app.js")),
    }
}

/// `GET /v1/overview`: the collections that the caller may see, jobs, and counters of which rates are made.
pub(crate) fn overview(call: &Call) -> Result<Value, Refusal> {
    let server = call.server;
    let mut shown = Vec::new();
    for (name, served) in server.collections.all() {
        if !call.sees(&name) {
            continue;
        }
        let memory = served.collection.memory();
        let info = collections::info(&served);
        shown.push(json!({
            "name": name, "info": info, "standing": collections::standing(&served)?,
            "disk_bytes": files::bytes_below(served.collection.path()),
            "memory": {"codes": memory.resident_bytes, "cache": memory.kept_bytes, "delta": memory.delta_bytes, "allowed": memory.allowed_bytes},
        }));
    }
    // Names of what is of no collection are for who may see all of them; figures of the server are for all.
    let of_all = call.caller.sees_all().is_ok();
    let disk = rustix::fs::statvfs(&server.path).ok();
    Ok(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "caller": {"name": call.caller.name, "role": call.caller.role().name()},
        "uptime_seconds": server.since.elapsed().as_secs_f64(),
        "resident_bytes": resident_bytes(),
        "disk_free_bytes": disk.as_ref().map(|disk| disk.f_bavail * disk.f_frsize),
        "disk_bytes": disk.as_ref().map(|disk| disk.f_blocks * disk.f_frsize),
        "collections": shown,
        "not_open": of_all.then(|| server.collections.not_open()),
        "aliases": server.collections.aliases.shown(|alias, own| call.caller.sees(alias) || call.caller.sees(own)),
        "incoming": of_all.then(|| jobs::incoming_list(server)),
        "keys": (of_all && call.caller.may(Role::Admin).is_ok()).then(|| server.access.shown()),
        "jobs": server.jobs.list(server, call.caller),
        "counters": server.metrics.shown(),
    }))
}
