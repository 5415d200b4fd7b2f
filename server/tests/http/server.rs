//! A server of this process, and requests to it.

use roxanne_engine::collection::{CollectionOptions, Durability};
use roxanne_server::{ServeError, ServerOptions, serve};
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    thread::JoinHandle,
    time::Duration,
};
use tokio::sync::oneshot;

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), ServeError>>>,
}

pub(crate) fn options(data: &Path, api_key: Option<&str>) -> ServerOptions {
    ServerOptions {
        data: data.to_path_buf(),
        bind: "127.0.0.1:0".parse().unwrap(),
        api_key: api_key.map(String::from),
        insecure: false,
        tls: None,
        cors_origins: Vec::new(),
        slow_query: None,
        canary_every: None,
        program: None,
        import: None,
        collection: CollectionOptions { durability: Durability::Os, ..CollectionOptions::default() },
    }
}

impl Server {
    pub(crate) fn start(options: ServerOptions) -> Server {
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, address) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            let stopped = async { drop(stopped.await) };
            runtime.block_on(serve(options, |address| ready.send(address).unwrap(), stopped))
        });
        Server { address: address.recv_timeout(Duration::from_secs(30)).unwrap(), stop: Some(stop), thread: Some(thread) }
    }

    /// Sends a request and reads the answer, to the end of the connection.
    pub(crate) fn raw(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        // One that is refused early may find the door closed.
        let _ = stream.write_all(request);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    }

    pub(crate) fn with(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, Value) {
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n", body.len());
        let answer = self.raw(&[head.as_bytes(), body.as_bytes()].concat());
        let status = answer.split(' ').nth(1).unwrap_or_else(|| panic!("{method} {path}: {answer:?}")).parse().unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        (status, serde_json::from_str(body).unwrap_or_else(|_| json!(body)))
    }

    /// The same of bytes.
    pub(crate) fn bytes(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n", body.len());
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let status = std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
        (status, answer[end + 4..].to_vec())
    }

    #[track_caller]
    pub(crate) fn well(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.with(method, path, "", &text_of(&body));
        assert!(status == 200 && answer["status"] == "ok" && answer["time"].is_number(), "{method} {path}: {status} {answer}");
        answer["result"].clone()
    }

    #[track_caller]
    pub(crate) fn refused(&self, method: &str, path: &str, body: Value, status: u16, said: &str) {
        let (got, answer) = self.with(method, path, "", &text_of(&body));
        let error = answer["status"]["error"].as_str().unwrap_or_default();
        assert!(got == status && error.contains(said), "{method} {path}: {got} {answer}");
    }

    /// Ends it as a signal would.
    pub(crate) fn end(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

/// Of null, nothing.
fn text_of(body: &Value) -> String {
    if body.is_null() { String::new() } else { body.to_string() }
}
