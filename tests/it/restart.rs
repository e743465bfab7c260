//! What outlives a process: events, positions, and the cursors it gave out.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};

use crate::harness::{Connection, Server, Stream, halves};

fn cursor(server: &Server) -> String {
    server.read("/get?id=a")["cursor"].as_str().expect("a string").to_owned()
}

#[test]
fn events_and_positions_outlive_the_process() {
    let mut server = Server::start();
    let mut expected = Vec::new();
    let mut epochs = BTreeSet::new();
    for round in 0..6u64 {
        let first = 2 * round + 1;
        assert_eq!(server.set("a", &[&format!("{round}")]), [first]);
        assert_eq!(server.set("b", &[&format!("{round}")]), [first + 1]);
        expected.push(json!({ "seq": first, "value": format!("{round}") }));
        let read = server.read("/get?id=a");
        assert_eq!(read["items"][0]["events"], Value::from(expected.clone()), "round {round}");
        epochs.insert(halves(&cursor(&server)).1.to_owned());
        server = if round % 2 == 0 { server.stop().start() } else { server.kill().start() };
    }
    assert_eq!(epochs.len(), 6, "every start has an epoch of its own: {epochs:?}");
}

#[test]
fn cursors_of_earlier_lives_resume_up_to_their_end() {
    let mut server = Server::start();
    let mut cursors: Vec<(String, u64)> = vec![];
    for round in 0..4u64 {
        server.set("a", &[&round.to_string()]);
        let given_out = cursor(&server);
        for (cursor, seq) in &cursors {
            let target = format!("/get?id=a&after={cursor}");
            let reply = server.read(&target);
            assert!(reply.get("reset").is_none(), "{target} in round {round}");
            assert_eq!(reply["items"][0]["events"][0]["seq"], seq + 1, "{target}");
            assert_eq!(reply["cursor"], given_out.as_str(), "given out in the current epoch");
            let field = format!("Last-Event-ID: {cursor}");
            let mut stream = Stream::open(server.address(), "/get?id=a", &[&field]);
            assert_eq!(stream.next().seq(), seq + 1);
            let past = format!("{}.{}", seq + 1, halves(cursor).1);
            let reply = server.read(&format!("/get?id=a&after={past}"));
            assert_eq!(reply["reset"], true, "{past} was never given out");
        }
        cursors.push((given_out, round + 1));
        server = if round % 2 == 0 { server.kill().start() } else { server.stop().start() };
    }
}

#[test]
fn a_stream_goes_on_over_a_restart() {
    let mut server = Server::start();
    let (mut seen, mut last) = (Vec::new(), String::new());
    for round in 0..4 {
        let field = format!("Last-Event-ID: {last}");
        let mut stream = Stream::open(server.address(), "/get?items=a&items=b", &[&field]);
        stream.until_synced();
        for number in 0..5 {
            server.set(["a", "b"][number % 2], &[&format!("{round}.{number}")]);
            if number < 4 {
                let message = stream.next();
                seen.push(message.seq());
                last = message.id;
            }
        }
        let stopped = if round % 2 == 0 { server.kill() } else { server.stop() };
        server = stopped.start();
        let field = format!("Last-Event-ID: {last}");
        let missed =
            Stream::open(server.address(), "/get?items=a&items=b", &[&field]).until_synced().0;
        seen.extend(missed.iter().map(|message| message.seq()));
        last = missed.last().expect("the fifth event was not read").id.clone();
    }
    assert_eq!(seen, (1..=20).collect::<Vec<u64>>());
}

#[test]
fn what_was_acknowledged_outlives_a_crash() {
    let mut server = Server::start();
    let mut acknowledged: Vec<(u64, String)> = Vec::new();
    for round in 0..4 {
        let (address, count) = (server.address(), AtomicUsize::new(0));
        server = thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|thread| {
                    let count = &count;
                    scope.spawn(move || append_until_gone(address, round, thread, count))
                })
                .collect();
            let mut witness = server.stream("/get?id=a&last=0");
            for _ in 0..150 {
                witness.next();
            }
            let restarted = server.kill().start();
            acknowledged.extend(threads.into_iter().flat_map(|t| t.join().expect("no panic")));
            restarted
        });
        assert!(count.load(Ordering::Relaxed) >= 100, "there was something to lose");
        let reply = server.read("/get?id=a");
        let events = reply["items"][0]["events"].as_array().expect("an item has events");
        let stored: BTreeSet<(u64, &str)> = events
            .iter()
            .map(|e| (e["seq"].as_u64().unwrap_or(0), e["value"].as_str().unwrap_or_default()))
            .collect();
        assert_eq!(stored.len(), events.len());
        let seqs: Vec<u64> = stored.iter().map(|(seq, _)| *seq).collect();
        assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>(), "no seq was lost or reused");
        for (seq, value) in &acknowledged {
            assert!(stored.contains(&(*seq, value)), "round {round} lost {value} at {seq}");
        }
    }
}

/// Appends until the server is gone; what it acknowledged.
fn append_until_gone(
    address: std::net::SocketAddr,
    round: usize,
    thread: usize,
    count: &AtomicUsize,
) -> Vec<(u64, String)> {
    let mut connection = Connection::open(address);
    let mut acknowledged = Vec::new();
    for number in 0.. {
        let value = format!("{round}.{thread}.{number}");
        let body = json!({ "value": value }).to_string();
        connection.send_request("POST", "/set/a", &[], body.as_bytes());
        let Ok(reply) = connection.try_reply(false) else {
            break;
        };
        assert_eq!(reply.status, 201, "{}", reply.text());
        acknowledged.push((reply.json()["seq"].as_u64().expect("a seq is a number"), value));
        count.fetch_add(1, Ordering::Relaxed);
    }
    acknowledged
}
