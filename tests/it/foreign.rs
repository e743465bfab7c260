//! Other programs that have the database open through SQLite, for reading or for writing, while a
//! server runs, stops and starts. It may refuse; what it acknowledged stays.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use rusqlite::Connection;
use serde_json::json;

use crate::harness::{Process, Server, Stopped};

/// These name the database, and what is done with it, to the process that these tests start.
const DB: &str = "IT_FOREIGN_DB";
const SQL: &str = "IT_FOREIGN_SQL";
const PROGRAM: &str = "foreign::opens_a_database";

/// What a program does with the database, and stays.
const IDLE: &str = "SELECT count(*) FROM log";
const READING: &str = "BEGIN; SELECT count(*) FROM log";
const WRITING: &str = "BEGIN IMMEDIATE; DELETE FROM log";
/// Or closes it.
const CLOSING: &str = "PRAGMA wal_checkpoint; SELECT count(*) FROM log";

/// Until this is dropped, a program is there that did so.
fn program(db: &Path, sql: &str) -> Process {
    let this = std::env::current_exe().expect("a process knows its program");
    let mut command = Command::new(this);
    command.args([PROGRAM, "--exact", "--ignored", "--nocapture"]);
    let process = Process::start(command.env(DB, db).env(SQL, sql));
    let did = process.stdout.wait_for(|lines| lines.iter().any(|line| line == sql).then_some(()));
    assert!(did.is_some(), "{sql}: {:#?}", process.stderr.seen());
    process
}

/// Not a test but the process that the tests start; alone it does nothing.
#[test]
#[ignore = "run by others"]
fn opens_a_database() {
    let (Some(db), Ok(sql)) = (std::env::var_os(DB), std::env::var(SQL)) else { return };
    let conn = Connection::open(PathBuf::from(db)).expect("it opens");
    conn.execute_batch(&sql).expect("nobody is in the way");
    if sql == CLOSING {
        conn.close().expect("nobody is in the way");
    }
    println!("{sql}");
    loop {
        thread::park();
    }
}

fn append(server: &Server, value: &str) -> u16 {
    server.connect().post("/set/a", &json!({ "value": value }).to_string()).status
}

/// Starts a server on what is left, alone, and expects these events in it.
fn check_events(left: Stopped, values: &[&str]) {
    let read = left.start().read("/get?id=a");
    let event = |(place, value)| json!({ "seq": place + 1, "value": value });
    let events: Vec<_> = values.iter().enumerate().map(event).collect();
    assert_eq!(read["items"][0]["events"], json!(events));
}

#[test]
fn programs_beside_a_server_cost_no_event() {
    let check = |sql: &str, status: u16| {
        let server = Server::start();
        assert_eq!(append(&server, "before"), 201);
        let program = program(&server.db(), sql);
        assert_eq!(append(&server, "meanwhile"), status, "{sql}");
        assert_eq!(server.read("/get?id=a")["items"][0]["events"][0]["value"], "before");
        drop(program);
        // What was answered with 500 was not stored; or it was, and is known.
        assert!([200, 201].contains(&append(&server, "meanwhile")), "{sql}");
        assert_eq!(append(&server, "after"), 201, "{sql}");
        check_events(server.kill(), &["before", "meanwhile", "after"]);
    };
    thread::scope(|scope| {
        for (sql, status) in [(IDLE, 201), (READING, 201), (WRITING, 500), (CLOSING, 201)] {
            scope.spawn(move || check(sql, status));
        }
    });
}

#[test]
fn a_stop_beside_a_program_is_a_stop() {
    thread::scope(|scope| {
        for sql in [IDLE, READING, WRITING] {
            scope.spawn(move || {
                let server = Server::start();
                assert_eq!(append(&server, "before"), 201);
                let program = program(&server.db(), sql);
                let stopped = server.stop();
                drop(program);
                check_events(stopped, &["before"]);
            });
        }
    });
}

/// Who ends the server that a program is there after.
#[derive(Clone, Copy, Debug)]
enum End {
    Crash,
    Stop,
}

#[test]
fn a_start_beside_a_program_is_refused_or_sound() {
    let check = |end: End, sql: &str, refusal: Option<&str>| {
        let server = Server::start();
        assert_eq!(append(&server, "before"), 201);
        let left = match end {
            End::Crash => server.kill(),
            End::Stop => server.stop(),
        };
        let program = program(&left.folder.file("x.db"), sql);
        let values: &[&str] = match (Server::start_under(&[], left.folder.clone(), &[]), refusal) {
            (Ok(server), None) => {
                assert_eq!(append(&server, "meanwhile"), 201, "{end:?}, {sql}");
                server.kill();
                &["before", "meanwhile"]
            }
            (Err(process), Some(refusal)) => {
                let (code, _, said) = process.outcome();
                assert_eq!(code, Some(1), "{end:?}, {sql}: {said}");
                assert!(said.contains(refusal), "{end:?}, {sql}: {said}");
                &["before"]
            }
            (result, _) => panic!("{end:?}, {sql}: it started: {}", result.is_ok()),
        };
        drop(program);
        check_events(left, values);
    };
    const OPEN: Option<&str> = Some("has the database open");
    thread::scope(|scope| {
        for (end, sql, refusal) in [
            (End::Crash, IDLE, OPEN),
            (End::Crash, READING, OPEN),
            (End::Crash, WRITING, OPEN),
            (End::Crash, CLOSING, None),
            (End::Stop, IDLE, None),
            (End::Stop, READING, Some("something that reads the database")),
            (End::Stop, WRITING, Some("is locked")),
            (End::Stop, CLOSING, None),
        ] {
            scope.spawn(move || check(end, sql, refusal));
        }
    });
}
