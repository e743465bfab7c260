//! Reading as JSON: forms of a selection, cursors and windows, conditions, connections.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::harness::{Connection, Reply, Server, encode, halves};

/// Events 1 to 5, over the storages a, b and `[x`.
fn prepared() -> Server {
    let server = Server::start();
    for (id, value) in [("a", "a1"), ("b", "b2"), ("a", "a3"), ("[x", "x4"), ("b", "b5")] {
        server.set(id, &[value]);
    }
    server
}

/// The `seq`s of a reply, item by item, and the rest of it in short.
fn shape(reply: &Value) -> (Vec<Vec<u64>>, u64, bool, bool) {
    let items = reply["items"].as_array().expect("a read has items");
    let seqs = items.iter().map(|item| {
        let events = item["events"].as_array().expect("an item has events");
        events.iter().map(|event| event["seq"].as_u64().expect("a seq is a number")).collect()
    });
    let cursor = halves(reply["cursor"].as_str().expect("a cursor is a string")).0;
    let more = reply["more"].as_bool().expect("`more` is a boolean");
    (seqs.collect(), cursor, more, reply.get("reset").is_some())
}

#[test]
fn the_reply_is_as_written() {
    let server = prepared();
    let text = server.get("/get?items=b&items=a").text().to_owned();
    let cursor = server.read("/get?id=b")["cursor"].as_str().expect("a string").to_owned();
    assert_eq!(
        text,
        format!(
            concat!(
                r#"{{"items":[{{"id":"b","count":2,"events":[{{"seq":2,"value":"b2"}},"#,
                r#"{{"seq":5,"value":"b5"}}]}},{{"id":"a","count":2,"events":["#,
                r#"{{"seq":1,"value":"a1"}},{{"seq":3,"value":"a3"}}]}}],"#,
                r#""cursor":"{}","more":false}}"#
            ),
            cursor
        )
    );
    assert_eq!(halves(&cursor).0, 5);
}

#[test]
fn every_form_is_one_selection() {
    let server = prepared();
    let forms = |same: &[&str]| {
        let replies: Vec<(&str, Reply)> = same
            .iter()
            .map(|form| match form.starts_with('{') {
                true => (*form, server.connect().post("/get", form)),
                false => (*form, server.get(&format!("/get?{form}"))),
            })
            .collect();
        let expected = replies[0].1.text().to_owned();
        for (form, reply) in replies {
            assert_eq!((reply.status, reply.text()), (200, expected.as_str()), "{form}");
        }
        serde_json::from_str::<Value>(&expected).expect("a read is JSON")
    };
    let one = forms(&[
        "id=a",
        "id=%61&unknown=1&x[y]=2",
        "items=a",
        "items[]=a",
        "items=[%22a%22]",
        "items={%22id%22:%22a%22}",
        "items[0][id]=a",
        "items%5B0%5D%5Bid%5D=a",
        "id=a&after=",
        r#"{"items":"a"}"#,
        r#"{"items":["a","a"]}"#,
        r#"{"items":{"id":"a"}}"#,
        r#"{"unknown":null,"items":[{"unknown":[1],"id":"a"}]}"#,
    ]);
    assert_eq!(shape(&one), (vec![vec![1, 3]], 3, false, false));
    let two = forms(&[
        "items=b&items=a",
        "items[]=b&items[]=a",
        "items%5B%5D=b&items%5B%5D=a",
        "items=b&items=a&items=b",
        "items=%5B%22b%22%2C%22a%22%5D",
        "items=[{%22id%22:%22b%22},%22a%22]",
        "items[0][id]=b&items[1][id]=a",
        r#"{"items":["b","a"]}"#,
        r#"{"items":[{"id":"b"},"a"],"after":"0"}"#,
        r#"{"items":["b","a"],"after":0}"#,
    ]);
    assert_eq!(shape(&two), (vec![vec![2, 5], vec![1, 3]], 5, false, false));
    let bracket = forms(&["id=[x", "id=%5Bx", "items=[%22[x%22]", r#"{"items":"[x"}"#]);
    assert_eq!(shape(&bracket), (vec![vec![4]], 4, false, false));
}

#[test]
fn selections_that_are_none_are_refused() {
    let server = prepared();
    let check = |reply: Reply, shown: &str, mentions: &str| {
        assert_eq!(reply.status, 400, "{shown}: {}", reply.text());
        assert_eq!(reply.field("content-type"), "application/problem+json", "{shown}");
        assert_eq!(reply.field("cache-control"), "no-store", "{shown}");
        let problem = reply.json();
        let detail = problem["detail"].as_str().unwrap_or_else(|| panic!("{shown}: no detail"));
        assert!(detail.contains(mentions), "{shown}: {detail:?} does not mention {mentions:?}");
    };
    for (query, mentions) in [
        ("", ""),
        ("x=1", ""),
        ("id=", "id"),
        ("id=a&id=b", "id"),
        ("id=a&id=a", "id"),
        ("id=a&items=b", "id"),
        ("items=a&bloomFilter=AA", "bloomFilter"),
        ("id=%", "id"),
        ("id=%f", "id"),
        ("id=%ff", "id"),
        ("id=.", "id"),
        ("id=a%0Ab", "id"),
        ("items=[", "items"),
        ("items=[]", "items"),
        ("items=[1]", "items[0]"),
        ("items=[%22a%22,null]", "items[1]"),
        ("items=[{}]", "items[0]"),
        ("items=[{%22id%22:%22a%22,%22id%22:%22b%22}]", "items[0]"),
        ("items=[{%22id%22:%22a%22,%22after%22:1},{%22id%22:%22a%22,%22after%22:2}]", ""),
        ("items=[{%22id%22:%22a%22,%22after%22:1},%22a%22]", ""),
        ("items=[{%22id%22:%22a%22,%22after%22:%22x%22}]", "items[0].after"),
        ("id=a&after=x", "after"),
        ("id=a&after=-1", "after"),
        ("id=a&after=1.", "after"),
        ("id=a&after=1.abc", "after"),
        ("id=a&limit=0", "limit"),
        ("id=a&limit=10001", "limit"),
        ("id=a&limit=x", "limit"),
        ("id=a&limit=-1", "limit"),
        ("id=a&last=10001", "last"),
        ("id=a&last=1.5", "last"),
        ("id=a&last=1&limit=1", "last"),
        ("id=a&last=1&after=0", "last"),
        ("items=[{%22id%22:%22a%22,%22after%22:1}]&last=1", "last"),
    ] {
        check(server.get(&format!("/get?{query}")), query, mentions);
    }
    let many: Vec<String> = (0..=10_000).map(|number| number.to_string()).collect();
    let many = json!({ "items": many }).to_string();
    for (body, mentions) in [
        ("", ""),
        ("x", ""),
        ("null", ""),
        ("[]", ""),
        (r#""a""#, ""),
        ("{}", "items"),
        (r#"{"items":[]}"#, "items"),
        (r#"{"items":null}"#, "items"),
        (r#"{"items":1}"#, "items"),
        (r#"{"items":[["a"]]}"#, "items[0]"),
        (r#"{"items":["a",{"id":null}]}"#, "items[1]"),
        (r#"{"items":["a",{"id":"\ud800"}]}"#, ""),
        (r#"{"items":"a","items":"a"}"#, "items"),
        (r#"{"items":"a","after":null}"#, "after"),
        (r#"{"items":"a","after":-1}"#, "after"),
        (r#"{"items":"a","after":1.5}"#, "after"),
        (r#"{"items":"a","after":"x"}"#, "after"),
        (r#"{"items":"a","limit":0}"#, "limit"),
        (r#"{"items":"a","limit":"1"}"#, "limit"),
        (r#"{"items":"a","limit":10001}"#, "limit"),
        (r#"{"items":"a","last":10001}"#, "last"),
        (r#"{"items":"a","last":1,"limit":1}"#, "last"),
        (r#"{"items":"a"} x"#, ""),
        (&many, "10"),
    ] {
        let shown = &body[..body.len().min(80)];
        check(server.connect().post("/get", body), shown, mentions);
    }
}

#[test]
fn a_window_selects_what_it_says() {
    let server = prepared();
    let none: Vec<u64> = vec![];
    for (query, seqs, cursor, more) in [
        ("id=a&after=0", vec![vec![1, 3]], 3, false),
        ("id=a&after=1", vec![vec![3]], 3, false),
        ("id=a&after=2", vec![vec![3]], 3, false),
        ("id=a&after=3", vec![none.clone()], 3, false),
        ("id=a&after=5", vec![none.clone()], 5, false),
        ("items=a&items=b&after=2", vec![vec![3], vec![5]], 5, false),
        ("items=a&items=b&limit=1", vec![vec![1], none.clone()], 1, true),
        ("items=a&items=b&limit=3", vec![vec![1, 3], vec![2]], 3, true),
        ("items=a&items=b&limit=4", vec![vec![1, 3], vec![2, 5]], 5, false),
        ("items=a&items=b&limit=10000", vec![vec![1, 3], vec![2, 5]], 5, false),
        ("items=a&items=b&limit=1&after=3", vec![none.clone(), vec![5]], 5, false),
        ("items=a&items=b&last=0", vec![none.clone(), none.clone()], 5, false),
        ("items=a&items=b&last=1", vec![none.clone(), vec![5]], 5, false),
        ("items=a&items=b&last=2", vec![vec![3], vec![5]], 5, false),
        ("items=a&items=b&last=10000", vec![vec![1, 3], vec![2, 5]], 5, false),
        ("items=[{%22id%22:%22a%22,%22after%22:1},%22b%22]", vec![vec![3], vec![2, 5]], 5, false),
        (
            "items=[{%22id%22:%22a%22,%22after%22:1},%22b%22]&after=2",
            vec![vec![3], vec![5]],
            5,
            false,
        ),
        ("items=[{%22id%22:%22a%22,%22after%22:4}]", vec![none.clone()], 3, false),
        ("items[0][id]=a&items[0][after]=1", vec![vec![3]], 3, false),
        ("id=unknown", vec![none.clone()], 0, false),
        ("items=unknown&items=a", vec![none, vec![1, 3]], 3, false),
    ] {
        let reply = server.read(&format!("/get?{query}"));
        assert_eq!(shape(&reply), (seqs, cursor, more, false), "{query}");
    }
    let counts = server.read("/get?items=a&items=unknown&items=b&after=5");
    let counts: Vec<&Value> = (0..3).map(|item| &counts["items"][item]["count"]).collect();
    assert_eq!(counts, [2, 0, 2], "`count` is the storage's, whatever was asked for");
}

#[test]
fn cursors_nobody_gave_out_are_a_reset() {
    let server = prepared();
    let cursor = server.read("/get?id=b")["cursor"].as_str().expect("a string").to_owned();
    let epoch = halves(&cursor).1;
    let other = if epoch == "00000000" { "00000001" } else { "00000000" };
    for (after, reset) in [
        (cursor.clone(), false),
        ("5".to_owned(), false),
        (format!("0.{epoch}"), false),
        ("6".to_owned(), true),
        (format!("6.{epoch}"), true),
        (format!("1.{other}"), true),
        (format!("0.{other}"), true),
        ("99999999999999999999999".to_owned(), true),
    ] {
        for target in [
            format!("/get?id=b&after={after}"),
            format!("/get?items=[{{%22id%22:%22b%22,%22after%22:%22{after}%22}}]"),
            format!("/get?items=[{{%22id%22:%22b%22,%22after%22:%22{after}%22}}]&after=2"),
        ] {
            let reply = server.get(&target);
            let first = reply.text().starts_with(r#"{"reset":true,"#);
            assert_eq!((reply.status, first), (200, reset), "{target}: {}", reply.text());
            let seqs = shape(&reply.json()).0;
            assert!(!reset || seqs == [[2, 5]], "wholly from the start: {target}: {seqs:?}");
        }
    }
}

#[test]
fn paging_visits_everything_once() {
    let server = Server::start();
    let mut expected = Vec::new();
    for number in 0..60 {
        let id = ["p", "q", "r"][number * 7 % 3];
        let seqs = server.set(id, &[&format!("{number}"), &format!("{number}+")]);
        if id != "r" {
            expected.extend(seqs);
        }
    }
    for limit in [1, 7, 79, 80, 81] {
        let (mut seen, mut after) = (Vec::new(), "0".to_owned());
        loop {
            let target = format!("/get?items=q&items=p&limit={limit}&after={after}");
            let reply = server.read(&target);
            let (seqs, cursor, more, reset) = shape(&reply);
            let mut page = seqs.concat();
            page.sort_unstable();
            assert!(page.len() <= limit && !reset, "{target}");
            assert!(!more || page.len() == limit && page.last() == Some(&cursor), "{target}");
            seen.extend(page);
            after = reply["cursor"].as_str().expect("a string").to_owned();
            if !more {
                break;
            }
        }
        assert_eq!(seen, expected, "limit {limit}");
    }
}

#[test]
fn a_reply_is_one_view_while_appends_go_on() {
    let server = Server::start();
    let address = server.address();
    let appender = std::thread::spawn(move || {
        let mut connection = Connection::open(address);
        for number in 0..150 {
            for id in ["a", "b"] {
                connection.post(
                    &format!("/set/{id}"),
                    &json!({ "value": number.to_string() }).to_string(),
                );
            }
        }
    });
    let mut connection = server.connect();
    let mut sizes = BTreeMap::new();
    while sizes.last_key_value().is_none_or(|(size, _)| *size < 300) {
        let reply = connection.get("/get?items=b&items=a").json();
        let (seqs, cursor, more, reset) = shape(&reply);
        let mut all = seqs.concat();
        all.sort_unstable();
        assert_eq!(all, (1..=cursor).collect::<Vec<u64>>(), "everything up to the cursor");
        let counts: Vec<usize> = seqs.iter().map(Vec::len).collect();
        assert!(counts[1] - counts[0] <= 1 && !more && !reset, "{counts:?}");
        assert_eq!(reply["items"][0]["count"], counts[0]);
        assert_eq!(reply["items"][1]["count"], counts[1]);
        sizes.insert(all.len(), ());
    }
    appender.join().expect("every append is answered");
}

#[test]
fn other_storages_do_not_show() {
    let server = prepared();
    let target = "/get?items=a&items=unknown";
    let before = server.get(target);
    server.set("c", &["c6"]);
    let after = server.get(target);
    assert_eq!(before.text(), after.text());
    assert_eq!(before.field("etag"), after.field("etag"));
}

#[test]
fn conditions_save_the_body() {
    let server = prepared();
    let target = "/get?id=a";
    let first = server.get(target);
    let tag = first.field("etag").to_owned();
    assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() > 2, "strong: {tag}");
    for (condition, status) in [
        (tag.clone(), 304),
        (format!("W/{tag}"), 304),
        (format!("\"x\", {tag}"), 304),
        ("*".to_owned(), 304),
        ("\"x\"".to_owned(), 200),
        (tag.trim_matches('"').to_owned(), 200),
        (format!("\"0{}", &tag[1..]), 200),
        (format!("\"x, {tag} ,\""), 200),
    ] {
        // Two storages are not read from the cache.
        let field = format!("If-None-Match: {condition}");
        let reply = server.connect().request("GET", "/get?items=a&items=unknown", &[&field], b"");
        assert_eq!((reply.status, reply.body.is_empty()), (status, status == 304), "{condition}");
        for method in ["GET", "HEAD"] {
            let field = format!("If-None-Match: {condition}");
            let mut connection = server.connect();
            let reply = connection.request(method, target, &[&field], b"");
            assert_eq!(reply.status, status, "{method} {condition}");
            assert_eq!(reply.field("etag"), tag, "{method} {condition}");
            assert_eq!(reply.field("vary"), "Accept", "{method} {condition}");
            assert_eq!(reply.field("cache-control"), "no-cache", "{method} {condition}");
            assert_eq!(connection.get(target).status, 200, "the connection goes on");
        }
    }
    let body = json!({ "items": "a" }).to_string();
    let field = format!("If-None-Match: {tag}");
    let post = server.connect().request("POST", "/get", &[&field], body.as_bytes());
    assert_eq!((post.status, post.field("cache-control")), (200, "no-store"));
    let reset = server.get("/get?id=a&after=99");
    assert_ne!(reset.field("etag"), tag, "a reset is another representation");
    server.set("a", &["a6"]);
    let changed = server.connect().request("GET", target, &[&field], b"");
    assert_eq!(changed.status, 200);
    assert_ne!(changed.field("etag"), tag);
    let restarted = server.stop().start();
    let now = changed.field("etag");
    assert_ne!(restarted.get(target).field("etag"), now, "cursors in it are of another epoch");
}

#[test]
fn head_is_get_without_a_body() {
    let server = prepared();
    let mut connection = server.connect();
    for target in
        ["/get?id=a", "/get?id=unknown", "/get?id=a&limit=1", "/get", "/", "/healthz", "/no"]
    {
        let get = connection.get(target);
        let head = connection.request("HEAD", target, &[], b"");
        assert_eq!((get.status, get.body.is_empty()), (head.status, false), "{target}");
        for name in ["content-type", "etag", "vary", "cache-control"] {
            assert_eq!(get.field(name), head.field(name), "{name} of {target}");
        }
        let (of_get, of_head) = (get.field("content-length"), head.field("content-length"));
        assert!(of_head.is_empty() || of_head == of_get, "{target}: {of_head} for {of_get}");
    }
}

#[test]
fn any_origin_may_ask() {
    let server = prepared();
    for target in ["/get?id=a", "/get", "/set/a", "/", "/healthz", "/metrics", "/no"] {
        let reply = server.get(target);
        assert_eq!(reply.field("access-control-allow-origin"), "*", "{target}");
        let exposed = reply.field("access-control-expose-headers").to_ascii_lowercase();
        assert!(exposed.contains("etag") && exposed.contains("retry-after"), "{target}: {exposed}");
        let fields = [
            "Origin: https://example.org",
            "Access-Control-Request-Method: POST",
            "Access-Control-Request-Headers: content-type,last-event-id",
        ];
        let reply = server.connect().request("OPTIONS", target, &fields, b"");
        assert!(matches!(reply.status, 200 | 204), "{target}: {}", reply.status);
        assert_eq!(reply.field("access-control-allow-origin"), "*", "{target}");
        let allowed = reply.field("access-control-allow-headers").to_ascii_lowercase();
        for name in ["content-type", "last-event-id", "if-none-match", "authorization"] {
            assert!(allowed.split(", ").any(|allowed| allowed == name), "{target}: {allowed}");
        }
        let methods = reply.field("access-control-allow-methods");
        assert!(methods.contains("GET") && methods.contains("POST"), "{target}: {methods}");
    }
}

#[test]
fn http_1_0_is_served_with_and_without_keep_alive() {
    let server = prepared();
    let expected = server.get("/get?id=a").text().to_owned();
    let mut closing = server.connect();
    closing.send("GET /get?id=a HTTP/1.0\r\n\r\n");
    let reply = closing.reply();
    assert_eq!((reply.status, reply.text()), (200, expected.as_str()));
    assert_eq!(reply.field("transfer-encoding"), "");
    assert_eq!(closing.until_close(), Ok(vec![]));
    let mut kept = server.connect();
    for _ in 0..3 {
        kept.send("GET /get?id=a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        let reply = kept.reply();
        assert_eq!((reply.status, reply.text()), (200, expected.as_str()));
        assert_eq!(reply.field("connection").to_ascii_lowercase(), "keep-alive");
        assert_eq!(reply.field("transfer-encoding"), "");
    }
}

#[test]
fn connections_close_when_asked() {
    let server = prepared();
    let mut connection = server.connect();
    let reply = connection.request("GET", "/get?id=a", &["Connection: Foo, CLOSE"], b"");
    assert_eq!((reply.status, reply.field("connection")), (200, "close"));
    assert_eq!(connection.until_close(), Ok(vec![]));
    let mut half_closed = server.connect();
    half_closed.send_request("GET", "/get?id=a", &[], b"");
    half_closed.end_sending();
    assert_eq!(half_closed.reply().status, 200, "the end of sending is not the end of reading");
    assert_eq!(half_closed.until_close(), Ok(vec![]));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::start();
    let mut connection = server.connect();
    let mut requests = String::new();
    for number in 0..40 {
        let body = json!({ "value": number.to_string() }).to_string();
        let length = body.len();
        requests.push_str(&format!(
            "POST /set/a HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}\
             GET /get?id=a&after={number} HTTP/1.1\r\nHost: x\r\n\r\n\
             HEAD /get?id=a HTTP/1.1\r\nHost: x\r\n\r\n\
             OPTIONS /no HTTP/1.1\r\nHost: x\r\n\r\n\
             GET /no HTTP/1.1\r\nHost: x\r\n\r\n"
        ));
    }
    connection.send(&requests);
    for number in 0..40 {
        let set = connection.reply();
        assert_eq!((set.status, &set.json()["seq"]), (201, &json!(number + 1)));
        let get = connection.reply().json();
        let event = json!([{ "seq": number + 1, "value": number.to_string() }]);
        assert_eq!(get["items"][0]["events"], event, "a read sees the append before it");
        let head = connection.try_reply(true).expect("a reply to HEAD");
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert!(matches!(connection.reply().status, 200 | 204));
        assert_eq!(connection.reply().status, 404);
    }
}

#[test]
fn ten_thousand_storages_are_one_selection() {
    let server = Server::start();
    let ids: Vec<String> = (0..10_000).map(|number| format!("storage {number}")).collect();
    let seqs: Vec<u64> =
        [17, 4_999, 9_999].iter().flat_map(|&number| server.set(&ids[number], &["v"])).collect();
    assert_eq!(seqs, [1, 2, 3]);
    let reply = server.connect().post("/get", &json!({ "items": ids }).to_string());
    let (found, cursor, ..) = shape(&reply.json());
    assert_eq!((found.len(), found.concat(), cursor), (10_000, seqs, 3));
    let longest = format!("/get?id={}", encode(&"ü".repeat(256)));
    assert_eq!(server.get(&longest).status, 200);
}

#[test]
fn the_page_is_for_people() {
    let server = Server::start();
    let reply = server.get("/");
    assert_eq!(reply.status, 200);
    assert!(reply.field("content-type").starts_with("text/html"), "{:?}", reply.fields);
    assert!(reply.text().contains("curl"), "it says how to use the server");
}
