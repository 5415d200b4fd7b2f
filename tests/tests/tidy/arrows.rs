//! Which crate may lean on which, and which module of the core: an arrow goes down or not at all (ARCHITECTURE.md, floors).
//!
//! Arrows are read from the manifests, dev-dependencies included, and from every path in the code; one that a manifest forgot does not
//! compile, but one that a renamed dependency hides is found here.

use crate::apart::workspace_of;
use crate::rust::{PathUse, paths, tokens};
use crate::tree::Tree;
use std::collections::{BTreeMap, BTreeSet};
use toml::{Table, Value};

/// Every crate, and the crates below it that it may name.
const FLOORS: &[(&str, &[&str])] = &[
    ("roxanne-core", &[]),
    ("roxanne-builder", &["roxanne-core"]),
    ("roxanne-engine", &["roxanne-core"]),
    ("roxanne-server", &["roxanne-core", "roxanne-engine"]),
    ("roxanne", &["roxanne-core", "roxanne-builder", "roxanne-engine", "roxanne-server"]),
    ("roxanne-python", &["roxanne"]),
    ("roxanne-bench", &["roxanne-core", "roxanne-builder", "roxanne-engine", "roxanne"]),
    ("roxanne-tests", &["roxanne-core", "roxanne-builder", "roxanne-engine", "roxanne"]),
];

/// Modules of the core that must not know how an index lies on disk.
const BELOW_FORMAT: &[&str] = &["graph", "neighbor", "distance", "metric", "id", "tile", "prune", "search"];

/// A crate of the workspace: its folder and its manifest.
pub(crate) struct Member<'a> {
    pub(crate) name: String,
    pub(crate) folder: &'a str,
    pub(crate) path: &'a str,
    pub(crate) workspace: &'static str,
    pub(crate) manifest: Table,
}

/// All manifests of packages, those of workspaces apart among them, and complaints about manifests that are none.
pub(crate) fn members(tree: &Tree) -> (Vec<Member<'_>>, Vec<String>) {
    let (mut members, mut complaints) = (Vec::new(), Vec::new());
    for (path, text) in tree.texts() {
        let Some(folder) = path.strip_suffix("/Cargo.toml") else { continue };
        let manifest: Table = match text.parse() {
            Ok(manifest) => manifest,
            Err(e) => {
                complaints.push(format!("{path}: {e}"));
                continue;
            }
        };
        match manifest.get("package").and_then(|p| p.get("name")).and_then(Value::as_str) {
            Some(name) => members.push(Member { name: name.to_string(), folder, path, workspace: workspace_of(path), manifest }),
            None if workspace_of(path) == folder => {}
            None => complaints.push(format!("{path}: no package name; our workspace is at the root, those apart are in APART")),
        }
    }
    (members, complaints)
}

/// Arrows between crates that go up, round, or nowhere.
pub(crate) fn between_crates(tree: &Tree) -> Vec<String> {
    let (members, mut complaints) = members(tree);
    let renamed = renamed_in_workspace(tree);
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut found = Vec::new();
    for member in &members {
        if member.workspace.is_empty() && !FLOORS.iter().any(|(name, _)| *name == member.name) {
            complaints.push(format!("{}: {} stands on no floor; give it one in FLOORS", member.path, member.name));
        }
        for package in dependencies(&member.manifest, &renamed) {
            if members.iter().any(|m| m.name == package) || is_ours(&package) {
                found.push((member.path.to_string(), member.name.clone(), package));
            }
        }
    }
    let crates: BTreeMap<String, &str> = FLOORS.iter().map(|(name, _)| (name.replace('-', "_"), *name)).collect();
    for (path, text) in tree.rust() {
        let Some(member) = members.iter().find(|m| path.strip_prefix(m.folder).is_some_and(|rest| rest.starts_with('/'))) else {
            continue;
        };
        for used in paths(&tokens(text)) {
            if let Some(&package) = crates.get(used.words[0]).filter(|&&package| package != member.name) {
                found.push((format!("{path}:{}", used.line), member.name.clone(), package.to_string()));
            }
        }
    }
    for (place, from, to) in found {
        let below = FLOORS.iter().find(|(name, _)| *name == from).map_or(&[][..], |(_, below)| below);
        // A workspace apart has no floors, but its crates may name each other alone.
        let apart = |name: &str| members.iter().find(|m| m.name == name).map_or("", |m| m.workspace);
        let neighbors = !apart(&from).is_empty() && apart(&from) == apart(&to);
        if from != to && !below.contains(&to.as_str()) && !neighbors {
            complaints.push(format!("{place}: {from} names {to}, which is not below it"));
        }
        arrows.entry(from).or_default().insert(to);
    }
    complaints.extend(circles(&arrows));
    complaints
}

fn is_ours(package: &str) -> bool {
    package == "roxanne" || package.starts_with("roxanne-")
}

/// The package behind each name in the root's `[workspace.dependencies]` that is not called by its own.
fn renamed_in_workspace(tree: &Tree) -> BTreeMap<String, String> {
    let root = tree.0.get("Cargo.toml").and_then(|file| file.text.as_deref()?.parse::<Table>().ok());
    let table = root.as_ref().and_then(|root| root.get("workspace")?.get("dependencies")?.as_table());
    table.into_iter().flatten().filter_map(|(name, value)| Some((name.clone(), value.get("package")?.as_str()?.to_string()))).collect()
}

/// Every package that a manifest leans on, whatever it is for and whatever it is called there.
fn dependencies(manifest: &Table, renamed: &BTreeMap<String, String>) -> BTreeSet<String> {
    let targets = manifest.get("target").and_then(Value::as_table).into_iter().flatten().filter_map(|(_, t)| t.as_table());
    let kinds = ["dependencies", "dev-dependencies", "build-dependencies"];
    let tables = std::iter::once(manifest).chain(targets).flat_map(|t| kinds.iter().filter_map(|kind| t.get(*kind)?.as_table()));
    let package = |(name, value): (&String, &Value)| {
        let here = value.get("package").and_then(Value::as_str).map(String::from);
        here.or_else(|| renamed.get(name).cloned()).unwrap_or_else(|| name.clone())
    };
    tables.flatten().map(package).collect()
}

/// Arrows in the core that go round, and those to the disk format from modules below it. Tests may look anywhere.
pub(crate) fn inside_core(tree: &Tree) -> Vec<String> {
    const SOURCES: &str = "core/src/";
    let (mut complaints, mut arrows) = (Vec::new(), BTreeMap::<String, BTreeSet<String>>::new());
    let module_of = |path: &str| path.strip_prefix(SOURCES)?.strip_suffix(".rs")?.split('/').next().map(String::from);
    let modules: BTreeSet<String> = tree.rust().filter_map(|(path, _)| module_of(path)).filter(|m| m != "lib").collect();
    for (path, text) in tree.rust().filter(|(path, _)| !path.ends_with("/tests.rs")) {
        let Some(from) = module_of(path).filter(|m| m != "lib") else { continue };
        let code = tokens(text);
        let tested = code.windows(7).position(|w| w.iter().map(|t| t.text).eq(["#", "[", "cfg", "(", "test", ")", "]"]));
        let inline = tested.filter(|&at| code.get(at + 9).is_some_and(|t| t.text == "{"));
        for used in paths(&code[..inline.unwrap_or(code.len())]) {
            let Some(to) = named_module(&used).filter(|to| modules.contains(*to) && *to != from) else { continue };
            if to == "format" && BELOW_FORMAT.contains(&from.as_str()) {
                complaints.push(format!("{path}:{}: `{from}` knows `format`; the format may know it, not the other way", used.line));
            }
            arrows.entry(from.clone()).or_default().insert(to.to_string());
        }
    }
    complaints.extend(circles(&arrows));
    complaints
}

/// The first word of a path that starts at this crate: what follows `crate` and `super`.
fn named_module<'a>(used: &PathUse<'a>) -> Option<&'a str> {
    let words = &used.words;
    let climbs = words.iter().take_while(|w| matches!(**w, "crate" | "super" | "self")).count();
    (climbs > 0).then(|| words.get(climbs).copied()).flatten()
}

/// One complaint for each circle that a walk along `arrows` closes.
fn circles(arrows: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    fn walk<'a>(
        at: &'a str,
        arrows: &'a BTreeMap<String, BTreeSet<String>>,
        trail: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
        out: &mut Vec<String>,
    ) {
        if let Some(start) = trail.iter().position(|&t| t == at) {
            return out.push(format!("a circle: {} -> {at}", trail[start..].join(" -> ")));
        }
        if done.contains(at) {
            return;
        }
        trail.push(at);
        arrows.get(at).into_iter().flatten().for_each(|to| walk(to, arrows, trail, done, out));
        trail.pop();
        done.insert(at);
    }
    let (mut done, mut out) = (BTreeSet::new(), Vec::new());
    arrows.keys().for_each(|from| walk(from, arrows, &mut Vec::new(), &mut done, &mut out));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "[workspace.dependencies]\nroxanne-core = { path = \"core\" }\nsteps = { path = \"cli\", package = \"roxanne\" }\n";

    fn crate_of(name: &str, dependencies: &str) -> String {
        format!("[package]\nname = \"{name}\"\n{dependencies}")
    }

    /// Complaints about a house of core, builder, engine and cli, each with a manifest's tail and a source.
    fn judged(core: [&str; 2], builder: [&str; 2], cli: [&str; 2]) -> String {
        let manifests = [crate_of("roxanne-core", core[0]), crate_of("roxanne-builder", builder[0]), crate_of("roxanne", cli[0])];
        let tree = Tree::of(&[
            ("Cargo.toml", ROOT),
            ("core/Cargo.toml", &manifests[0]),
            ("core/src/lib.rs", core[1]),
            ("builder/Cargo.toml", &manifests[1]),
            ("builder/src/lib.rs", builder[1]),
            ("cli/Cargo.toml", &manifests[2]),
            ("cli/src/lib.rs", cli[1]),
        ]);
        between_crates(&tree).join("\n")
    }

    const CORE: [&str; 2] = ["[dependencies]\nhalf = \"2\"", "pub mod id;"];
    const BUILDER: [&str; 2] = ["[dependencies]\nroxanne-core.workspace = true", "use roxanne_core::id; // roxanne_engine::Index"];
    const CLI: [&str; 2] = ["[dev-dependencies]\nroxanne-builder = { path = \"../builder\" }", "pub use roxanne_builder::build;"];

    #[test]
    fn arrows_that_go_down_are_fine() {
        assert_eq!(judged(CORE, BUILDER, CLI), "");
    }

    #[test]
    fn an_arrow_that_goes_up_is_reported_with_its_place() {
        let dev = ["[dev-dependencies]\nroxanne-builder = { path = \"../builder\" }", ""];
        assert!(judged(dev, BUILDER, CLI).contains("core/Cargo.toml: roxanne-core names roxanne-builder"));
        let target = ["[target.'cfg(unix)'.build-dependencies]\nlower = { path = \"../engine\", package = \"roxanne-engine\" }", ""];
        assert!(judged(CORE, target, CLI).contains("builder/Cargo.toml: roxanne-builder names roxanne-engine"));
        let renamed = ["[dependencies]\nsteps.workspace = true", ""];
        assert!(judged(CORE, renamed, CLI).contains("roxanne-builder names roxanne, which"));
    }

    #[test]
    fn a_path_in_the_code_is_an_arrow_too() {
        let sideways = [BUILDER[0], "use std::fmt;\nfn f() -> roxanne_engine::Index { todo() }"];
        assert!(judged(CORE, sideways, CLI).contains("builder/src/lib.rs:2: roxanne-builder names roxanne-engine"));
        let grouped = [CORE[0], "use {std::fmt, roxanne as door};"];
        assert!(judged(grouped, BUILDER, CLI).contains("core/src/lib.rs:1: roxanne-core names roxanne,"));
    }

    #[test]
    fn a_circle_is_reported() {
        let up = ["[dev-dependencies]\nroxanne = { path = \"../cli\" }", ""];
        assert!(judged(CORE, up, CLI).contains("a circle: roxanne -> roxanne-builder -> roxanne"));
        assert!(!judged(CORE, BUILDER, CLI).contains("circle"));
    }

    #[test]
    fn a_crate_without_a_floor_and_a_broken_manifest_are_reported() {
        let tree = Tree::of(&[("helpers/Cargo.toml", "[package]\nname = \"roxanne-helpers\""), ("x/Cargo.toml", "[[")]);
        let complaints = between_crates(&tree).join("\n");
        assert!(complaints.contains("roxanne-helpers stands on no floor") && complaints.contains("x/Cargo.toml: "), "{complaints}");
    }

    #[test]
    fn a_crate_apart_names_its_neighbors_and_none_of_ours() {
        let judged = |peer: &str, code: &str, core: &str| {
            let peer = crate_of("some-peer", &format!("[dependencies]\nshared = {{ path = \"../shared\" }}\n{peer}"));
            let tree = Tree::of(&[
                ("bench/peers/rust/Cargo.toml", "[workspace]"),
                ("bench/peers/rust/shared/Cargo.toml", &crate_of("shared", "")),
                ("bench/peers/rust/some/Cargo.toml", &peer),
                ("bench/peers/rust/some/src/main.rs", code),
                ("core/Cargo.toml", &crate_of("roxanne-core", core)),
            ]);
            between_crates(&tree).join("\n")
        };
        assert_eq!(judged("", "use shared::Rows;", ""), "");
        assert!(judged("roxanne-core = { path = \"../../../../core\" }", "", "").contains("some-peer names roxanne-core"));
        assert!(judged("", "use roxanne_core::recall;", "").contains("main.rs:1: some-peer names roxanne-core"));
        let up = "[dependencies]\nshared = { path = \"../bench/peers/rust/shared\" }";
        assert!(judged("", "", up).contains("core/Cargo.toml: roxanne-core names shared, which"));
    }

    #[test]
    fn the_format_is_known_only_above() {
        let format = ("core/src/format/page.rs", "use crate::graph::Graph;");
        let core = |path, text| inside_core(&Tree::of(&[format, ("core/src/graph.rs", ""), (path, text)])).join("\n");
        assert_eq!(core("core/src/id.rs", "fn f() { format!(\"crate::format::page\"); std::fmt::format(x) }"), "");
        assert!(core("core/src/id.rs", "\nuse crate::{graph, format::page};").contains("core/src/id.rs:2: `id` knows `format`"));
        assert!(core("core/src/tile/avx2.rs", "super::super::format::page::f()").contains("`tile` knows `format`"));
        assert_eq!(core("core/src/search.rs", "fn f() {}\n#[cfg(test)]\nmod tests { use crate::format::page; }"), "");
        assert!(core("core/src/search.rs", "#[cfg(test)]\nmod tests;\nuse crate::format;").contains("`search` knows"));
    }

    #[test]
    fn modules_of_the_core_form_no_circle() {
        let tree =
            |last| Tree::of(&[("core/src/a.rs", "use crate::b::X;"), ("core/src/b/in.rs", "crate::c::f()"), ("core/src/c.rs", last)]);
        assert_eq!(inside_core(&tree("use super::d;")), [""; 0]);
        assert_eq!(inside_core(&tree("use super::{a, d};")), ["a circle: a -> b -> c -> a"]);
    }
}
