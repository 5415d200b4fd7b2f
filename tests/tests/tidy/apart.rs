//! Workspaces apart: programs that the product never builds, with dependencies that must not enter its lock.
//!
//! Such a workspace obeys the same lints, keeps a lock of its own, and is cut off: it names no crate of ours, and none of ours names one
//! of its crates (the arrows see to that).

use crate::tree::Tree;
use toml::{Table, Value};

/// Their folders, and why each is apart.
const APART: &[(&str, &str)] = &[("bench/peers/rust", "peers to measure beside us: hundreds of packages that we never ship or test")];

/// The folder of the workspace that a path belongs to; "" is ours, at the root.
pub(crate) fn workspace_of(path: &str) -> &'static str {
    let holds = |folder: &&str| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
    APART.iter().map(|(folder, _)| *folder).find(holds).unwrap_or("")
}

/// The manifest of a workspace, by its folder.
pub(crate) fn manifest_of(tree: &Tree, workspace: &str) -> Option<Table> {
    let path = if workspace.is_empty() { "Cargo.toml".to_string() } else { format!("{workspace}/Cargo.toml") };
    tree.0.get(&path)?.text.as_deref()?.parse().ok()
}

/// Folders of the members that a workspace lists, from the root.
pub(crate) fn listed(tree: &Tree, workspace: &str) -> Vec<String> {
    let manifest = manifest_of(tree, workspace).unwrap_or_default();
    let list = manifest.get("workspace").and_then(|w| w.get("members")?.as_array()).into_iter().flatten();
    let place = |member: &str| if workspace.is_empty() { member.to_string() } else { format!("{workspace}/{member}") };
    list.filter_map(Value::as_str).map(place).collect()
}

/// Workspaces apart that are none, that a build of ours would take in, or that keep laxer rules.
pub(crate) fn cut_off(tree: &Tree) -> Vec<String> {
    let root = manifest_of(tree, "").unwrap_or_default();
    let part = |manifest: &Table, name: &str| manifest.get("workspace").and_then(|w| w.get(name)).cloned();
    let excluded = part(&root, "exclude").and_then(|e| e.as_array().cloned()).unwrap_or_default();
    let mut complaints = Vec::new();
    for (folder, _) in APART {
        let manifest = manifest_of(tree, folder).unwrap_or_default();
        if !manifest.contains_key("workspace") {
            complaints.push(format!("{folder}/Cargo.toml: no [workspace]; it is one of its own"));
        }
        if part(&manifest, "lints") != part(&root, "lints") {
            complaints.push(format!("{folder}/Cargo.toml: its [workspace.lints] are not the root's"));
        }
        if !tree.0.contains_key(&format!("{folder}/Cargo.lock")) {
            complaints.push(format!("{folder}/Cargo.lock is missing: what was measured is what is built"));
        }
        if !excluded.iter().any(|e| e.as_str() == Some(folder)) {
            complaints.push(format!("Cargo.toml: name {folder} in the workspace's `exclude`"));
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str =
        "[workspace]\nmembers = [\"core\"]\nexclude = [\"bench/peers/rust\"]\n[workspace.lints.rust]\nunsafe_code = \"deny\"";
    const PEERS: &str = "[workspace]\nmembers = [\"peer\"]\n[workspace.lints.rust]\nunsafe_code = \"deny\"";

    fn judged(root: &str, peers: &str, lock: &str) -> Vec<String> {
        cut_off(&Tree::of(&[("Cargo.toml", root), ("bench/peers/rust/Cargo.toml", peers), (lock, "")]))
    }

    #[test]
    fn a_workspace_apart_is_cut_off_and_obeys_the_same_lints() {
        let lock = "bench/peers/rust/Cargo.lock";
        assert_eq!(judged(ROOT, PEERS, lock), [""; 0]);
        assert!(judged(ROOT, &PEERS.replace("deny", "warn"), lock)[0].contains("not the root's"));
        assert!(judged(ROOT, "[package]\nname = \"peer\"", lock)[0].contains("no [workspace]"));
        assert!(judged(ROOT, PEERS, "Cargo.lock")[0].starts_with("bench/peers/rust/Cargo.lock is missing"));
        assert!(judged(&ROOT.replace("exclude", "default-members"), PEERS, lock)[0].contains("`exclude`"));
    }

    #[test]
    fn a_path_tells_its_workspace() {
        assert_eq!(workspace_of("bench/peers/rust/peer/src/lib.rs"), "bench/peers/rust");
        assert_eq!(["bench/peers/rusty/lib.rs", "core/src/lib.rs"].map(workspace_of), ["", ""]);
        let tree = Tree::of(&[("Cargo.toml", ROOT), ("bench/peers/rust/Cargo.toml", PEERS)]);
        assert_eq!([listed(&tree, ""), listed(&tree, "bench/peers/rust")], [["core"], ["bench/peers/rust/peer"]]);
    }
}
