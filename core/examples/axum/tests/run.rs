//! The examples run: on a real Redis, with a process a node.

#[allow(dead_code, missing_docs)]
#[path = "../../../tests/support/redis_server.rs"]
mod redis_server;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use redis_server::RedisServer;

/// How long anything expected may take to happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// A process of the notifier; ends with its owner.
struct Notifier {
    child: Child,
    address: String,
}

impl Notifier {
    fn start(url: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_notifier"))
            .args([url, "0"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("it was built");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line).expect("it prints");
        let address = line.trim().trim_start_matches("http://").split('/').next().unwrap_or_default();
        Notifier { address: address.to_owned(), child }
    }

    fn ask(&self, request: &str) -> TcpStream {
        let mut socket = TcpStream::connect(&self.address).expect("it listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
        socket.write_all(request.as_bytes()).expect("it reads");
        socket
    }

    fn notify(&self, text: &str) {
        let length = text.len();
        let request = format!(
            "POST /streams/s1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{text}"
        );
        let mut answer = String::new();
        self.ask(&request).read_to_string(&mut answer).expect("it answers");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    fn listen(&self, last_event_id: &str) -> Listening {
        let last = if last_event_id.is_empty() {
            String::new()
        } else {
            format!("Last-Event-ID: {last_event_id}\r\n")
        };
        let mut lines =
            BufReader::new(self.ask(&format!("GET /streams/s1 HTTP/1.1\r\nHost: x\r\n{last}\r\n")));
        let mut status = String::new();
        lines.read_line(&mut status).expect("it answers");
        assert!(status.starts_with("HTTP/1.1 200"), "{status}");
        let mut listening = Listening { lines, id: String::new() };
        assert_eq!(listening.next(), "false", "there is no gap");
        listening
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An open stream of events.
struct Listening {
    lines: BufReader<TcpStream>,
    id: String,
}

impl Listening {
    /// The data of the next event.
    fn next(&mut self) -> String {
        let (mut line, mut data) = (String::new(), String::new());
        loop {
            line.clear();
            assert!(self.lines.read_line(&mut line).expect("an event comes in time") > 0, "it has ended");
            let field = line.trim_end();
            if let Some(id) = field.strip_prefix("id: ") {
                self.id = id.to_owned();
            } else if let Some(text) = field.strip_prefix("data: ") {
                data = text.to_owned();
            } else if field.is_empty() && !data.is_empty() {
                return data;
            }
        }
    }
}

#[test]
fn two_processes_serve_one_stream() {
    let server = RedisServer::start().expect("a Redis server");
    let (a, b) = (Notifier::start(&server.url()), Notifier::start(&server.url()));
    let mut stream = a.listen("");
    b.notify("hello");
    assert_eq!(stream.next(), "hello");
    let last = stream.id.clone();
    drop(stream);
    a.notify("missed one");
    b.notify("missed two");
    let mut resumed = b.listen(&last);
    assert_eq!([resumed.next(), resumed.next()], ["missed one", "missed two"]);
    a.notify("live again");
    assert_eq!(resumed.next(), "live again");
}

#[test]
fn the_layer_lets_only_the_owner_in() {
    let ran = Command::new(env!("CARGO_BIN_EXE_registry_layer")).output().expect("it was built");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}
