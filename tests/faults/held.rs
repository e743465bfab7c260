//! A backup is under way, and so has the database open, when its server dies and another starts. What
//! it knows of the write-ahead log is in memory that it shares with that server, which would go by it.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use crate::client::{Answer, Client, Gone};
use crate::disk::State;
use crate::harness::{Folder, PATIENCE, Process, Server, rill};
use crate::strace::{self, Attached, Fault};
use crate::told::{self, Told};

const LOG: &str = "x.db-wal";
/// What of the log is not forgotten, and a value of which most is.
const KEPT_BYTES: usize = 64 << 10;
const LARGE_BYTES: usize = 1 << 20;

struct Backup {
    process: Process,
    copy: Folder,
}

impl Backup {
    /// As it writes the copy, with the database open for reading.
    fn stopped_in_the_middle(folder: &Folder) -> Backup {
        let copy = Folder::new();
        let options = ["-e", "trace=pwrite64", "-e", "inject=pwrite64:signal=SIGSTOP:when=5"];
        let words = strace::under(&copy, &["x.db.partial"], &options.map(str::to_owned));
        let (from, to) = (folder.file("x.db"), copy.file("x.db"));
        let args = ["backup", from.to_str().expect("UTF-8"), to.to_str().expect("UTF-8")];
        let backup = rill(&args);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg(backup.get_program()).args(backup.get_args());
        let process = Process::start(&mut command);
        let deadline = Instant::now() + PATIENCE;
        let log = copy.file("strace.log");
        while !fs::read_to_string(&log).unwrap_or_default().contains("stopped by SIGSTOP") {
            assert!(Instant::now() < deadline, "{:#?}", process.stderr.seen());
            thread::yield_now();
        }
        Backup { process, copy }
    }
}

fn append(client: &mut Client, what: &str, count: usize) -> Result<Answer, Gone> {
    let values: Vec<String> = (0..count).map(|n| format!("{what} {n} ").repeat(40)).collect();
    client.append("s", &values)
}

/// A server that was told enough for a backup to be stopped in the middle.
fn used(folder: Arc<Folder>) -> (Server, Client) {
    let server = Server::start_in(folder, &[]);
    let mut client = Client::new(server.address(), &["s"]);
    for number in 0..20 {
        assert_eq!(append(&mut client, &format!("{number}"), 5), Ok(Answer::Stored));
    }
    (server, client)
}

/// The database and its log.
fn files(folder: &Folder) -> State {
    let mut files = folder.contents();
    files.retain(|name, _| ["x.db", LOG].contains(&name.as_str()));
    files
}

/// A start is refused, says why, and leaves the files as they are.
fn check_refused(folder: &Arc<Folder>) {
    let found = files(folder);
    let Err(process) = Server::start_under(&[], folder.clone(), &[]) else {
        panic!("it started while a backup had the log of a crash open");
    };
    let (code, _, said) = process.outcome();
    assert!(files(folder) == found, "it changed something: {said}");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("has the database open"), "{said}");
}

/// A start succeeds, and everything that was told is there.
fn check_start(folder: Arc<Folder>, told: Told) {
    let server = Server::start_in(folder.clone(), &[]);
    let mut client = Client::new(server.address(), &["s"]);
    client.told = told;
    assert_eq!(client.read_at_last(), Ok(()));
    assert_eq!(append(&mut client, "after", 5), Ok(Answer::Stored));
    server.stop();
    told::check(&folder.file("x.db"), &client.told, "after the start");
}

#[test]
fn a_start_on_what_a_crash_left_waits_for_a_backup_that_is_under_way() {
    let folder = Arc::new(Folder::new());
    let (server, mut client) = used(folder.clone());
    let before = client.told.clone();
    let mut backup = Backup::stopped_in_the_middle(&folder);
    assert_eq!(append(&mut client, "meanwhile", 50), Ok(Answer::Stored));
    server.kill();
    check_refused(&folder);
    // It ends while the next server starts.
    backup.process.signal("CONT");
    check_start(folder, client.told);
    let (code, _, said) = backup.process.outcome();
    assert_eq!(code, Some(0), "{said}");
    told::check(&backup.copy.file("x.db"), &before, "the copy");
}

/// A sync failed, a backup found in the system's memory what that was to write, and the system forgets
/// some of it: the backup knows of a commit that the log no longer holds.
#[test]
fn a_start_goes_by_nothing_that_a_backup_knows_of_the_log() {
    let folder = Arc::new(Folder::new());
    let (server, mut client) = used(folder.clone());
    let server = server.stop().start();
    let mut again = Client::new(server.address(), &["s"]);
    let fault = Fault { call: "fdatasync", error: "EIO", when: "1".to_owned() };
    let attached = Attached::to_each(&server, &[LOG], &fault);
    assert_eq!(again.append("s", &["unsynced".repeat(LARGE_BYTES / 8)]), Err(Gone));
    assert!(attached.detach(), "no sync failed");
    let mut backup = Backup::stopped_in_the_middle(&folder);
    let mut log = fs::read(folder.file(LOG)).expect("there is a log");
    log[KEPT_BYTES..].fill(0);
    fs::write(folder.file(LOG), log).expect("the folder can be written");
    check_refused(&folder);
    backup.process.signal("KILL");
    check_start(folder, std::mem::take(&mut client.told));
}
