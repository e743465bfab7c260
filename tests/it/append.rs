//! Appending: one value, many, the same again, and every way to be refused.

use serde_json::{Value, json};

use crate::harness::{Connection, Server, encode, hash};

fn append(connection: &mut Connection, id: &str, body: Value) -> (u16, Value) {
    let reply = connection.post(&format!("/set/{}", encode(id)), &body.to_string());
    (reply.status, reply.json())
}

#[test]
fn one_value_is_stored_and_named() {
    let server = Server::start();
    let mut connection = server.connect();
    for (number, value) in
        ["v", "", "\u{0}", "\"\\/\u{8}\u{7f}\u{2028}", "ünïcödé 🦀", "\r\n\r", &"x".repeat(1 << 20)]
            .into_iter()
            .enumerate()
    {
        let (status, body) = append(&mut connection, "a", json!({ "value": value }));
        let expected = json!({ "id": "a", "seq": number + 1, "hash": hash(value) });
        assert_eq!((status, body), (201, expected), "value {number}");
        let read = server.read(&format!("/get?id=a&after={number}"));
        assert_eq!(read["items"][0]["events"], json!([{ "seq": number + 1, "value": value }]));
    }
}

#[test]
fn identifiers_are_one_encoded_segment() {
    let server = Server::start();
    let mut connection = server.connect();
    let longest = "ä".repeat(256);
    let ids = ["a", "a+b", "a b", "a/b", "ü", "%", "...", "a?b#c", "[x]", "{", &longest];
    for id in ids {
        let (status, body) = append(&mut connection, id, json!({ "value": "v" }));
        assert_eq!((status, &body["id"]), (201, &json!(id)));
        let read = server.read(&format!("/get?id={}", encode(id)));
        assert_eq!(read["items"][0]["id"], id);
        assert_eq!(read["items"][0]["count"], 1);
    }
    let plus = connection.post("/set/a+b", r#"{"value":"v"}"#);
    assert_eq!((plus.status, &plus.json()["id"]), (200, &json!("a+b")), "`+` is itself in a path");
    assert_eq!(server.read("/get?id=a+b")["items"][0]["id"], "a b", "and a space in a query");
}

#[test]
fn many_values_are_one_commit_in_request_order() {
    let server = Server::start();
    let mut connection = server.connect();
    let (status, body) = append(&mut connection, "a", json!({ "values": ["x", "y", "x", "z"] }));
    assert_eq!(status, 201);
    let event = |seq: u64, value: &str| json!({ "seq": seq, "hash": hash(value) });
    let expected = json!([event(1, "x"), event(2, "y"), event(1, "x"), event(3, "z")]);
    assert_eq!(body, json!({ "id": "a", "events": expected }));
    let (status, body) = append(&mut connection, "a", json!({ "values": ["z", "new", "x"] }));
    assert_eq!(status, 201, "one of them is new");
    assert_eq!(body["events"], json!([event(3, "z"), event(4, "new"), event(1, "x")]));
    let (status, body) = append(&mut connection, "a", json!({ "values": ["new", "y"] }));
    assert_eq!(status, 200, "none of them is new");
    assert_eq!(body["events"], json!([event(4, "new"), event(2, "y")]));
}

#[test]
fn ten_thousand_values_are_the_most() {
    let server = Server::start();
    let values: Vec<String> = (0..10_001).map(|number| number.to_string()).collect();
    let mut connection = server.connect();
    let (status, body) = append(&mut connection, "a", json!({ "values": values }));
    assert_eq!(status, 400, "{body}");
    let (status, body) = append(&mut connection, "a", json!({ "values": values[..10_000] }));
    let events = body["events"].as_array().expect("an append names its events");
    assert_eq!((status, events.len()), (201, 10_000));
    assert!(events.iter().zip(1..).all(|(event, seq)| event["seq"] == seq));
}

#[test]
fn the_same_value_again_is_the_first_event() {
    let mut server = Server::start();
    let first = append(&mut server.connect(), "a", json!({ "value": "v" }));
    assert_eq!(first.0, 201);
    for round in ["at once", "after a restart", "after a crash"] {
        server = match round {
            "after a restart" => server.stop().start(),
            "after a crash" => server.kill().start(),
            _ => server,
        };
        let mut connection = server.connect();
        let again = append(&mut connection, "a", json!({ "value": "v" }));
        assert_eq!(again, (200, first.1.clone()), "{round}");
        assert_eq!(server.read("/get?id=a")["items"][0]["count"], 1, "{round}");
    }
    let elsewhere = append(&mut server.connect(), "b", json!({ "value": "v" }));
    assert_eq!((elsewhere.0, &elsewhere.1["seq"]), (201, &json!(2)), "storages share nothing");
}

/// As many events as make the store index, and merge, what it holds.
#[test]
fn a_value_is_known_again_wherever_the_store_keeps_it() {
    const ROUNDS: u64 = 50;
    let mut server = Server::start();
    let batch = |round: u64| -> Vec<String> {
        (0..1_000).map(|number| format!("{round}.{number}")).collect()
    };
    let id = |round: u64| ["a", "b", "c"][round as usize % 3];
    let mut connection = server.connect();
    for round in 0..ROUNDS {
        let (status, body) = append(&mut connection, id(round), json!({ "values": batch(round) }));
        assert_eq!((status, &body["events"][999]["seq"]), (201, &json!(1_000 * (round + 1))));
    }
    for again in ["at once", "after a restart"] {
        let mut connection = server.connect();
        for round in 0..ROUNDS {
            let values = batch(round);
            let (status, body) = append(&mut connection, id(round), json!({ "values": values }));
            let events = body["events"].as_array().expect("an append names its events");
            let first = 1_000 * round + 1;
            assert!(events.iter().zip(first..).all(|(e, seq)| e["seq"] == seq), "{again}: {round}");
            assert_eq!((status, events.len()), (200, 1_000), "{again}: {round}");
            let (status, _) = append(&mut connection, "else", json!({ "value": values[0] }));
            assert_eq!(
                status,
                if again == "at once" { 201 } else { 200 },
                "storages share nothing"
            );
        }
        let last = server.read("/get?items=a&items=b&last=2");
        assert_eq!(last["items"][1]["events"][1]["value"], format!("{}.999", ROUNDS - 1));
        server = server.stop().start();
    }
}

#[test]
fn the_same_value_from_many_at_once_is_stored_once() {
    let server = Server::start();
    let address = server.address();
    for round in 0..10 {
        let mut racers: Vec<Connection> = (0..8).map(|_| Connection::open(address)).collect();
        let body = json!({ "value": format!("v{round}") }).to_string();
        racers.iter_mut().for_each(|r| r.send_request("POST", "/set/a", &[], body.as_bytes()));
        let replies: Vec<_> = racers.iter_mut().map(Connection::reply).collect();
        assert_eq!(replies.iter().filter(|reply| reply.status == 201).count(), 1);
        assert!(replies.iter().all(|reply| reply.json()["seq"] == round + 1));
    }
}

#[test]
fn the_content_type_does_not_matter() {
    let server = Server::start();
    for field in
        ["Content-Type: text/plain", "Content-Type: application/json; charset=latin1", "X-None: x"]
    {
        let reply = server.connect().request("POST", "/set/a", &[field], br#"{"value":"v"}"#);
        assert!(matches!(reply.status, 200 | 201), "{field}: {}", reply.status);
        assert_eq!(reply.field("content-type"), "application/json");
    }
}

/// Sends bytes as they are, expects a problem, and what its `detail` mentions.
fn check_refusal(server: &Server, request: &[u8], status: u16, mentions: &str) {
    let mut connection = server.connect();
    connection.send(request);
    let reply = connection.reply();
    let shown = String::from_utf8_lossy(&request[..request.len().min(120)]).into_owned();
    assert_eq!(reply.status, status, "{shown}: {}", reply.text());
    assert_eq!(reply.field("content-type"), "application/problem+json", "{shown}");
    assert_eq!(reply.field("access-control-allow-origin"), "*", "{shown}");
    assert_eq!(reply.field("cache-control"), "no-store", "{shown}");
    assert_ne!(reply.field("date"), "", "{shown}");
    let problem = reply.json();
    assert_eq!(problem["type"], "about:blank", "{shown}");
    assert_eq!(problem["status"], status, "{shown}");
    assert!(problem["title"].as_str().is_some_and(|title| !title.is_empty()), "{shown}");
    let detail = problem["detail"].as_str().unwrap_or_else(|| panic!("{shown}: no detail"));
    assert!(detail.contains(mentions), "{shown}: {detail:?} does not mention {mentions:?}");
}

#[test]
fn bodies_that_are_no_append_are_refused() {
    let server = Server::start();
    for (body, mentions) in [
        (r#""#, ""),
        (r#"x"#, ""),
        (r#"[]"#, ""),
        (r#""v""#, ""),
        (r#"null"#, ""),
        (r#"{}"#, "value"),
        (r#"{"value":"v""#, ""),
        (r#"{"value":"v"} x"#, ""),
        ("\u{feff}{\"value\":\"v\"}", ""),
        (r#"{"value":1}"#, "value"),
        (r#"{"value":null}"#, "value"),
        (r#"{"value":["v"]}"#, "value"),
        (r#"{"values":"v"}"#, "values"),
        (r#"{"values":[]}"#, "values"),
        (r#"{"values":null}"#, "values"),
        (r#"{"values":["a",1]}"#, "values[1]"),
        (r#"{"values":["a","b",null]}"#, "values[2]"),
        (r#"{"value":"v","values":["v"]}"#, "value"),
        (r#"{"value":"v","value":"v"}"#, "value"),
        (r#"{"values":["v"],"values":["v"]}"#, "values"),
        (r#"{"value":"\ud800"}"#, ""),
        (r#"{"values":["a","\udc00x"]}"#, ""),
        ("{\"value\":\"a\nb\"}", ""),
    ] {
        let length = body.len();
        let request =
            format!("POST /set/a HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}");
        check_refusal(&server, request.as_bytes(), 400, mentions);
    }
    let bytes =
        b"POST /set/a HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\n{\"value\":\"\xff\"}";
    check_refusal(&server, bytes, 400, "");
    let read = server.read("/get?id=a");
    assert_eq!(read["items"][0]["count"], 0, "nothing of it was stored");
}

#[test]
fn unknown_keys_and_any_order_are_fine() {
    let server = Server::start();
    for (body, expected) in [
        (r#"{"x":{"value":[null,null]},"value":"a","x":1}"#, "a"),
        (r#" { "value" : "\u0062\/" , "y" : [[[]]] } "#, "b/"),
        (r#"{"v\u0061lue":"c\ud83e\udd80\u0000"}"#, "c🦀\u{0}"),
    ] {
        let reply = server.connect().post("/set/a", body);
        assert_eq!(reply.status, 201, "{body}: {}", reply.text());
        assert_eq!(reply.json()["hash"], hash(expected), "{body}");
    }
}

#[test]
fn requests_that_cannot_be_served_are_refused() {
    let server = Server::start();
    let long_id = "x".repeat(513);
    let set = r#"{"value":"v"}"#;
    let post = |target: &str, fields: &str| {
        let length = if fields.contains("Length") || fields.contains("Transfer") {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", set.len())
        };
        format!("POST {target} HTTP/1.1\r\nHost: x\r\n{length}{fields}\r\n{set}")
    };
    for (request, status, mentions) in [
        (post("/set/", ""), 400, ""),
        (post(&format!("/set/{long_id}"), ""), 400, "512"),
        (post("/set/%00", ""), 400, ""),
        (post("/set/%C2%85", ""), 400, ""),
        (post("/set/%ff", ""), 400, ""),
        (post("/set/%4", ""), 400, ""),
        (post("/set/%zz", ""), 400, ""),
        (post("/set/.", ""), 400, ""),
        (post("/set/%2E%2e", ""), 400, ""),
        (post("/set/a/b", ""), 404, ""),
        (post("/set", ""), 404, ""),
        (post("/nothing", ""), 404, ""),
        (post("/set/a", "Content-Encoding: gzip\r\n"), 415, "gzip"),
        (post("/set/a", "Expect: 200-ok\r\n"), 417, ""),
        (post("/set/a", "Transfer-Encoding: gzip, chunked\r\n"), 501, ""),
        (post("/set/a", "Content-Length: 16777217\r\n"), 413, "16777216"),
        (post("/set/a", "Content-Length: 99999999999999999999\r\n"), 413, ""),
        (post("/set/a", &format!("X: {}\r\n", "x".repeat(81 * 1024))), 431, ""),
        (post(&format!("/set/a?{}", "x".repeat(65 * 1024)), ""), 414, ""),
        (post("/set/a", "").replace("HTTP/1.1", "HTTP/2.0"), 505, ""),
        (post("/set/a", "").replace("POST", "FROB"), 501, ""),
    ] {
        check_refusal(&server, request.as_bytes(), status, mentions);
    }
    assert_eq!(server.read("/get?id=a")["cursor"].as_str().map(|c| &c[..2]), Some("0."));
}

#[test]
fn a_method_out_of_place_is_told_the_right_ones() {
    let server = Server::start();
    for (method, target, allow) in [
        ("GET", "/set/a", "POST, OPTIONS"),
        ("HEAD", "/set/a", "POST, OPTIONS"),
        ("PUT", "/set/a", "POST, OPTIONS"),
        ("DELETE", "/get?id=a", "GET, HEAD, POST, OPTIONS"),
        ("PATCH", "/get", "GET, HEAD, POST, OPTIONS"),
        ("POST", "/", "GET, HEAD, OPTIONS"),
        ("POST", "/healthz", "GET, HEAD, OPTIONS"),
        ("POST", "/metrics", "GET, HEAD, OPTIONS"),
    ] {
        let reply = server.connect().request(method, target, &[], b"");
        assert_eq!(reply.status, 405, "{method} {target}");
        let mut allowed: Vec<&str> = reply.field("allow").split(", ").collect();
        let mut expected: Vec<&str> = allow.split(", ").collect();
        allowed.sort_unstable();
        expected.sort_unstable();
        assert_eq!(allowed, expected, "{method} {target}");
        if method != "HEAD" {
            assert_eq!(reply.json()["status"], 405, "{method} {target}");
        }
    }
}

#[test]
fn values_have_their_own_limit() {
    let server = Server::start();
    let largest = "x".repeat(1 << 20);
    for (body, status, mentions) in [
        (json!({ "value": format!("{largest}x") }), 413, "value"),
        (json!({ "values": ["a", format!("{largest}x")] }), 413, "values[1]"),
        (json!({ "values": [largest, "a"] }), 201, ""),
    ] {
        let (got, reply) = append(&mut server.connect(), "a", body);
        assert_eq!(got, status, "{reply}");
        let detail = reply["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(mentions), "{detail}");
    }
    assert_eq!(server.read("/get?id=a&last=0")["items"][0]["count"], 2);
}

#[test]
fn bodies_come_in_any_framing() {
    let server = Server::start();
    let mut connection = server.connect();
    connection.send("POST /set/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    for byte in r#"{"value":"in chunks"}"#.chars() {
        connection.send(format!("1\r\n{byte}\r\n"));
    }
    connection.send("0\r\n\r\n");
    assert_eq!(connection.reply().json()["hash"], hash("in chunks"));
    let body = r#"{"value":"after leave"}"#;
    let length = body.len();
    connection.send(format!(
        "POST /set/a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
    ));
    assert_eq!(connection.reply().status, 100);
    connection.send(body);
    assert_eq!(connection.reply().json()["hash"], hash("after leave"));
}

/// What comes while the process stands still is there for one turn.
#[test]
fn those_that_send_at_once_are_each_taken_for_themselves() {
    // Some send more than one look takes, others little.
    const SIZES: [usize; 4] = [1, 20_000, 16_000, 300];
    const CLIENTS: usize = 48;
    let mut server = Server::start();
    let value = |client: usize| format!("{client:02}").repeat(SIZES[client % SIZES.len()]);
    let mut connections: Vec<Connection> = (0..CLIENTS).map(|_| server.connect()).collect();
    connections.iter_mut().for_each(|connection| drop(connection.get("/healthz")));
    server.process.signal("STOP");
    for (client, connection) in connections.iter_mut().enumerate() {
        let body = json!({ "value": value(client) }).to_string();
        connection.send_request("POST", &format!("/set/{client}"), &[], body.as_bytes());
    }
    server.process.signal("CONT");
    for (client, connection) in connections.iter_mut().enumerate() {
        let reply = connection.reply();
        assert_eq!((reply.status, &reply.json()["hash"]), (201, &json!(hash(&value(client)))));
    }
    for client in 0..CLIENTS {
        let read = server.read(&format!("/get?id={client}"));
        assert_eq!(read["items"][0]["events"][0]["value"], value(client), "client {client}");
    }
}
