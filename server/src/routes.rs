//! Which URL asks for what: one table, from which requests are answered and the API is described.

use crate::{
    access::Role,
    aliases, collections, dashboard,
    jobs::{self, Work},
    points::{read, search, write},
    reply::{Refusal, about},
    route::{Call, Gives, Parameter, Route, Run, Takes, bare, file, job, job_with, plain, searching, segments, with},
    searches, snapshots,
};
use hyper::{Method, StatusCode};
use serde_json::Value;
use std::sync::LazyLock;

pub(crate) const JSON: &str = "application/json";
pub(crate) const ROWS: &str = "application/octet-stream";
const TEXT: &str = "text/plain; version=0.0.4";

/// The version of Qdrant whose dialect is spoken: its clients warn of a server that is much older or newer than they are.
const DIALECT: &str = "1.20.0";

const TIMEOUT: Parameter = Parameter { name: "timeout", about: "Seconds that it may take; 60 unless said.", least: 1, most: 86_400 };
const SEARCHES: &[Parameter] = &[TIMEOUT];
const ROWS_SEARCHES: &[Parameter] = &[
    Parameter { name: "limit", about: "Hits of a row; 10 unless said.", least: 1, most: 10_000 },
    Parameter { name: "list_size", about: "Candidates kept while searching (L); 100 unless said.", least: 1, most: 1 << 20 },
    TIMEOUT,
];
const WAIT: &[Parameter] = &[Parameter { name: "wait", about: "Seconds to wait for its end; 60 at most count.", least: 0, most: 86_400 }];

/// All that is answered.
pub(crate) static ROUTES: LazyLock<Vec<Route>> = LazyLock::new(|| {
    use Role::{Admin, Read, Write};
    const GET: Method = Method::GET;
    const PUT: Method = Method::PUT;
    const POST: Method = Method::POST;
    const DELETE: Method = Method::DELETE;
    let well = |_: &Call| Ok(b"healthz check passed".to_vec());
    let ready = |call: &Call| {
        let leaving = call.server.collections.all().into_iter().any(|(_, served)| served.is_leaving());
        if leaving { Err(Refusal::draining("a collection makes way for another base")) } else { Ok(b"all shards are ready".to_vec()) }
    };
    vec![
        bare("/", "about", Some(Read), JSON, "Which server this is", |_| Ok(about(DIALECT).to_string().into_bytes())).seen(),
        bare("/healthz", "healthz", None, TEXT, "Whether it answers", well),
        bare("/livez", "livez", None, TEXT, "Whether it answers", well),
        bare("/readyz", "readyz", None, TEXT, "Whether it serves: 503 while a collection makes way for another base (drain)", ready),
        bare("/metrics", "metrics", Some(Read), TEXT, "Figures for Prometheus", |call| {
            let names: Vec<&str> = ROUTES.iter().map(|route| route.name).collect();
            Ok(call.server.metrics.text(call.server, &names).into_bytes())
        }),
        bare("/openapi.json", "openapi", Some(Read), JSON, "This description", |_| Ok(OPENAPI.clone().into_bytes())).seen(),
        bare("/dashboard", "dashboard", Some(Read), "text/html; charset=utf-8", "Pages for people", |_| Ok(dashboard::page().to_vec()))
            .seen(),
        file("/dashboard/style.css", "dashboard_style").seen(),
        file("/dashboard/app.js", "dashboard_app").seen(),
        file("/dashboard/lib.js", "dashboard_lib").seen(),
        file("/dashboard/collections.js", "dashboard_collections").seen(),
        file("/dashboard/search.js", "dashboard_search").seen(),
        file("/dashboard/reference.js", "dashboard_reference").seen(),
        plain(GET, "/collections", "list_collections", Read, "All collections", |call| Ok(collections::list(call))).seen(),
        plain(GET, "/collections/{collection}", "get_collection", Read, "What a collection is and where it stands", |call| {
            Ok(collections::info(&*call.served()?))
        }),
        plain(GET, "/collections/{collection}/exists", "collection_exists", Read, "Whether there is one", |call| {
            Ok(collections::Exists { exists: call.server.collections.find(call.name(0)).is_some() })
        }),
        with(
            PUT,
            "/collections/{collection}",
            "create_collection",
            Admin,
            "Make an empty collection",
            |call, body: collections::Create| call.server.collections.create(call.name(0), &body.config()?).map(|()| true),
        ),
        plain(DELETE, "/collections/{collection}", "delete_collection", Admin, "Remove a collection with all in it", |call| {
            call.server.jobs.none_of(call.name(0))?;
            call.server.collections.remove(call.name(0))
        }),
        with(
            PUT,
            "/collections/{collection}/index",
            "create_index",
            Write,
            "Done at once: all scalars are indexed as they are",
            |call, _: collections::FieldIndex| Ok(write::Written::at(call.served()?.collection.stats().sequence)),
        ),
        plain(
            DELETE,
            "/collections/{collection}/index/{field}",
            "delete_index",
            Write,
            "Done at once: all scalars are indexed as they are",
            |call| Ok(write::Written::at(call.served()?.collection.stats().sequence)),
        ),
        plain(GET, "/aliases", "list_aliases", Read, "All other names of collections", |call| {
            Ok(call.server.collections.aliases.shown(|alias, own| call.caller.sees(alias) || call.caller.sees(own)))
        })
        .seen(),
        plain(GET, "/collections/{collection}/aliases", "collection_aliases", Read, "Other names of a collection", |call| {
            let name = call.own_name()?;
            Ok(call.server.collections.aliases.shown(|_, own| own == name))
        }),
        with(POST, "/collections/aliases", "change_aliases", Admin, "Change names, all or none", |call, body: aliases::Changes| {
            let all = &call.server.collections;
            all.aliases.change(body, &|name| all.is_there(name)).map(|()| true)
        }),
        with(PUT, "/collections/{collection}/points", "upsert_points", Write, "Put points, all or none", |call, body| {
            write::upsert(&*call.served()?, body)
        }),
        with(POST, "/collections/{collection}/points", "get_points", Read, "Points by their ids", |call, body| {
            read::retrieve(&*call.served()?, body)
        }),
        plain(GET, "/collections/{collection}/points/{id}", "get_point", Read, "A point by its id", |call| {
            read::get(&*call.served()?, call.name(1))
        }),
        with(
            POST,
            "/collections/{collection}/points/delete",
            "delete_points",
            Write,
            "Delete points by ids or by a filter",
            |call, body| write::delete(&*call.served()?, &body),
        ),
        with(POST, "/collections/{collection}/points/payload", "set_payload", Write, "Add fields to payloads", |call, body| {
            write::set_payload(&*call.served()?, body, false)
        }),
        with(PUT, "/collections/{collection}/points/payload", "overwrite_payload", Write, "Replace payloads", |call, body| {
            write::set_payload(&*call.served()?, body, true)
        }),
        with(
            POST,
            "/collections/{collection}/points/payload/delete",
            "delete_payload",
            Write,
            "Remove fields of payloads",
            |call, body| write::delete_payload(&*call.served()?, body),
        ),
        with(POST, "/collections/{collection}/points/payload/clear", "clear_payload", Write, "Empty payloads", |call, body| {
            write::clear_payload(&*call.served()?, &body)
        }),
        with(POST, "/collections/{collection}/points/batch", "batch_points", Write, "Writes, one after the other", |call, body| {
            write::batch(&*call.served()?, body)
        }),
        searching(
            "/collections/{collection}/points/search",
            "search_points",
            "What is near to a vector",
            search::SearchBody::is_quick,
            search::search,
        )
        .over(SEARCHES),
        with(POST, "/collections/{collection}/points/search/batch", "search_batch", Read, "Several searches", |call, body| {
            search::searches(call, &*call.served()?, body)
        })
        .over(SEARCHES),
        searching(
            "/collections/{collection}/points/query",
            "query_points",
            "What is near to a vector or a point",
            search::QueryRequest::is_quick,
            search::query,
        )
        .over(SEARCHES),
        with(POST, "/collections/{collection}/points/query/batch", "query_batch", Read, "Several of them", |call, body| {
            search::queries(call, &*call.served()?, body)
        })
        .over(SEARCHES),
        with(POST, "/collections/{collection}/points/scroll", "scroll_points", Read, "Points in the order of their ids", |call, body| {
            read::scroll(call, &*call.served()?, body)
        })
        .over(SEARCHES),
        with(POST, "/collections/{collection}/points/count", "count_points", Read, "How many points there are", |call, body| {
            read::count(call, &*call.served()?, &body)
        })
        .over(SEARCHES),
        plain(GET, "/collections/{collection}/snapshots", "list_snapshots", Read, "Copies of a collection", |call| {
            call.server.snapshots.list(&call.own_name()?)
        }),
        plain(POST, "/collections/{collection}/snapshots", "create_snapshot", Admin, "Copy a collection", |call| {
            call.server.snapshots.create(&call.own_name()?, &*call.served()?)
        }),
        with(
            PUT,
            "/collections/{collection}/snapshots/recover",
            "recover_snapshot",
            Admin,
            "Make a collection what a copy holds",
            |call, body: snapshots::Recover| {
                call.server.jobs.none_of(call.name(0))?;
                call.server.snapshots.recover(&call.server.collections, call.name(0), &body)
            },
        ),
        plain(DELETE, "/collections/{collection}/snapshots/{snapshot}", "delete_snapshot", Admin, "Remove a copy", |call| {
            let own = call.own_name().unwrap_or_else(|_| call.name(0).to_string());
            call.server.snapshots.remove(&own, call.name(1))
        }),
        plain(GET, "/v1/collections/{collection}", "get_base", Read, "Where a collection stands, and its bases", |call| {
            collections::standing(&*call.served()?)
        }),
        Route {
            takes: Takes::Rows,
            gives: Gives::Bare(ROWS),
            run: Run::Search(Box::new(searches::rows)),
            ..plain::<Value>(
                POST,
                "/v1/collections/{collection}/search",
                "search_rows",
                Read,
                "Searches of rows of floats; the answer is binary",
                |_| Err(Refusal::failed()),
            )
        }
        .over(ROWS_SEARCHES),
        with(
            POST,
            "/v1/collections/{collection}/explain",
            "explain",
            Read,
            "A search, what it took, and what an exact one finds",
            |call, body| searches::explain(call, &*call.served()?, body),
        )
        .over(SEARCHES),
        job_with("/v1/collections/{collection}/promote", "promote", "Make an index of DATA/incoming the base", Work::promotion),
        job_with("/v1/collections/{collection}/rollback", "rollback", "Bring back the base before", Work::rollback),
        job("/v1/collections/{collection}/rebuild", "rebuild", "Build a base of all points", Work::rebuild),
        job("/v1/collections/{collection}/snapshot", "snapshot_job", "Copy a collection, as a job", |call| {
            call.served()?;
            Ok(Work::Snapshot { collection: call.own_name()? })
        }),
        job_with("/v1/collections/{collection}/measure", "measure", "Recall and speed at several list sizes", |call, body| {
            jobs::Measure::of(call, body).map(Work::Measure)
        }),
        job_with("/v1/collections/{collection}/import", "import", "Put the vectors of a file of DATA/incoming", Work::import),
        plain(DELETE, "/v1/collections/{collection}/previous", "forget_previous", Admin, "Keep the base before no more", |call| {
            call.served()?.collection.forget_previous()?;
            Ok(true)
        }),
        job_with("/v1/builds", "build", "Build an index of a file of DATA/incoming", |call, body| Work::build(call, &body)),
        job_with("/v1/verifications", "verify", "Check every byte of an index of DATA/incoming", Work::verification),
        with(POST, "/v1/plan", "plan", Write, "What a build of so many vectors takes, and what serving them does", jobs::plan),
        plain(GET, "/v1/overview", "overview", Read, "What the dashboard shows", dashboard::overview).seen(),
        plain(GET, "/v1/jobs", "list_jobs", Read, "Jobs at work, and the last that have ended", |call| {
            Ok(call.server.jobs.list(call.server, call.caller))
        })
        .seen(),
        Route {
            run: Run::Wait,
            ..plain::<jobs::Job>(GET, "/v1/jobs/{job}", "get_job", Read, "A job, now or at its end", |_| Err(Refusal::failed()))
        }
        .over(WAIT)
        .seen(),
        Route {
            gives: Gives::Bare("text/event-stream"),
            run: Run::Events,
            ..plain::<Value>(GET, "/v1/jobs/{job}/events", "watch_job", Read, "A job's changes, as they come", |_| Err(Refusal::failed()))
        }
        .seen(),
        plain(DELETE, "/v1/jobs/{job}", "cancel_job", Admin, "Ask a job to stop", |call| {
            call.server.jobs.cancel(call.server, call.name(0), call.caller)
        })
        .seen(),
    ]
});

static OPENAPI: LazyLock<String> = LazyLock::new(|| crate::openapi::document(&ROUTES, env!("CARGO_PKG_VERSION")).to_string());

/// What Qdrant answers and this does not, by method and path; `*` stands for all that may follow.
const NOT_THERE: &[(&str, &str)] = &[
    ("PATCH", "/collections/{}"),
    ("GET", "/collections/{}/snapshots/{}"),
    ("POST", "/collections/{}/snapshots/upload"),
    ("*", "/collections/{}/shards/*"),
    ("*", "/collections/{}/cluster"),
    ("*", "/collections/{}/facet"),
    ("GET", "/collections/{}/optimizations"),
    ("PUT", "/collections/{}/points/vectors"),
    ("POST", "/collections/{}/points/vectors/delete"),
    ("POST", "/collections/{}/points/recommend/*"),
    ("POST", "/collections/{}/points/recommend"),
    ("POST", "/collections/{}/points/discover/*"),
    ("POST", "/collections/{}/points/discover"),
    ("POST", "/collections/{}/points/search/groups"),
    ("POST", "/collections/{}/points/query/groups"),
    ("POST", "/collections/{}/points/search/matrix/*"),
    ("*", "/snapshots/*"),
    ("*", "/snapshots"),
    ("*", "/cluster/*"),
    ("*", "/telemetry"),
    ("*", "/locks"),
    ("*", "/issues"),
];

/// A route, and what stands where it has braces.
pub(crate) struct Found {
    pub(crate) number: usize,
    pub(crate) names: Vec<String>,
}

/// The parts of every route's path, and how many of them have braces.
static FORMS: LazyLock<Vec<(Vec<&'static str>, usize)>> =
    LazyLock::new(|| ROUTES.iter().map(|route| (segments(route.path).collect(), route.names().count())).collect());

/// Whether the parts of a path are those of a form: braces stand for any, `*` for all that follow.
fn fits(form: &[&str], path: &[&str]) -> bool {
    let (form, is_long_enough) = match form.split_last() {
        Some((&"*", form)) => (form, path.len() >= form.len()),
        _ => (form, path.len() == form.len()),
    };
    is_long_enough && form.iter().zip(path).all(|(part, given)| part.starts_with('{') || part == given)
}

/// The route of a request. Where several have the form of its path, those with the fewest braces are meant.
pub(crate) fn find(method: &Method, path: &str) -> Result<Found, Refusal> {
    let parts: Vec<&str> = segments(path).collect();
    let method = if method == Method::HEAD { &Method::GET } else { method };
    let (mut meant, mut fewest) = (Vec::new(), usize::MAX);
    for (number, (form, braces)) in FORMS.iter().enumerate() {
        if *braces <= fewest && fits(form, &parts) {
            if *braces < fewest {
                meant.clear();
            }
            fewest = *braces;
            meant.push(number);
        }
    }
    if let Some(&number) = meant.iter().find(|number| ROUTES[**number].method == *method) {
        let braces = FORMS[number].0.iter().zip(&parts).filter(|(part, _)| part.starts_with('{'));
        let names: Option<Vec<String>> = braces.map(|(_, given)| decoded(given)).collect();
        return names.map(|names| Found { number, names }).ok_or_else(|| Refusal::not_found(format!("{method} {path}")));
    }
    let is_qdrants =
        |(its, pattern): &(&str, &str)| (*its == "*" || *its == method.as_str()) && fits(&segments(pattern).collect::<Vec<_>>(), &parts);
    if NOT_THERE.iter().any(is_qdrants) {
        return Err(Refusal::not_there(&format!("{method} {path}")));
    }
    if meant.is_empty() {
        return Err(Refusal::not_found(format!("{method} {path}")));
    }
    let methods = meant.iter().map(|number| ROUTES[*number].method.as_str()).collect::<Vec<_>>().join(", ");
    Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method", format!("{path} takes {methods}")).allowing(methods))
}

/// A segment of a path, with what stands behind % signs in its place; `None` where that is no UTF-8.
fn decoded(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let [first, more @ ..] = rest {
        let digits = more.get(..2).and_then(|digits| std::str::from_utf8(digits).ok()).filter(|_| *first == b'%');
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &more[2..];
            }
            None => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Scope;
    use std::collections::BTreeSet;

    #[test]
    fn a_path_is_found_by_its_form() {
        let name = |method, path| find(&method, path).map(|found| (ROUTES[found.number].name, found.names));
        assert_eq!(name(Method::GET, "/collections/a%20b/points/7").unwrap(), ("get_point", vec!["a b".to_string(), "7".to_string()]));
        assert_eq!(name(Method::HEAD, "/collections/").unwrap().0, "list_collections");
        assert_eq!(name(Method::POST, "/collections/aliases").unwrap().0, "change_aliases");
        let status = |method, path| name(method, path).unwrap_err().status.as_u16();
        assert_eq!(status(Method::GET, "/nowhere"), 404);
        assert_eq!(status(Method::DELETE, "/collections"), 405);
        assert_eq!(status(Method::GET, "/collections/a/points/count"), 405);
        assert_eq!(status(Method::POST, "/collections/a/points/recommend"), 501);
        assert_eq!(status(Method::PATCH, "/collections/a"), 501);
        // Bytes that are no text name nothing.
        assert_eq!(status(Method::GET, "/collections/%ff"), 404);
    }

    #[test]
    fn names_are_one_route_s_and_all_but_health_takes_a_key() {
        let mut names = BTreeSet::new();
        for route in ROUTES.iter() {
            assert!(names.insert(route.name), "{}", route.name);
            assert_eq!(route.role.is_none(), ["/healthz", "/livez", "/readyz"].contains(&route.path), "{}", route.path);
            // What is asked by a body and changes nothing.
            let looks = ["get_points", "count_points", "scroll_points", "explain"].contains(&route.name)
                || ["search", "query"].iter().any(|word| route.name.starts_with(word));
            assert!(route.method == Method::GET || looks || route.role >= Some(Role::Write), "{}", route.name);
            assert!(route.scope != Scope::Seen || !route.path.contains("{collection}"), "{}", route.name);
        }
        let document: Value = serde_json::from_str(&OPENAPI).unwrap();
        assert_eq!(document["paths"]["/collections/{collection}/points"]["put"]["operationId"], "upsert_points");
    }
}
