//! Owns a running server: started on a file, found by the line it prints, stopped, and asked for
//! its processor time. Called by `population`, `costs` and `load`.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

use crate::client::Failure;

/// How long the server may go on working after the last answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// It is killed when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    process: Child,
    url: String,
}

impl Server {
    /// Returns when it answers and has nothing left to do.
    pub(crate) fn start(rill: &Path, file: &Path) -> Result<Server, Failure> {
        let mut command = Command::new(rill);
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_setting(name)) {
            command.env_remove(name);
        }
        command.args(["serve", "--listen", "127.0.0.1:0", "--log-level", "warn", "--db"]).arg(file);
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", rill.display()))?;
        let mut line = String::new();
        let stdout = process.stdout.take().expect("stdout is piped");
        let mut server = Server { process, url: String::new() };
        BufReader::new(stdout).read_line(&mut line)?;
        let url = line.split(' ').find(|word| word.starts_with("http://"));
        server.url = url.ok_or_else(|| format!("the server says {line:?}"))?.to_owned();
        server.wait_until_quiet()?;
        Ok(server)
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// User and system time of all its threads.
    pub(crate) fn cpu(&self) -> Result<Duration, Failure> {
        Ok(clock_getcpuclockid(self.pid())?.now()?.into())
    }

    /// Until it indexes and merges no more: that is the appends' cost, and not the next request's.
    pub(crate) fn wait_until_quiet(&self) -> Result<(), Failure> {
        let (begin, mut before) = (Instant::now(), self.cpu()?);
        while begin.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(200));
            let now = self.cpu()?;
            if now - before < Duration::from_millis(1) {
                return Ok(());
            }
            before = now;
        }
        Err("the server does not come to rest".into())
    }

    /// Returns when it has put everything into its one file.
    pub(crate) fn stop(mut self) -> Result<(), Failure> {
        kill(self.pid(), Signal::SIGTERM)?;
        let status = self.process.wait()?;
        if status.success() { Ok(()) } else { Err(format!("the server ends with {status}").into()) }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.process.id().cast_signed())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail where it has stopped already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn is_setting(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b"RILL_")
}
