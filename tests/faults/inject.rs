//! One call on the store's files that fails, in each place there is: while a server starts, and in
//! each of its threads while it serves and stops. It goes on, or it ends and says why; it never
//! hangs, and what it told anybody holds after the next start.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, OnceLock};

use crate::client::{Client, Gone};
use crate::harness::{Folder, Process, Random, Server};
use crate::part::Part;
use crate::strace::{self, Attached, Fault};
use crate::told;

/// Small files with their bytes, as a server left them.
type Files = BTreeMap<String, Vec<u8>>;

/// What a starting server finds.
const FOUND: [Found; 3] = [Found::Nothing, Found::Closed, Found::Crashed];
/// Of the calls that fill and copy a large log so many are passed over: all would take hours.
const LARGE_STEP: usize = 977;
const LARGE_SYNC_STEP: usize = 9;

#[derive(Clone, Copy, Debug)]
enum Found {
    Nothing,
    /// A database that was closed, and has segments that one more makes due for a merge.
    Closed,
    /// One with a write-ahead log that nobody copied.
    Crashed,
}

/// What clients do meanwhile.
#[derive(Clone, Copy, Debug)]
enum Script {
    /// Appends, reads, and a stream.
    Short,
    /// One of the appends makes a fold and a merge due.
    Small,
    /// The appends fill the write-ahead log beyond its soft limit, so that it is copied.
    Large,
}

const WRITER: &str = "rill-writer";
const SYNCER: &str = "rill-syncer";
const READER: &str = "rill-reader";
const CHECKPOINTER: &str = "rill-checkpointer";

const START_CALLS: &[(&str, &str)] = &[
    ("openat", "EIO"),
    ("pread64", "EIO"),
    ("pwrite64", "EIO"),
    ("pwrite64", "ENOSPC"),
    ("fsync", "EIO"),
    ("ftruncate", "EIO"),
    ("unlink", "EIO"),
    ("mmap", "ENOMEM"),
    ("%%stat", "EIO"),
];

/// A thread, the call in it that fails, and what the clients do.
const SERVE_CALLS: &[(&str, &str, &str, Script)] = &[
    (WRITER, "pwrite64", "EIO", Script::Small),
    (WRITER, "pwrite64", "ENOSPC", Script::Small),
    (WRITER, "fsync", "EIO", Script::Small),
    (WRITER, "%%stat", "EIO", Script::Small),
    (WRITER, "ftruncate", "EIO", Script::Small),
    (WRITER, "pread64", "EIO", Script::Small),
    (WRITER, "fdatasync", "EIO", Script::Small),
    (SYNCER, "fdatasync", "EIO", Script::Small),
    (READER, "pread64", "EIO", Script::Small),
    (READER, "%%stat", "EIO", Script::Small),
    (WRITER, "mmap", "ENOMEM", Script::Large),
    (WRITER, "fsync", "EIO", Script::Large),
    (SYNCER, "fdatasync", "EIO", Script::Large),
    (CHECKPOINTER, "pread64", "EIO", Script::Large),
    (CHECKPOINTER, "pwrite64", "EIO", Script::Large),
    (CHECKPOINTER, "pwrite64", "ENOSPC", Script::Large),
    (CHECKPOINTER, "fsync", "EIO", Script::Large),
    (CHECKPOINTER, "fdatasync", "EIO", Script::Large),
    (CHECKPOINTER, "sync_file_range", "EIO", Script::Large),
    (CHECKPOINTER, "sync_file_range", "ENOSYS", Script::Large),
];

#[test]
fn a_start_survives_a_call_that_fails() {
    let mut random = Random::from_environment();
    let mut failed = 0;
    for &(call, error) in START_CALLS {
        let found = FOUND[random.range(0, FOUND.len() - 1)];
        let when = random.range(1, 30);
        failed += u32::from(start(found, &Fault { call, error, when: when.to_string() }));
    }
    assert!(failed > 0, "no call failed");
}

#[test]
fn serving_survives_a_call_that_fails() {
    let mut random = Random::from_environment();
    let (small, large): (Vec<_>, Vec<_>) =
        SERVE_CALLS.iter().partition(|(.., script)| matches!(script, Script::Small));
    let mut failed = 0;
    for &(thread, call, error, script) in
        small.iter().chain(&small).chain([&large[random.range(0, large.len() - 1)]])
    {
        let when = random.range(1, 60).to_string();
        failed += u32::from(serve(thread, &Fault { call, error, when }, script));
    }
    assert!(failed > 0, "no call failed");
}

#[test]
#[ignore = "takes some minutes"]
fn a_start_survives_every_call_that_fails() {
    let part = Part::from_environment();
    for &(call, error) in START_CALLS {
        let failed: Vec<usize> = FOUND
            .map(|found| {
                let fails =
                    |when: usize| start(found, &Fault { call, error, when: when.to_string() });
                part.of(1..).take_while(|&when| fails(when)).count()
            })
            .into();
        println!("{call} {error}: {failed:?} on {FOUND:?}");
        assert!(!part.is_first() || failed.iter().any(|&failed| failed > 0), "no {call} failed");
    }
}

#[test]
#[ignore = "takes some minutes"]
fn writer_and_syncer_survive_every_call_that_fails() {
    serve_all(|thread, script| {
        [WRITER, SYNCER].contains(&thread) && matches!(script, Script::Small)
    });
}

#[test]
#[ignore = "takes a minute"]
fn the_reader_survives_every_call_that_fails() {
    serve_all(|thread, _| thread == READER);
}

#[test]
#[ignore = "takes some minutes"]
fn copying_the_log_survives_calls_that_fail() {
    serve_all(|_, script| matches!(script, Script::Large));
}

fn serve_all(is_meant: impl Fn(&str, Script) -> bool) {
    let part = Part::from_environment();
    for &(thread, call, error, script) in SERVE_CALLS {
        if !is_meant(thread, script) {
            continue;
        }
        let fails =
            |when: usize| serve(thread, &Fault { call, error, when: when.to_string() }, script);
        let step = match (script, call) {
            (Script::Large, "pread64" | "pwrite64") => LARGE_STEP,
            (Script::Large, _) => LARGE_SYNC_STEP,
            (Script::Short | Script::Small, _) => 1,
        };
        let failed = part.of((1..).step_by(step)).take_while(|&when| fails(when)).count();
        println!("{thread} {call} {error} {script:?}: {failed}");
        assert!(!part.is_first() || failed > 0, "no {call} failed");
    }
}

/// Starts a server whose calls fail so, in every thread, and uses it; whether one failed.
fn start(found: Found, fault: &Fault) -> bool {
    let what = format!("starting on {found:?} with {fault:?}");
    let folder = folder(found);
    let (told, ended) = match strace::start_with(fault, &folder) {
        Ok(server) => {
            let mut client = Client::new(server.address(), &STORAGES);
            let played = play(&mut client, Script::Short);
            (client.told, end(server, played))
        }
        Err(process) => (told::Told::default(), ended(process)),
    };
    check_end(&ended, &what);
    told::check(&folder.file("x.db"), &told, &what);
    strace::injected_in(&folder)
}

/// Starts a server, lets the calls of one thread fail so, and uses it; whether one failed.
fn serve(thread: &str, fault: &Fault, script: Script) -> bool {
    let what = format!("{thread} at {script:?} with {fault:?}");
    let folder = folder(Found::Closed);
    let server = Server::start_in(folder.clone(), &[]);
    let attached = Attached::to(&server, thread, strace::all_files(), fault);
    let mut client = Client::new(server.address(), &STORAGES);
    let played = play(&mut client, script);
    let ended = end(server, played);
    let injected = attached.detach();
    check_end(&ended, &what);
    told::check(&folder.file("x.db"), &client.told, &what);
    injected
}

const STORAGES: [&str; 3] = ["s0", "s1", "s2"];
/// What is appended to this one is neither read nor followed.
const BESIDE: &str = "beside";
const MIB: usize = 1 << 20;
/// More than the writer syncs by itself.
const LARGE_VALUES: usize = rill::config::SYNC_FEW + 8;
const IDLE_FOLD_EVENTS: usize = 1_024;
const SEGMENT_FAN_OUT: usize = 8;

fn play(client: &mut Client, script: Script) -> Result<(), Gone> {
    client.follow_to_the_last()?;
    for number in 0..6 {
        client.append_at_last(STORAGES[number % 3], &[format!("first {number}")])?;
    }
    client.read_at_last()?;
    client.follow_to_the_last()?;
    match script {
        Script::Short => {}
        Script::Small => {
            client.append_at_last("s0", &numbered("folded", IDLE_FOLD_EVENTS))?;
            client.append_until(BESIDE, 0, "rill_segments", |segments| segments == 1.0)?;
        }
        Script::Large => {
            for number in 0..10 {
                let bytes = 7 * MIB / LARGE_VALUES;
                let values = (0..LARGE_VALUES).map(|place| format!("{number}.{place:02}"));
                let values = values.map(|value| value.repeat(bytes / value.len()));
                client.append_at_last(BESIDE, &values.collect::<Vec<_>>())?;
            }
            client.append_until(BESIDE, 100_000, "rill_wal_bytes", |bytes| bytes < 10e6)?;
        }
    }
    for number in 0..6 {
        client.append_at_last(STORAGES[number % 3], &[format!("last {number}")])?;
    }
    // Known from the segments, and not stored again.
    client.append_at_last("s0", &["first 0".to_owned()])?;
    client.read_at_last()?;
    client.follow_to_the_last()?;
    client.leave();
    Ok(())
}

fn numbered(what: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{what} {number}")).collect()
}

/// How a server ended: its code, and what it said.
type Ended = (Option<i32>, String);

fn end(mut server: Server, played: Result<(), Gone>) -> Ended {
    if played.is_ok() {
        server.process.signal("TERM");
    }
    let (code, said) = ended(server.process);
    assert!(played.is_ok() || code == Some(1), "it was gone, and its code is {code:?}: {said}");
    (code, said)
}

fn ended(process: Process) -> Ended {
    let (code, _, said) = process.outcome();
    (code, said)
}

/// As asked, or with an error that names a reason.
fn check_end((code, said): &Ended, what: &str) {
    let explained = said.lines().any(|line| {
        let reason = line.split_once("ERROR rill: ").or_else(|| line.split_once("rill: "));
        reason.is_some_and(|(_, reason)| reason.len() > 10)
    });
    assert!(*code == Some(0) || (*code == Some(1) && explained), "{what}: {code:?}, {said}");
}

fn folder(found: Found) -> Arc<Folder> {
    let folder = Arc::new(Folder::new());
    let files = match found {
        Found::Nothing => return folder,
        Found::Closed => &made().0,
        Found::Crashed => &made().1,
    };
    for (name, bytes) in files {
        fs::write(folder.file(name), bytes).expect("the folder can be written");
    }
    folder
}

/// The databases of `Found`: the closed one, and the crashed one.
fn made() -> &'static (Files, Files) {
    static MADE: OnceLock<(Files, Files)> = OnceLock::new();
    MADE.get_or_init(|| {
        let server = Server::start();
        for segment in 1..SEGMENT_FAN_OUT {
            let values = numbered(&segment.to_string(), IDLE_FOLD_EVENTS);
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            server.set(&format!("old {segment}"), &values);
            while server.metric("rill_segments") != segment as f64 {}
        }
        let folder = server.stop().folder;
        let closed = folder.contents();
        let server = Server::start_in(folder, &[]);
        for number in 0..20 {
            server.set("crashed", &[&number.to_string()]);
        }
        let crashed = server.kill().folder.contents();
        (closed, crashed)
    })
}
