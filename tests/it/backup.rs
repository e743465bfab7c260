//! Copies of a database that is served, and what cursors mean to a server on one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::json;

use crate::harness::{Connection, Folder, Process, Server, Stream, rill};

fn backup(server: &Server, copy: &Folder) -> (Option<i32>, String, String) {
    let (from, to) = (server.db(), copy.file("x.db"));
    let path = |path: &std::path::Path| path.to_str().expect("test paths are UTF-8").to_owned();
    Process::start(&mut rill(&["backup", &path(&from), &path(&to)])).outcome()
}

fn cursor(server: &Server) -> String {
    server.read("/get?id=a&last=0")["cursor"].as_str().expect("a string").to_owned()
}

#[test]
fn a_copy_is_one_moment_and_knows_later_cursors_for_foreign() {
    let server = Server::start();
    server.set("a", &["before"]);
    let before = cursor(&server);
    let (address, stop) = (server.address(), Arc::new(AtomicBool::new(false)));
    let appender = thread::spawn({
        let stop = stop.clone();
        move || {
            let mut connection = Connection::open(address);
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                let body = json!({ "value": format!("{number}") }).to_string();
                assert_eq!(connection.post("/set/a", &body).status, 201);
                number += 1;
            }
            number
        }
    });
    let mut witness = server.stream("/get?id=a&last=0");
    for _ in 0..50 {
        witness.next();
    }
    let copy = Folder::new();
    let outcome = backup(&server, &copy);
    assert_eq!(outcome.0, Some(0), "{outcome:?}");
    let names: Vec<String> = copy.contents().into_keys().collect();
    assert_eq!(names, ["x.db"], "a copy is one file");
    for _ in 0..50 {
        witness.next();
    }
    stop.store(true, Ordering::Relaxed);
    let appended = appender.join().expect("appends go on while a copy is made");
    let after = cursor(&server);
    let original = server.read("/get?id=a");
    assert_eq!(original["items"][0]["count"], appended + 1);

    let restored = Server::start_in(Arc::new(copy), &[]);
    let read = restored.read("/get?id=a");
    let events = read["items"][0]["events"].as_array().expect("an item has events");
    let all = original["items"][0]["events"].as_array().expect("an item has events");
    assert!(events.len() > 40 && events.len() < all.len(), "{} events", events.len());
    assert_eq!(events[..], all[..events.len()]);
    let resumed = restored.read(&format!("/get?id=a&after={before}"));
    assert_eq!(resumed["items"][0]["events"][0]["seq"], 2);
    assert!(resumed.get("reset").is_none(), "{before} is from before the copy");
    let foreign = restored.read(&format!("/get?id=a&after={after}"));
    assert_eq!(foreign["reset"], true, "{after} is from after the copy");
    let field = format!("Last-Event-ID: {after}");
    let mut stream = Stream::open(restored.address(), "/get?id=a", &[&field]);
    assert_eq!(stream.next().event, "reset");

    let count = events.len() as u64;
    let next = restored.set("a", &["only here"]);
    assert_eq!(next, [count + 1], "the copy goes on by itself");
    let foreign = server.read(&format!("/get?id=a&after={}", cursor(&restored)));
    assert_eq!(foreign["reset"], true, "the original knows nothing of the copy's epoch");
    let own = restored.read(&format!("/get?id=a&after={after}"));
    assert_eq!(own["reset"], true, "growing does not make a foreign cursor valid");
}

#[test]
fn a_copy_replaces_nothing_and_needs_an_original() {
    let server = Server::start();
    server.set("a", &["v"]);
    let copy = Folder::new();
    std::fs::write(copy.file("x.db"), "mine").expect("the folder can be written");
    let before = copy.contents();
    let (code, _, stderr) = backup(&server, &copy);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("x.db"), "{stderr}");
    assert!(copy.contents() == before);
    let (missing, target) = (copy.file("missing.db"), copy.file("target.db"));
    for from in [&missing, &copy.file("x.db")] {
        let from = from.to_str().expect("test paths are UTF-8");
        let to = target.to_str().expect("test paths are UTF-8");
        let (code, _, stderr) = Process::start(&mut rill(&["backup", from, to])).outcome();
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.contains(from), "{stderr}");
        assert!(copy.contents() == before, "{:?}", copy.contents().keys());
    }
}

#[test]
fn a_database_that_nobody_serves_is_copied_as_well() {
    let server = Server::start();
    server.set("a", &["v"]);
    let crashed = server.kill();
    let copy = Folder::new();
    let (from, to) = (crashed.folder.file("x.db"), copy.file("x.db"));
    let args = ["backup", from.to_str().expect("UTF-8"), to.to_str().expect("UTF-8")];
    let outcome = Process::start(&mut rill(&args)).outcome();
    assert_eq!(outcome.0, Some(0), "{outcome:?}");
    let restored = Server::start_in(Arc::new(copy), &[]);
    assert_eq!(restored.read("/get?id=a")["items"][0]["count"], 1);
    assert_eq!(crashed.start().read("/get?id=a")["items"][0]["count"], 1);
}
