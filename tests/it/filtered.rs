//! `bloomFilter` on `/get`: what a read leaves out, and a stream's history.

use serde_json::{Value, json};

use crate::bloom::{append, bloom, digests, for_storage, item, post, sketch};
use crate::harness::{Connection, Server, Stream, encode, halves};

/// The `seq`s that a read of one storage gives, its cursor, and whether there are more.
fn read(server: &Server, body: &Value) -> (Vec<u64>, u64, bool) {
    let reply = server.connect().post("/get", &body.to_string());
    assert_eq!(reply.status, 200, "{body}: {}", reply.text());
    let reply = reply.json();
    assert_eq!(reply["items"][0]["count"], 10, "of the storage, filtered or not");
    let events = reply["items"][0]["events"].as_array().expect("a read has events");
    let seqs = events.iter().map(|event| event["seq"].as_u64().expect("a number")).collect();
    let cursor = halves(reply["cursor"].as_str().expect("a string")).0;
    (seqs, cursor, reply["more"].as_bool().expect("a boolean"))
}

#[test]
fn a_read_leaves_out_what_its_filter_contains() {
    let server = Server::start();
    append(&server, "a", 0..10);
    let odd = digests((0..10).step_by(2));
    let last = digests(8..10);
    for (version, size) in [(1, 50), (2, 64)] {
        let (odd, last) = (item("a", version, &odd, size), item("a", version, &last, size));
        for (item, window, expected) in [
            (&odd, json!({}), (vec![2, 4, 6, 8, 10], 10, false)),
            (&odd, json!({ "limit": 2 }), (vec![2, 4], 4, true)),
            (&odd, json!({ "limit": 5 }), (vec![2, 4, 6, 8, 10], 10, false)),
            (&odd, json!({ "after": 5 }), (vec![6, 8, 10], 10, false)),
            (&odd, json!({ "after": 4, "limit": 2 }), (vec![6, 8], 8, true)),
            (&odd, json!({ "after": 10 }), (vec![], 10, false)),
            (&odd, json!({ "last": 2 }), (vec![8, 10], 10, false)),
            (&odd, json!({ "last": 0 }), (vec![], 10, false)),
            (&last, json!({}), ((1..=8).collect(), 10, false)),
            (&last, json!({ "limit": 8 }), ((1..=8).collect(), 8, true)),
            (&last, json!({ "limit": 9 }), ((1..=8).collect(), 10, false)),
            (&last, json!({ "limit": 1, "after": 8 }), (vec![], 10, false)),
            (&last, json!({ "last": 1 }), (vec![8], 10, false)),
        ] {
            let mut body = window;
            body["items"] = item.clone();
            assert_eq!(read(&server, &body), expected, "version {version}: {body}");
        }
    }
}

#[test]
fn every_form_of_a_read_takes_filters() {
    let server = Server::start();
    append(&server, "a", 0..10);
    append(&server, "b", 0..10);
    for filter in [bloom(&digests(3..10), 20), sketch(&digests(3..10), 64)] {
        let item = json!({ "id": "a", "bloomFilter": filter });
        let both = encode(&json!([item, "b"]).to_string());
        let one = "seqs 1 2 3; ";
        let two = "seqs 1 2 3; seqs 11 12 13 14 15 16 17 18 19 20; ";
        let mut replies = vec![
            (one, server.get(&format!("/get?id=a&bloomFilter={filter}"))),
            (one, server.get(&format!("/get?items={}", encode(&item.to_string())))),
            (two, server.get(&format!("/get?items={both}"))),
            (
                two,
                server.get(&format!(
                    "/get?items[0][id]=a&items[0][bloomFilter]={filter}&items[1][id]=b"
                )),
            ),
        ];
        for (expected, items) in [(one, item.clone()), (two, json!([item, "b", item]))] {
            let body = json!({ "items": items }).to_string();
            replies.push((expected, server.connect().post("/get", &body)));
        }
        for (expected, reply) in replies {
            assert_eq!(reply.status, 200, "{}", reply.text());
            let shown: String = reply.json()["items"]
                .as_array()
                .expect("a list")
                .iter()
                .map(|item| {
                    let seqs = item["events"].as_array().expect("a list").iter();
                    seqs.fold("seqs".to_owned(), |text, event| format!("{text} {}", event["seq"]))
                        + "; "
                })
                .collect();
            assert_eq!(shown, expected);
            assert_eq!(reply.field("cache-control"), "no-store");
        }
        for (status, filters) in [(200, 64), (400, 65)] {
            let items: Vec<Value> =
                (0..filters).map(|n| for_storage(&n.to_string(), &item)).collect();
            let (told, reply) = post(&server, "/get", &json!(items));
            assert_eq!(told, status, "{filters} filters: {}", reply["detail"]);
        }
    }
}

#[test]
fn a_read_with_a_malformed_filter_is_refused_by_name() {
    let server = Server::start();
    let good = bloom(&[], 0);
    for (items, begins) in [
        (json!({ "id": "a", "bloomFilter": "" }), "items.bloomFilter: "),
        (json!(["b", { "id": "a", "bloomFilter": "AQ" }]), "items[1].bloomFilter: length 1 "),
        (json!(["b", { "id": "a", "bloomFilter": good.clone() + "=" }]), "items[1].bloomFilter: "),
        (json!(["a", { "id": "a", "bloomFilter": good }]), "items[1]"),
    ] {
        let (status, problem) = post(&server, "/get", &items);
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(status == 400 && detail.starts_with(begins), "{items}: {problem}");
    }
    let mut connection = Connection::open(server.address());
    let fields = ["Accept: text/event-stream"];
    let reply = connection.request("GET", "/get?id=a&bloomFilter=", &fields, b"");
    assert_eq!(reply.status, 400);
    assert!(reply.json()["detail"].as_str().is_some_and(|text| text.starts_with("bloomFilter: ")));
}

/// Opens a stream of `a`: the `seq`s of its history, and whether it began with a reset.
fn history(server: &Server, query: &str, fields: &[&str]) -> (Vec<u64>, bool, Stream) {
    let target = format!("/get?id=a&{query}");
    let mut stream = Stream::open(server.address(), &target, fields);
    let (mut before, synced) = stream.until_synced();
    assert_eq!(synced.json()["items"], json!([{ "id": "a", "count": 10 }]));
    let reset = before.first().is_some_and(|message| message.event == "reset");
    if reset {
        before.remove(0);
    }
    (before.iter().map(|message| message.seq()).collect(), reset, stream)
}

#[test]
fn a_filter_covers_the_history_of_a_stream_and_cursors_replace_a_sketch() {
    let server = Server::start();
    append(&server, "a", 0..10);
    let odd = digests((0..10).step_by(2).chain([10]));
    let (bloom, good, small) = (bloom(&odd, 50), sketch(&odd, 64), sketch(&odd, 1));
    let all: Vec<u64> = (1..=10).collect();
    let even = vec![2, 4, 6, 8, 10];
    let own = "Last-Event-ID: 5";
    let foreign = "Last-Event-ID: 5.00000000";
    for (filter, query, fields, expected, reset) in [
        (&bloom, "", &[][..], even.clone(), false),
        (&bloom, "", &[own], vec![6, 8, 10], false),
        (&bloom, "&after=5", &[], vec![6, 8, 10], false),
        (&bloom, "&lastEventId=5", &[], vec![6, 8, 10], false),
        (&bloom, "", &[foreign], even.clone(), true),
        (&bloom, "", &["Last-Event-ID: x"], even.clone(), true),
        (&bloom, "&last=2", &[], vec![8, 10], false),
        (&bloom, "&last=0", &[], vec![], false),
        (&good, "", &[], even.clone(), false),
        (&good, "", &[own], (6..=10).collect(), false),
        (&good, "&after=5", &[], (6..=10).collect(), false),
        (&good, "&lastEventId=5", &[], (6..=10).collect(), false),
        (&good, "", &[foreign], all.clone(), true),
        (&good, "", &["Last-Event-ID: x"], all.clone(), true),
        (&good, "&last=2", &[], vec![8, 10], false),
        (&small, "", &[], all.clone(), false),
        (&small, "", &[own], (6..=10).collect(), false),
    ] {
        let query = format!("bloomFilter={filter}{query}");
        let (seqs, was_reset, _stream) = history(&server, &query, fields);
        assert_eq!((seqs, was_reset), (expected, reset), "{query} {fields:?}");
    }
    let streams = [&bloom, &good, &small].map(|filter| {
        let (_, _, stream) = history(&server, &format!("bloomFilter={filter}"), &[]);
        stream
    });
    let body = json!({ "items": [{ "id": "a", "bloomFilter": bloom }] }).to_string();
    let mut posted = Stream::post_over(server.connect(), &body, &[]);
    let (before, _) = posted.until_synced();
    assert_eq!(before.iter().map(|message| message.seq()).collect::<Vec<_>>(), even);
    append(&server, "a", 10..11);
    for mut stream in streams.into_iter().chain([posted]) {
        let live = stream.next();
        assert_eq!((live.seq(), &live.json()["value"]), (11, &json!("event-10")), "though in it");
    }
}
