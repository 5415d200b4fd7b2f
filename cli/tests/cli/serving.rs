//! `serve`, `config` and `key` as processes, and that the files of examples/serve say what the server knows.

use crate::shell::{Place, ROXANNE, roxanne};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::net::UnixDatagram,
    process::{Child, Command, Stdio},
    time::Duration,
};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/serve");

fn example(name: &str) -> String {
    fs::read_to_string(format!("{EXAMPLES}/{name}")).expect("the example is there")
}

/// A server in a process of its own.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(place: &Place, args: &[&str], env: &[(&str, &str)]) -> Server {
        let mut command = Command::new(ROXANNE);
        command.args(["serve", "--data", &place.at("data"), "--bind", "127.0.0.1:0", "--log-level", "error"]).args(args);
        command.envs(env.iter().copied()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the binary runs");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("stdout")).read_line(&mut line).expect("a line");
        let address = line.trim().rsplit('/').next().expect("an address").to_string();
        Server { child, address }
    }

    fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(100))).expect("a socket");
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
        )
        .expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        let status = answer.get(9..12).and_then(|status| status.parse().ok()).expect("a status");
        (status, answer.split_once("\r\n\r\n").expect("a body").1.to_string())
    }

    #[track_caller]
    fn well(&self, method: &str, path: &str, body: &str) -> Value {
        let (status, answer) = self.ask(method, path, "", body);
        assert!(matches!(status, 200 | 202), "{method} {path}: {status} {answer}");
        serde_json::from_str::<Value>(&answer).expect("JSON")["result"].take()
    }

    fn end(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        assert!(self.child.wait().expect("it ends").success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}

/// The names that a file of settings sets or could set.
fn settings_of(toml: &str) -> BTreeSet<String> {
    let name = |line: &str| {
        let (name, _) = line.strip_prefix('#').unwrap_or(line).split_once(" = ")?;
        name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-').then(|| name.to_string())
    };
    toml.lines().filter_map(name).collect()
}

#[test]
fn the_example_of_settings_has_all_of_them() {
    let (place, toml) = (Place::new(), example("roxanne.toml"));
    let help = roxanne(&["serve", "--help"]).well().stdout;
    let flags = help.lines().filter_map(|line| line.trim().strip_prefix("--")?.split([' ', '=', '[']).next());
    let flags: BTreeSet<String> = flags.map(str::to_string).filter(|flag| !["config", "api-key", "help"].contains(&&**flag)).collect();
    assert_eq!(settings_of(&toml), flags);
    roxanne(&["config", "check", &format!("{EXAMPLES}/roxanne.toml")]).well();
    // With every line that is commented out.
    let whole: String = toml
        .lines()
        .map(|line| if settings_of(line).is_empty() { line } else { line.trim_start_matches('#') })
        .map(|line| format!("{line}\n"))
        .collect();
    place.write("whole.toml", whole);
    roxanne(&["config", "check", &place.at("whole.toml")]).well();
    place.write("bad.toml", "ram = \"8G\"\nrum = \"8G\"\n");
    roxanne(&["config", "check", &place.at("bad.toml")]).failed(3, &["line 2", "unknown field `rum`"]);
    roxanne(&["serve", "--config", &place.at("bad.toml")]).failed(3, &["line 2"]);
    // What Kubernetes' file says of them.
    let manifest = example("kubernetes.yaml");
    let block = manifest.split("roxanne.toml: |\n").nth(1).expect("settings").split("\n---").next().expect("an end");
    place.write("pod.toml", block.lines().map(|line| format!("{}\n", line.trim())).collect::<String>());
    roxanne(&["config", "check", &place.at("pod.toml")]).well();
}

#[test]
fn systemd_hears_when_it_is_ready_and_when_it_stops() {
    let place = Place::new();
    let unit = example("roxanne.service");
    assert!(["Type=notify", "--config /etc/roxanne.toml", "TimeoutStopSec=35s"].iter().all(|line| unit.contains(line)));
    let socket = UnixDatagram::bind(place.at("notify")).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(100))).expect("a socket");
    let heard = || {
        let mut bytes = [0; 200];
        let count = socket.recv(&mut bytes).expect("it says something");
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    };
    let server = Server::start(&place, &[], &[("NOTIFY_SOCKET", &place.at("notify"))]);
    assert!(heard().contains("READY=1"));
    server.end();
    assert!(heard().contains("STOPPING=1"));
}

#[test]
fn what_is_watched_is_measured() {
    let place = Place::new();
    let server = Server::start(&place, &[], &[]);
    let (_, metrics) = server.ask("GET", "/metrics", "", "");
    let families: BTreeSet<&str> = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert!(families.len() > 20);
    for file in ["alerts.yaml", "grafana.json"] {
        let text = example(file);
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|word| word.starts_with("roxanne_"));
        let mut seen = BTreeSet::new();
        for word in words {
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word);
            assert!(families.contains(family) || families.contains(word), "{file} asks for {word}");
            seen.insert(family);
        }
        assert!(seen.len() > 5, "{file}");
    }
    serde_json::from_str::<Value>(&example("grafana.json")).expect("grafana.json is JSON");
    let profile: Value = serde_json::from_str(&example("seccomp.json")).expect("seccomp.json is JSON");
    let allowed = profile["syscalls"].as_array().expect("calls").iter().filter(|rule| rule["action"] == "SCMP_ACT_ALLOW");
    let allowed: BTreeSet<&str> = allowed.flat_map(|rule| rule["names"].as_array().expect("names")).filter_map(Value::as_str).collect();
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    assert!(["io_uring_setup", "io_uring_enter", "io_uring_register"].iter().all(|call| allowed.contains(call)));
    assert!(!["mount", "ptrace", "bpf", "setns", "unshare", "init_module", "kexec_load"].iter().any(|call| allowed.contains(call)));
    server.end();
}

#[test]
fn keys_are_made_listed_and_taken_back_beside_a_server() {
    let place = Place::new();
    let data = place.at("data");
    roxanne(&["key", "create", "app", "--role", "write", "--data", &data]).failed(2, &["no such directory"]);
    let server = Server::start(&place, &[], &[]);
    assert_eq!(server.ask("GET", "/collections", "", "").0, 200);
    let key = roxanne(&["key", "create", "app", "--role", "write", "--collections", "docs,more", "--data", &data]).well().stdout;
    let with = format!("api-key: {}\r\n", key.trim());
    let until = |headers: &str, status: u16| {
        while server.ask("GET", "/collections", headers, "").0 != status {
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    until("", 401);
    until(&with, 200);
    assert_eq!(server.ask("PUT", "/collections/docs", &with, "{}").0, 403);
    let listed = roxanne(&["key", "list", "--data", &data, "--json"]).well().json();
    assert_eq!((&listed[0]["name"], &listed[0]["role"], &listed[0]["collections"][1]), (&"app".into(), &"write".into(), &"more".into()));
    assert!(!listed.to_string().contains(key.trim()));
    roxanne(&["key", "create", "app", "--role", "read", "--data", &data]).failed(2, &["already"]);
    roxanne(&["key", "create", "b", "--role", "owner", "--data", &data]).code.eq(&Some(2)).then_some(()).expect("refused");
    roxanne(&["key", "revoke", "app", "--data", &data]).well();
    roxanne(&["key", "revoke", "app", "--data", &data]).failed(2, &["no key app"]);
    // None is let in any more: a door does not open because the last key has gone.
    until(&with, 401);
    assert_eq!(server.ask("GET", "/collections", "", "").0, 401);
    server.end();
}

#[test]
fn files_are_imported_built_verified_and_promoted_by_requests() {
    let place = Place::new();
    fs::create_dir_all(place.at("data/incoming")).expect("a directory");
    roxanne(&["convert", "synth:n=2000,dim=16,clusters=20,seed=7", &place.at("data/incoming/base.fbin")]).well();
    place.write("data/incoming/keys.txt", (0..2000).map(|row| format!("{row}\n")).collect::<String>());
    let server = Server::start(&place, &[], &[]);
    server.well("PUT", "/collections/docs", r#"{"vectors": {"size": 16, "distance": "Euclid"}}"#);
    let job = |path: &str, body: &str| {
        let id = server.well("POST", path, body)["id"].as_u64().expect("a number");
        server.well("GET", &format!("/v1/jobs/{id}?wait=60"), "")
    };
    let import = job("/v1/collections/docs/import", r#"{"vectors": "base.fbin", "keys": "keys.txt"}"#);
    assert_eq!((&import["state"], &import["result"]["rows"]), (&"done".into(), &2000.into()), "{import}");
    let build = job("/v1/builds", r#"{"input": "base.fbin", "output": "new.rx", "metric": "l2", "keys": "keys.txt", "capacity": 5000}"#);
    assert_eq!(build["state"], "done", "{build}");
    let verified = job("/v1/verifications", r#"{"index": "new.rx"}"#);
    assert_eq!((&verified["state"], &verified["result"]["ok"]), (&"done".into(), &true.into()), "{verified}");
    let sequence = &server.well("GET", "/v1/collections/docs", "")["sequence"];
    let promote = |gate: f64| {
        job(
            "/v1/collections/docs/promote",
            &format!(r#"{{"index": "new.rx", "sequence": {sequence}, "gate": {{"recall_at_10": {gate}}}}}"#),
        )
    };
    let promoted = promote(0.9);
    assert!(promoted["state"] == "done" && promoted["result"]["recall_at_10"].as_f64() >= Some(0.9), "{promoted}");
    let base = server.well("GET", "/v1/collections/docs", "");
    assert_eq!((&base["base_points"], &base["in_memory"], &base["generation"]), (&2000.into(), &0.into(), &promoted["generation"]));
    let plan = server.well("POST", "/v1/plan", r#"{"n": 1000000, "dim": 96, "datatype": "uint8"}"#);
    assert!(plan["serve_ram_bytes"].as_u64() > Some(0), "{plan}");
    // One that does not reach its gate is refused, and the base serves on.
    let again = job("/v1/builds", r#"{"input": "base.fbin", "output": "poor.rx", "metric": "l2", "keys": "keys.txt", "degree": 6}"#);
    assert_eq!(again["state"], "done", "{again}");
    let refused = job(
        "/v1/collections/docs/promote",
        &format!(r#"{{"index": "poor.rx", "sequence": {sequence}, "gate": {{"recall_at_10": 1.0, "queries": 1000}}}}"#),
    );
    assert!(refused["state"] == "failed" && refused["error"].as_str().expect("why").contains("gate"), "{refused}");
    assert_eq!(server.well("GET", "/v1/collections/docs", "")["generation"], promoted["generation"]);
    let failed = job("/v1/builds", r#"{"input": "keys.txt", "output": "none.rx", "metric": "l2"}"#);
    assert!(failed["state"] == "failed" && failed["error"].as_str().expect("why").contains("DATA/"), "{failed}");
    server.end();
}

#[test]
fn a_build_goes_on_when_its_server_was_killed() {
    let place = Place::new();
    fs::create_dir_all(place.at("data/incoming")).expect("a directory");
    roxanne(&["convert", "synth:n=120000,dim=64,type=u8,clusters=50,seed=3", &place.at("data/incoming/base.u8bin")]).well();
    let mut server = Server::start(&place, &[], &[]);
    let begun = server.well("POST", "/v1/builds", r#"{"input": "base.u8bin", "output": "new.rx", "metric": "l2"}"#);
    assert_eq!((&begun["state"], &begun["attempts"]), (&"running".into(), &1.into()));
    // Until the process is at work.
    while server.well("GET", "/v1/jobs/1", "")["progress"].is_null() {
        std::thread::sleep(Duration::from_millis(20));
    }
    server.child.kill().expect("it runs");
    server.child.wait().expect("it has ended");
    // The build has heard of it, and ends; the next server begins it again.
    let server = Server::start(&place, &[], &[]);
    let mut job = Value::Null;
    while job["state"] != "done" {
        job = server.well("GET", "/v1/jobs/1?wait=60", "");
        assert!(matches!(job["state"].as_str(), Some("running" | "done")), "{job}");
    }
    assert_eq!(job["attempts"], 2);
    roxanne(&["verify", &place.at("data/incoming/new.rx")]).well();
    server.end();
}
