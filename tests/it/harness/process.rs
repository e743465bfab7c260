//! Owns one process of the binary: its output line by line, signals, and its exit.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Instant;

use super::PATIENCE;

/// A child that is killed when dropped.
pub(crate) struct Process {
    id: u32,
    exit: Receiver<ExitStatus>,
    status: Option<ExitStatus>,
    pub(crate) stdout: Lines,
    pub(crate) stderr: Lines,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Process {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let stdout = Lines::of(child.stdout.take().expect("stdout is piped"));
        let stderr = Lines::of(child.stderr.take().expect("stderr is piped"));
        Process { id: child.id(), exit: reap(child), status: None, stdout, stderr }
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    pub(crate) fn signal(&mut self, name: &str) {
        if self.status.is_none() {
            self.status = self.exit.try_recv().ok();
        }
        if self.status.is_none() {
            let sent =
                Command::new("kill").args([format!("-{name}"), self.id.to_string()]).output();
            if !sent.expect("kill can be run").status.success() {
                self.status = self.exit.recv_timeout(PATIENCE).ok();
                assert!(self.status.is_some(), "SIG{name} was not sent");
            }
        }
    }

    /// Waits for the exit: the code, or `None` after a signal.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        let status = *self.status.get_or_insert_with(|| {
            self.exit.recv_timeout(PATIENCE).unwrap_or_else(|_| {
                panic!("no exit within {PATIENCE:?}; stderr: {:#?}", self.stderr.seen())
            })
        });
        status.code()
    }

    /// Waits for the exit: the code, all of stdout, all of stderr.
    pub(crate) fn outcome(mut self) -> (Option<i32>, String, String) {
        let code = self.exit_code();
        (code, self.stdout.all(), self.stderr.all())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.status.is_none() && self.exit.try_recv().is_err() {
            let _ = Command::new("kill").args(["-KILL", &self.id.to_string()]).output();
            let _ = self.exit.recv_timeout(PATIENCE);
        }
        if thread::panicking() {
            eprintln!("stderr of process {}: {:#?}", self.id, self.stderr.seen());
        }
    }
}

fn reap(mut child: Child) -> Receiver<ExitStatus> {
    let (sender, exit) = channel();
    thread::spawn(move || {
        if let Ok(status) = child.wait() {
            let _ = sender.send(status);
        }
    });
    exit
}

/// The lines a process has written so far, which can be waited for.
#[derive(Clone)]
pub(crate) struct Lines(Arc<(Mutex<Output>, Condvar)>);

#[derive(Default)]
struct Output {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    fn of(pipe: impl Read + Send + 'static) -> Lines {
        let lines = Lines(Arc::default());
        let writer = lines.clone();
        thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                writer.change(|o| o.lines.push(String::from_utf8_lossy(&line).into_owned()));
            }
            writer.change(|o| o.ended = true);
        });
        lines
    }

    fn change(&self, change: impl FnOnce(&mut Output)) {
        let (output, changed) = &*self.0;
        change(&mut output.lock().expect("no holder panics"));
        changed.notify_all();
    }

    pub(crate) fn seen(&self) -> Vec<String> {
        self.0.0.lock().expect("no holder panics").lines.clone()
    }

    /// Waits until `find` finds something in the lines; `None` when they ended without it.
    pub(crate) fn wait_for<T>(&self, find: impl Fn(&[String]) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + PATIENCE;
        let (output, changed) = &*self.0;
        let mut output = output.lock().expect("no holder panics");
        loop {
            if let Some(found) = find(&output.lines) {
                return Some(found);
            }
            if output.ended {
                return None;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "not written within {PATIENCE:?}: {:#?}", output.lines);
            output = changed.wait_timeout(output, left).expect("no holder panics").0;
        }
    }

    fn all(&self) -> String {
        let nothing: Option<()> = self.wait_for(|_| None);
        assert_eq!(nothing, None);
        self.seen().join("\n")
    }
}
