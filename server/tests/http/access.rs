//! Who may ask, and for what.

use crate::server::{Server, options};
use roxanne_server::{KeyFile, Role, ServeError, ServerOptions, TlsFiles, serve};
use serde_json::{Value, json};
use std::{fs, sync::Arc, time::Duration};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::CertificateDer},
};

#[test]
fn who_may_not_ask_is_not_answered() {
    let data = tempfile::tempdir().unwrap();
    let open = ServerOptions { bind: "0.0.0.0:0".parse().unwrap(), ..options(data.path(), None) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert!(matches!(runtime.block_on(serve(open, |_| (), async {})), Err(ServeError::Insecure { .. })));
    let server = Server::start(options(data.path(), Some("secret")));
    for (path, headers, status) in [
        ("/collections", "", 401),
        ("/collections", "api-key: wrong!\r\n", 401),
        ("/collections", "api-key: secret\r\n", 200),
        ("/collections", "authorization: Bearer secret\r\n", 200),
        ("/collections", "authorization: secret\r\n", 401),
        ("/metrics", "", 401),
        ("/", "", 401),
        ("/nowhere", "", 401),
        ("/readyz", "", 200),
        ("/healthz", "", 200),
    ] {
        assert_eq!(server.with("GET", path, headers, "").0, status, "{path} {headers}");
    }
    server.end();
    let server = Server::start(options(data.path(), None));
    let asked =
        |host: &str, more: &str| server.raw(format!("GET / HTTP/1.1\r\nhost: {host}\r\n{more}connection: close\r\n\r\n").as_bytes());
    assert!(asked("localhost:6333", "").contains("\"title\":\"roxanne\""));
    assert!(asked("localhost:6333", "").starts_with("HTTP/1.1 200") && asked("127.0.0.1", "").starts_with("HTTP/1.1 200"));
    assert!(asked("[::1]:80", "").starts_with("HTTP/1.1 200"));
    // A page somewhere whose name was made to lead here, and one that asks across.
    assert!(asked("evil.example", "").starts_with("HTTP/1.1 403"));
    assert!(asked("localhost", "origin: http://evil.example\r\n").starts_with("HTTP/1.1 403"));
    server.end();
}

#[test]
fn a_key_allows_what_its_role_and_its_collections_say() {
    let data = tempfile::tempdir().unwrap();
    let mut file = KeyFile::open(data.path()).unwrap();
    let mut key = |name: &str, role, collections: Option<&str>| {
        let collections = collections.map(|names| names.split(',').map(str::to_string).collect());
        format!("api-key: {}\r\n", file.create(name, role, collections).unwrap())
    };
    let (reader, writer, admin) = (key("reader", Role::Read, None), key("writer", Role::Write, None), key("admin", Role::Admin, None));
    let (of_c, of_alias) = (key("of-c", Role::Admin, Some("c,new")), key("of-alias", Role::Read, Some("alias")));
    let server = Server::start(options(data.path(), None));
    let status = |key: &str, method: &str, path: &str, body: &Value| server.with(method, path, key, &body.to_string()).0;
    let create = json!({"vectors": {"size": 2, "distance": "Dot"}});
    for name in ["c", "d"] {
        assert_eq!(status(&admin, "PUT", &format!("/collections/{name}"), &create), 200);
    }
    let alias = json!({"actions": [{"create_alias": {"collection_name": "d", "alias_name": "alias"}}]});
    assert_eq!(status(&admin, "POST", "/collections/aliases", &alias), 200);
    let (point, search) = (json!({"points": [{"id": 1, "vector": [1.0, 2.0]}]}), json!({"vector": [1.0, 2.0]}));
    for (key, method, path, body, expected) in [
        ("", "GET", "/collections", &Value::Null, 401),
        ("api-key: rx_wrong\r\n", "PUT", "/collections/c/points", &point, 401),
        ("", "GET", "/dashboard", &Value::Null, 401),
        ("", "GET", "/openapi.json", &Value::Null, 401),
        ("", "GET", "/livez", &Value::Null, 200),
        (&*reader, "POST", "/collections/c/points/search", &search, 200),
        (&*reader, "PUT", "/collections/c/points", &point, 403),
        (&*reader, "PUT", "/collections/new", &create, 403),
        (&*reader, "DELETE", "/v1/jobs/1", &Value::Null, 403),
        (&*reader, "GET", "/metrics", &Value::Null, 200),
        (&*writer, "PUT", "/collections/c/points", &point, 200),
        (&*writer, "DELETE", "/collections/c", &Value::Null, 403),
        (&*writer, "POST", "/v1/collections/c/rebuild", &Value::Null, 403),
        (&*of_c, "PUT", "/collections/c/points", &point, 200),
        (&*of_c, "PUT", "/collections/d/points", &point, 403),
        (&*of_c, "PUT", "/collections/new", &create, 200),
        (&*of_c, "POST", "/collections/aliases", &alias, 403),
        (&*of_c, "GET", "/metrics", &Value::Null, 403),
        (&*of_c, "POST", "/v1/builds", &json!({}), 403),
        // What lies in DATA/incoming is not of one collection.
        (&*of_c, "POST", "/v1/collections/c/promote", &json!({"index": "x", "sequence": 0}), 403),
        (&*of_c, "POST", "/v1/collections/c/rollback", &json!({}), 409),
        (&*of_alias, "POST", "/collections/alias/points/search", &search, 200),
        (&*of_alias, "POST", "/collections/d/points/search", &search, 403),
    ] {
        assert_eq!(status(key, method, path, body), expected, "{key} {method} {path}");
    }
    // Who may see some sees those.
    let (_, seen) = server.with("GET", "/collections", &of_c, "");
    assert_eq!(seen["result"]["collections"], json!([{"name": "c"}, {"name": "new"}]));
    let (_, seen) = server.with("GET", "/v1/overview", &of_c, "");
    assert_eq!((seen["result"]["collections"].as_array().unwrap().len(), &seen["result"]["keys"]), (2, &Value::Null));
    // A refusal comes before the body is read: this one is promised and never sent.
    let head =
        format!("PUT /collections/c/points HTTP/1.1\r\nhost: localhost\r\n{reader}connection: close\r\ncontent-length: 1000000\r\n\r\n");
    assert!(server.raw(head.as_bytes()).starts_with("HTTP/1.1 403"));
    // A browser asks for the key itself, and brings it as a password.
    assert!(server.raw(b"GET /dashboard HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").contains("www-authenticate: Basic"));
    server.end();
}

#[test]
fn pages_of_an_origin_that_is_named_may_ask() {
    let data = tempfile::tempdir().unwrap();
    let server =
        Server::start(ServerOptions { cors_origins: vec!["https://app.example.com".into()], ..options(data.path(), Some("secret")) });
    let ask = |method: &str, more: &str| {
        server.raw(format!("{method} /collections HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{more}\r\n").as_bytes())
    };
    let preflight = ask("OPTIONS", "origin: https://app.example.com\r\naccess-control-request-method: GET\r\n");
    assert!(preflight.starts_with("HTTP/1.1 204") && preflight.contains("access-control-allow-headers: api-key"));
    let answer = ask("GET", "origin: https://app.example.com\r\napi-key: secret\r\n");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("access-control-allow-origin: https://app.example.com"));
    assert!(ask("GET", "origin: https://evil.example\r\napi-key: secret\r\n").starts_with("HTTP/1.1 403"));
    assert!(!ask("OPTIONS", "origin: https://evil.example\r\n").contains("access-control"));
    server.end();
}

/// Writes a certificate for localhost and its key, and gives the certificate.
fn certify(files: &TlsFiles) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
    fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    fs::write(&files.cert, made.cert.pem()).unwrap();
    made.cert.der().clone()
}

/// What a server says to one who trusts this certificate alone.
async fn ask(server: &Server, trusted: &CertificateDer<'static>) -> std::io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider())).with_safe_default_protocol_versions().unwrap();
    let connector = TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth()));
    let stream = tokio::net::TcpStream::connect(server.address).await?;
    let mut stream = connector.connect("localhost".try_into().unwrap(), stream).await?;
    stream.write_all(b"GET /collections HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\napi-key: secret\r\n\r\n").await?;
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    Ok(answer)
}

#[test]
fn tls_is_spoken_and_a_new_certificate_is_taken_up() {
    let data = tempfile::tempdir().unwrap();
    let tls = TlsFiles { cert: data.path().join("cert.pem"), key: data.path().join("key.pem") };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let with_tls = || ServerOptions { tls: Some(tls.clone()), ..options(data.path(), Some("secret")) };
    assert!(matches!(runtime.block_on(serve(with_tls(), |_| (), async {})), Err(ServeError::Tls(_))));
    let first = certify(&tls);
    let server = Server::start(with_tls());
    assert!(runtime.block_on(ask(&server, &first)).unwrap().starts_with("HTTP/1.1 200"));
    // Without TLS nothing is said.
    assert!(!server.raw(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").contains("HTTP"));
    // What cannot be read changes nothing; what can be is taken up.
    fs::write(&tls.cert, "nothing").unwrap();
    std::thread::sleep(Duration::from_millis(2500));
    assert!(runtime.block_on(ask(&server, &first)).unwrap().starts_with("HTTP/1.1 200"));
    let second = certify(&tls);
    runtime.block_on(async {
        while ask(&server, &second).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    assert!(runtime.block_on(ask(&server, &first)).is_err());
    server.end();
}
