//! The command: its help, its exit codes, its settings, and the files it refuses to touch.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use crate::harness::{Connection, Folder, Process, Server, rill};

#[test]
fn help_and_version_are_answers() {
    for (args, mentions) in [
        (&["--help"][..], "serve"),
        (&["--help"], "backup"),
        (&["-h"], "serve"),
        (&["serve", "--help"], "--listen"),
        (&["serve", "--help"], "--db"),
        (&["--version"], env!("CARGO_PKG_VERSION")),
    ] {
        let (code, stdout, stderr) = Process::start(&mut rill(args)).outcome();
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{args:?}");
        assert!(stdout.contains(mentions), "{args:?}: {stdout}");
    }
}

#[test]
fn wrong_usage_exits_2_and_touches_nothing() {
    let folder = Folder::new();
    let db = folder.file("x.db");
    let db = db.to_str().expect("test paths are UTF-8");
    for args in [
        &[][..],
        &["frobnicate"],
        &["serve", "--frobnicate"],
        &["serve", "--db"],
        &["serve", "--db", db, "--listen"],
        &["serve", "--db", db, "--listen", "nonsense"],
        &["serve", "--db", db, "--listen", "127.0.0.1:99999"],
        &["serve", "--db", db, "--readers", "x"],
        &["serve", "--db", db, "--readers", "0"],
        &["serve", "--db", db, "stray"],
        &["serve", "--db", ""],
        &["backup"],
        &["backup", db],
        &["backup", db, "copy", "stray"],
    ] {
        let (code, stdout, stderr) = Process::start(&mut rill(args)).outcome();
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{args:?}: {stderr}");
        assert!(!stderr.is_empty(), "{args:?}: a reason is given");
    }
    assert!(folder.contents().is_empty(), "{:?}", folder.contents().keys());
}

#[test]
fn an_address_in_use_is_said() {
    let server = Server::start();
    let folder = Folder::new();
    let (db, address) = (folder.file("y.db"), server.address().to_string());
    let db = db.to_str().expect("test paths are UTF-8");
    let args = ["serve", "--db", db, "--listen", &address];
    let (code, _, stderr) = Process::start(&mut rill(&args)).outcome();
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains(&address), "{stderr}");
}

/// Serving the folder's database exits 1, says why, and changes no byte.
fn check_refused(folder: &Folder, shown: &str, mentions: &str) {
    let before = folder.contents();
    let db = folder.file("x.db");
    let db = db.to_str().expect("test paths are UTF-8");
    let args = ["serve", "--db", db, "--listen", "127.0.0.1:0"];
    let (code, stdout, stderr) = Process::start(&mut rill(&args)).outcome();
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{shown}: {stderr}");
    assert!(stderr.contains(mentions), "{shown}: {stderr}");
    assert!(folder.contents() == before, "{shown}: {:?}", folder.contents().keys());
}

fn sqlite(path: &Path, sql: &str) {
    let connection = rusqlite::Connection::open(path).expect("SQLite opens");
    connection.execute_batch(sql).expect("the statements are right");
}

#[test]
fn files_of_others_are_refused_untouched() {
    for (shown, write) in [
        ("a text file", (|path| fs::write(path, "dear diary\n".repeat(400))) as fn(_) -> _),
        ("one byte", |path| fs::write(path, "x")),
        ("zeros", |path| fs::write(path, [0; 8192])),
        ("the magic alone", |path| fs::write(path, "SQLite format 3\0")),
    ] {
        let folder = Folder::new();
        write(folder.file("x.db")).expect("the folder can be written");
        check_refused(&folder, shown, "x.db");
    }
    for (shown, sql) in [
        ("a database", "CREATE TABLE t(x); INSERT INTO t VALUES (1)"),
        ("a database in WAL mode", "PRAGMA journal_mode=WAL; CREATE TABLE t(x)"),
        ("of another application", "PRAGMA application_id=7; CREATE TABLE log(x)"),
    ] {
        let folder = Folder::new();
        sqlite(&folder.file("x.db"), sql);
        check_refused(&folder, shown, "x.db");
    }
}

#[test]
fn a_database_of_a_newer_version_is_refused_untouched() {
    let server = Server::start();
    server.set("a", &["v"]);
    let folder = server.stop().folder;
    sqlite(&folder.file("x.db"), "PRAGMA journal_mode=DELETE; PRAGMA user_version=999");
    check_refused(&folder, "user_version 999", "newer");
}

#[test]
fn places_that_cannot_hold_a_database_are_said() {
    let folder = Folder::new();
    fs::create_dir(folder.file("folder")).expect("the folder can be written");
    for name in ["folder", "missing/x.db"] {
        let db = folder.file(name);
        let db = db.to_str().expect("test paths are UTF-8");
        let args = ["serve", "--db", db, "--listen", "127.0.0.1:0"];
        let (code, _, stderr) = Process::start(&mut rill(&args)).outcome();
        assert_eq!(code, Some(1), "{name}: {stderr}");
        assert!(stderr.contains(name), "{name}: {stderr}");
    }
    fs::remove_dir(folder.file("folder")).expect("nothing was put into it");
}

#[test]
fn a_second_process_is_refused_and_the_first_goes_on() {
    let server = Server::start();
    server.set("a", &["v"]);
    let db = server.db();
    let db = db.to_str().expect("test paths are UTF-8");
    let args = ["serve", "--db", db, "--listen", "127.0.0.1:0"];
    for _ in 0..2 {
        let (code, stdout, stderr) = Process::start(&mut rill(&args)).outcome();
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
        assert!(stderr.contains("x.db"), "{stderr}");
        assert_eq!(server.set("a", &["v"]), [1]);
    }
    let restarted = server.kill().start();
    assert_eq!(restarted.set("a", &["w"]), [2], "a crash leaves no lock behind");
}

#[test]
fn all_state_lies_beside_the_database() {
    let server = Server::start();
    server.set("a", &["v"]);
    let names: Vec<String> = server.folder.contents().into_keys().collect();
    assert!(names.iter().all(|name| name.starts_with("x.db")), "{names:?}");
    let folder = server.stop().folder;
    let moved = Folder::new();
    for (name, bytes) in folder.contents() {
        fs::write(moved.file(&name), bytes).expect("the folder can be written");
    }
    let server = Server::start_in(Arc::new(moved), &[]);
    assert_eq!(server.read("/get?id=a")["items"][0]["count"], 1);
}

#[test]
fn settings_come_from_the_environment_too() {
    let folder = Folder::new();
    let mut command = rill(&["serve"]);
    command.env("RILL_LISTEN", "127.0.0.1:0").env("RILL_DB", folder.file("e.db"));
    command.env("RILL_CORS_ORIGIN", "https://example.org");
    let process = Process::start(&mut command);
    let addresses = crate::harness::listening(&process.stdout, 1)
        .unwrap_or_else(|| panic!("{:?}", process.stderr.seen()));
    let reply = Connection::open(addresses[0]).post("/set/a", &json!({ "value": "v" }).to_string());
    assert_eq!(reply.status, 201);
    assert_eq!(reply.field("access-control-allow-origin"), "https://example.org");
    assert!(folder.contents().contains_key("e.db"));
    drop(process);
    let mut wrong = rill(&["serve"]);
    wrong.env("RILL_LISTEN", "nonsense").env("RILL_DB", folder.file("f.db"));
    let (code, _, stderr) = Process::start(&mut wrong).outcome();
    assert_eq!(code, Some(2), "{stderr}");
    assert!(!folder.contents().contains_key("f.db"));
}

#[test]
fn several_addresses_are_one_server() {
    let server = Server::start_with(&["--listen", "127.0.0.1:0", "--listen", "[::1]:0"]);
    let [four, six] = server.addresses[..] else {
        panic!("two addresses are printed: {:?}", server.addresses)
    };
    assert!(four.is_ipv4() && six.is_ipv6());
    let body = json!({ "value": "v" }).to_string();
    assert_eq!(Connection::open(six).post("/set/a", &body).status, 201);
    assert_eq!(Connection::open(four).post("/set/a", &body).status, 200);
    let host = format!("Host: {six}");
    let mut connection = Connection::open(six);
    connection.send(format!("GET /get?id=a HTTP/1.1\r\n{host}\r\n\r\n"));
    assert_eq!(connection.reply().status, 200);
}
