//! Owns a running server: started in a folder, found by the line it prints, stopped, killed,
//! started again on the same file.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};

use super::process::Lines;
use super::{Connection, Folder, Process, Reply, Stream, encode};

const RILL: &str = env!("CARGO_BIN_EXE_rill");

/// The binary with these arguments, and no setting from the environment. `RILL_BIN` names another
/// than the one that was built with the tests.
pub(crate) fn rill(args: &[&str]) -> Command {
    rill_under(&[], args)
}

/// The same, started by another command.
fn rill_under(tracer: &[String], args: &[&str]) -> Command {
    let rill = std::env::var("RILL_BIN").unwrap_or_else(|_| RILL.to_owned());
    let mut words = tracer.iter().map(String::as_str).chain([rill.as_str()]);
    let mut command = Command::new(words.next().expect("there is the binary at least"));
    command.args(words);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("RILL_")) {
        command.env_remove(name);
    }
    command.args(args);
    command
}

pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) folder: Arc<Folder>,
    args: Vec<String>,
}

impl Server {
    pub(crate) fn start() -> Server {
        Server::start_with(&[])
    }

    /// With further arguments.
    pub(crate) fn start_with(args: &[&str]) -> Server {
        Server::start_in(Arc::new(Folder::new()), args)
    }

    pub(crate) fn start_in(folder: Arc<Folder>, args: &[&str]) -> Server {
        Server::start_under(&[], folder, args)
            .unwrap_or_else(|process| panic!("no start: {:#?}", process.stderr.seen()))
    }

    /// Started by another command, which leaves the server this process's child. A server that does
    /// not come to serve is returned as what it is.
    pub(crate) fn start_under(
        tracer: &[String],
        folder: Arc<Folder>,
        args: &[&str],
    ) -> Result<Server, Process> {
        let db = folder.file("x.db");
        let mut all = vec!["serve", "--db", db.to_str().expect("test paths are UTF-8")];
        if !args.contains(&"--listen") {
            all.extend(["--listen", "127.0.0.1:0"]);
        }
        all.extend(args);
        let listeners = all.iter().filter(|arg| **arg == "--listen").count();
        let process = Process::start(&mut rill_under(tracer, &all));
        let Some(addresses) = listening(&process.stdout, listeners) else { return Err(process) };
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        Ok(Server { process, addresses, folder, args })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    pub(crate) fn db(&self) -> PathBuf {
        self.folder.file("x.db")
    }

    /// Asks the server to stop and expects that it does so gracefully.
    pub(crate) fn stop(mut self) -> Stopped {
        self.process.signal("TERM");
        self.stopped()
    }

    /// Waits for the end of a server that was asked to stop.
    pub(crate) fn stopped(mut self) -> Stopped {
        assert_eq!(self.process.exit_code(), Some(0), "{:#?}", self.process.stderr.seen());
        Stopped { folder: self.folder, args: self.args }
    }

    pub(crate) fn kill(mut self) -> Stopped {
        self.process.signal("KILL");
        assert_eq!(self.process.exit_code(), None, "SIGKILL ends a process without a code");
        Stopped { folder: self.folder, args: self.args }
    }

    pub(crate) fn connect(&self) -> Connection {
        Connection::open(self.address())
    }

    pub(crate) fn get(&self, target: &str) -> Reply {
        self.connect().get(target)
    }

    /// The JSON of a read that succeeds.
    pub(crate) fn read(&self, target: &str) -> Value {
        let reply = self.get(target);
        assert_eq!(reply.status, 200, "{target}: {}", reply.text());
        reply.json()
    }

    /// Appends values as one request; the `seq` of each.
    pub(crate) fn set(&self, id: &str, values: &[&str]) -> Vec<u64> {
        set_over(&mut self.connect(), id, values)
    }

    pub(crate) fn stream(&self, target: &str) -> Stream {
        Stream::open(self.address(), target, &[])
    }

    /// The sample of that name in the metrics.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let reply = self.get("/metrics");
        let mut samples = reply.text().lines().filter_map(|line| line.rsplit_once(' '));
        let (_, number) = samples.find(|sample| sample.0 == name).expect("there is such a metric");
        number.parse().expect("a sample is a number")
    }

    /// A line `name: N kB` of the process's status, in bytes.
    pub(crate) fn status_bytes(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(path).expect("the process is alive");
        let line = status.lines().find(|line| line.starts_with(name)).expect("Linux names it");
        let number = line.split_whitespace().nth(1).expect("the line holds a number");
        1024 * number.parse::<u64>().expect("the number is decimal")
    }

    /// From now on `VmHWM` is the peak since now.
    pub(crate) fn reset_peak(&self) {
        let path = format!("/proc/{}/clear_refs", self.process.id());
        std::fs::write(path, "5").expect("a parent may reset its child's peak");
    }
}

/// A server that is no more, and its files.
pub(crate) struct Stopped {
    pub(crate) folder: Arc<Folder>,
    args: Vec<String>,
}

impl Stopped {
    pub(crate) fn start(self) -> Server {
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        Server::start_in(self.folder, &args)
    }
}

/// Appends values as one request over a connection that is kept; the `seq` of each.
pub(crate) fn set_over(connection: &mut Connection, id: &str, values: &[&str]) -> Vec<u64> {
    let body = json!({ "values": values }).to_string();
    let target = format!("/set/{}", encode(id));
    let reply = connection.request("POST", &target, &[], body.as_bytes());
    assert!(matches!(reply.status, 200 | 201), "{target}: {}", reply.text());
    let events = reply.json()["events"].as_array().expect("an append names its events").clone();
    events.iter().map(|event| event["seq"].as_u64().expect("a seq is a number")).collect()
}

/// Waits for the addresses the server says it listens on.
pub(crate) fn listening(stdout: &Lines, listeners: usize) -> Option<Vec<SocketAddr>> {
    stdout.wait_for(|lines| {
        let found: Vec<SocketAddr> = lines.iter().flat_map(|line| urls(line)).collect();
        (found.len() >= listeners).then_some(found)
    })
}

fn urls(line: &str) -> Vec<SocketAddr> {
    let after = line.split("http://").skip(1);
    after
        .filter_map(|rest| {
            let end = rest.find(|c: char| !(c.is_ascii_hexdigit() || "[]:.".contains(c)));
            rest[..end.unwrap_or(rest.len())].trim_end_matches('.').parse().ok()
        })
        .collect()
}
