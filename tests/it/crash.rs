//! Crashes: the process is killed under load, again and again, and the oracle asks the next one,
//! and the database itself, whether a promise was broken.

use std::collections::BTreeMap;
use std::thread;

use serde_json::json;

use crate::harness::{Connection, Random, Server};

const STORAGES: usize = 20;
const APPENDERS: usize = 4;

/// An event as somebody was told of it: its storage and value, by `seq`.
type Told = BTreeMap<u64, (String, String)>;

#[test]
fn killed_under_load_it_keeps_every_promise() {
    check_kills(8);
}

#[test]
#[ignore = "takes some minutes"]
fn killed_a_hundred_times_it_keeps_every_promise() {
    check_kills(100);
}

fn check_kills(kills: usize) {
    let mut random = Random::from_environment();
    let mut server = Server::start();
    let mut told = Told::new();
    for kill in 0..kills {
        let (after, address) = (random.range(20, 600), server.address());
        server = thread::scope(|scope| {
            let appenders: Vec<_> = (0..APPENDERS)
                .map(|appender| {
                    let random = random.fork();
                    scope.spawn(move || append_until_gone(address, kill, appender, random))
                })
                .collect();
            let mut shown = server.stream(&format!("/get?{}&last=0", selection()));
            shown.until_synced();
            for _ in 0..after {
                let message = shown.next();
                tell(&mut told, message.seq(), &message.json());
            }
            let restarted = server.kill().start();
            while let Ok(Some(message)) = shown.try_next() {
                tell(&mut told, message.seq(), &message.json());
            }
            for appender in appenders {
                for (seq, event) in appender.join().expect("replies are whole") {
                    let before = told.insert(seq, event.clone());
                    assert!(before.is_none_or(|before| before == event), "{seq} was told twice");
                }
            }
            restarted
        });
        check_promises(&server, &told, kill);
    }
    check_database(server);
}

fn tell(told: &mut Told, seq: u64, event: &serde_json::Value) {
    let text = |key: &str| event[key].as_str().expect("an event has it").to_owned();
    let event = (text("id"), text("value"));
    let before = told.insert(seq, event.clone());
    assert!(before.is_none_or(|before| before == event), "{seq} was told twice");
}

fn selection() -> String {
    let items: Vec<String> = (0..STORAGES).map(|storage| format!("items=s{storage}")).collect();
    items.join("&")
}

/// What was acknowledged or shown is there, with its `seq`; nothing is there twice; no `seq` is
/// missing.
fn check_promises(server: &Server, told: &Told, kill: usize) {
    let read = server.read(&format!("/get?{}", selection()));
    let mut stored = Told::new();
    for item in read["items"].as_array().expect("a reply has items") {
        let id = item["id"].as_str().expect("an item has an id");
        for event in item["events"].as_array().expect("an item has events") {
            let seq = event["seq"].as_u64().expect("an event has a seq");
            let value = event["value"].as_str().expect("an event has a value");
            let former = stored.insert(seq, (id.to_owned(), value.to_owned()));
            assert_eq!(former, None, "{seq} stands twice after kill {kill}");
        }
    }
    let seqs: Vec<u64> = stored.keys().copied().collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>(), "after kill {kill}");
    for (seq, event) in told {
        assert_eq!(stored.get(seq), Some(event), "{seq} was promised before kill {kill}");
    }
    let mut values: Vec<&(String, String)> = stored.values().collect();
    values.sort_unstable();
    assert!(values.windows(2).all(|pair| pair[0] != pair[1]), "a value stands twice");
}

/// SQLite finds nothing wrong, and what is read through the indexes is what the log says.
fn check_database(server: Server) {
    let read = server.read(&format!("/get?{}", selection()));
    let stopped = server.stop();
    let database = rusqlite::Connection::open(stopped.folder.file("x.db")).expect("SQLite opens");
    let verdict: String = database
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .expect("integrity_check answers");
    assert_eq!(verdict, "ok");
    let mut log = database
        .prepare("SELECT seq, cast(value AS TEXT) FROM log WHERE id = ?1 ORDER BY seq")
        .expect("the log is a table");
    for item in read["items"].as_array().expect("a reply has items") {
        let id = item["id"].as_str().expect("an item has an id");
        let events = log
            .query_map([id], |row| {
                Ok(json!({ "seq": row.get::<_, i64>(0)?, "value": row.get::<_, String>(1)? }))
            })
            .expect("the log is read")
            .collect::<Result<Vec<_>, _>>()
            .expect("the log is read");
        assert_eq!(item["events"], json!(events), "{id}");
        assert_eq!(item["count"], events.len(), "{id}");
    }
}

/// Appends until the server is gone; what it acknowledged. Now and then values of an earlier
/// request are sent again: whether that was stored, nobody knows who saw no reply.
fn append_until_gone(
    address: std::net::SocketAddr,
    kill: usize,
    appender: usize,
    mut random: Random,
) -> Vec<(u64, (String, String))> {
    let mut connection = Connection::open(address);
    let mut acknowledged = Vec::new();
    let mut last: Option<(String, Vec<String>)> = None;
    for number in 0.. {
        let (id, values) = match last.take() {
            Some(again) if random.one_in(10) => again,
            _ => {
                let values = (0..random.range(1, 40))
                    .map(|value| format!("{kill}.{appender}.{number}.{value}"))
                    .collect();
                (format!("s{}", random.range(0, STORAGES - 1)), values)
            }
        };
        let body = json!({ "values": values }).to_string();
        connection.send_request("POST", &format!("/set/{id}"), &[], body.as_bytes());
        let Ok(reply) = connection.try_reply(false) else { break };
        assert!([200, 201].contains(&reply.status), "{}", reply.text());
        let events = reply.json()["events"].clone();
        for (event, value) in events.as_array().expect("a list").iter().zip(&values) {
            let seq = event["seq"].as_u64().expect("a seq is a number");
            acknowledged.push((seq, (id.clone(), value.clone())));
        }
        last = Some((id, values));
    }
    acknowledged
}
