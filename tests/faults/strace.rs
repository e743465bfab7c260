//! Owns strace: the words that start a server under it, the process that is attached to a running
//! server or one thread of it, and its log. Knows no call's meaning.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use crate::harness::{Folder, PATIENCE, Process, Server};

/// The files of a store, which are traced alone, beside their folder.
const FILES: [&str; 5] = ["x.db", "x.db-wal", "x.db-shm", "x.db-journal", "x.db.lock"];
const LOG: &str = "strace.log";

/// A call that fails: which kind, how, and when of those that a thread makes.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) call: &'static str,
    pub(crate) error: &'static str,
    /// strace's `when`: `3` is the third, `3+` every one from the third on.
    pub(crate) when: String,
}

impl Fault {
    fn words(&self) -> [String; 4] {
        let Fault { call, error, when } = self;
        let inject = format!("inject={call}:error={error}:when={when}");
        ["-e".to_owned(), format!("trace={call}"), "-e".to_owned(), inject]
    }
}

/// The words in front of a server's own that start it under strace, with this folder's log.
pub(crate) fn under(folder: &Folder, files: &[&str], options: &[String]) -> Vec<String> {
    check_strace();
    // -D: the server stays our child, and strace is the one that nobody waits for.
    let mut words: Vec<String> = ["strace", "-D", "-f", "-qq", "-o"].map(str::to_owned).into();
    words.push(path(folder, LOG));
    words.extend(paths(folder, files));
    words.extend_from_slice(options);
    words.push("--".to_owned());
    words
}

/// Starts a server in whose every thread calls on the store's files fail so.
pub(crate) fn start_with(fault: &Fault, folder: &Arc<Folder>) -> Result<Server, Process> {
    let words = under(folder, &FILES, &fault.words());
    Server::start_under(&words, folder.clone(), &[])
}

/// strace, attached to a running server.
pub(crate) struct Attached {
    process: Process,
    log: PathBuf,
}

impl Attached {
    /// From now on the thread's calls on these files of the store fail so.
    pub(crate) fn to(server: &Server, thread: &str, files: &[&str], fault: &Fault) -> Attached {
        let options = ["-p".to_owned(), thread_id(server, thread)];
        Attached::with(server, files, options.into_iter().chain(fault.words()))
    }

    /// The same of every thread, each of which counts its own.
    pub(crate) fn to_each(server: &Server, files: &[&str], fault: &Fault) -> Attached {
        Attached::to_all(server, files, &fault.words())
    }

    /// To every thread, with these options.
    pub(crate) fn to_all(server: &Server, files: &[&str], options: &[String]) -> Attached {
        let all = ["-f".to_owned(), "-p".to_owned(), server.process.id().to_string()];
        Attached::with(server, files, all.into_iter().chain(options.to_vec()))
    }

    fn with(
        server: &Server,
        files: &[&str],
        options: impl IntoIterator<Item = String>,
    ) -> Attached {
        check_strace();
        let log = server.folder.file(LOG);
        let mut command = Command::new("strace");
        command.arg("-o").arg(&log).args(paths(&server.folder, files)).args(options);
        let process = Process::start(&mut command);
        let attached = process.stderr.wait_for(|lines| {
            lines
                .iter()
                .any(|line| line.contains("Process ") && line.contains(" attached"))
                .then_some(())
        });
        assert!(
            attached.is_some(),
            "strace may not attach to a process of ours (kernel.yama.ptrace_scope?): {:#?}",
            process.stderr.seen()
        );
        Attached { process, log }
    }

    /// Lets go of what is still there; whether a call failed.
    pub(crate) fn detach(mut self) -> bool {
        self.process.signal("TERM");
        self.process.exit_code();
        injected(&self.log)
    }
}

/// All files of a store.
pub(crate) fn all_files() -> &'static [&'static str] {
    &FILES
}

/// Whether strace, which ended, made a call fail in this folder.
pub(crate) fn injected_in(folder: &Folder) -> bool {
    injected(&folder.file(LOG))
}

pub(crate) fn log_of(folder: &Folder) -> Vec<u8> {
    fs::read(folder.file(LOG)).expect("strace wrote its log")
}

fn injected(log: &Path) -> bool {
    fs::read_to_string(log).expect("strace wrote its log").contains("(INJECTED)")
}

fn path(folder: &Folder, name: &str) -> String {
    folder.file(name).to_str().expect("test paths are UTF-8").to_owned()
}

fn paths(folder: &Folder, files: &[&str]) -> Vec<String> {
    // An empty name is the folder itself, which is synced when a file is made in it.
    let names = files.iter().copied().chain([""]);
    names.flat_map(|name| ["-P".to_owned(), path(folder, name)]).collect()
}

/// The number of the thread whose name begins so (the system keeps 15 bytes of it). A thread takes
/// its name after it was started, so it is looked for until it has.
fn thread_id(server: &Server, name: &str) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let tasks = format!("/proc/{}/task", server.process.id());
        for task in fs::read_dir(tasks).expect("the server lives") {
            let task = task.expect("a thread can be listed");
            let comm = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            if comm.trim_end() == &name[..name.len().min(15)] {
                return task.file_name().into_string().expect("a number");
            }
        }
        assert!(Instant::now() < deadline, "no thread is called {name}");
        thread::yield_now();
    }
}

fn check_strace() {
    let there = Command::new("strace").arg("-V").output().is_ok();
    assert!(there, "strace is missing, which these tests need: apt-get install strace");
}
