//! `/bloom`: what it says of filters. They are made by the harness, from the contract.

use std::ops::Range;

use serde_json::{Value, json};

use crate::harness::filter::{self, Bloom, Digest, base64url, digest, entry, hexadecimal};
use crate::harness::{Reply, Server, encode, halves, set_over};

const SEED: u64 = 0x0123_4567_89ab_cdef;

fn value(number: usize) -> String {
    format!("event-{number}")
}

/// Appends the numbered values; the storage's events are in their order.
pub(crate) fn append(server: &Server, id: &str, numbers: Range<usize>) {
    let mut connection = server.connect();
    let values: Vec<String> = numbers.map(value).collect();
    for values in values.chunks(10_000) {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        set_over(&mut connection, id, &values);
    }
}

pub(crate) fn digests(numbers: impl IntoIterator<Item = usize>) -> Vec<Digest> {
    numbers.into_iter().map(|number| digest(value(number).as_bytes())).collect()
}

/// A filter with room for all.
pub(crate) fn bloom(digests: &[Digest], count: u64) -> String {
    let (bloom, unplaced) = Bloom::of(digests, count, SEED);
    assert!(unplaced.is_empty(), "{count} is too few for {}", digests.len());
    bloom.encode()
}

pub(crate) fn sketch(digests: &[Digest], cells: u32) -> String {
    filter::sketch(digests, cells, SEED)
}

/// Either version, made for `count` events or with so many cells, as a request's item.
pub(crate) fn item(id: &str, version: u8, digests: &[Digest], size: u32) -> Value {
    match version {
        1 => {
            let filter = bloom(digests, size.into());
            json!({ "id": id, "count": size, "bloomFilter": filter })
        }
        _ => json!({ "id": id, "count": digests.len(), "bloomFilter": sketch(digests, size) }),
    }
}

fn without_id(mut item: Value) -> Value {
    item.as_object_mut().expect("an item is an object").remove("id");
    item
}

pub(crate) fn post(server: &Server, path: &str, items: &Value) -> (u16, Value) {
    let reply = server.connect().post(path, &json!({ "items": items }).to_string());
    (reply.status, reply.json())
}

/// The items of a comparison that succeeds.
fn compare(server: &Server, items: &Value) -> Vec<Value> {
    let (status, reply) = post(server, "/bloom", items);
    assert_eq!(status, 200, "{reply}");
    assert!(reply["cursor"].is_string(), "{reply}");
    reply["items"].as_array().expect("a comparison has items").clone()
}

/// A list of hashes or entries, sorted: their order is nobody's business.
fn sorted(list: &Value) -> Vec<String> {
    let list = list.as_array().unwrap_or_else(|| panic!("a list, not {list}"));
    let mut list: Vec<String> =
        list.iter().map(|text| text.as_str().expect("a string").to_owned()).collect();
    list.sort();
    list
}

fn hashes(digests: &[Digest]) -> Vec<String> {
    let mut hashes: Vec<String> = digests.iter().map(|digest| hexadecimal(digest)).collect();
    hashes.sort();
    hashes
}

fn entries(version: u8, digests: &[Digest]) -> Vec<String> {
    let mut entries: Vec<String> =
        digests.iter().map(|digest| entry(version, digest, SEED)).collect();
    entries.sort();
    entries
}

#[test]
fn both_sides_of_the_difference_are_listed_whatever_the_form() {
    let server = Server::start();
    append(&server, "ü a", 0..60);
    append(&server, "b", 0..1);
    for (version, size) in [(1, 200), (2, 128)] {
        let item = item("ü a", version, &digests(20..80), size);
        let text = |key: &str| item[key].to_string().replace('"', "");
        let query = format!("bloomFilter={}&count={}", text("bloomFilter"), text("count"));
        let json = encode(&item.to_string());
        let mut replies = vec![
            server.get(&format!("/bloom?id=%C3%BC+a&{query}")),
            server.get(&format!("/bloom?unknown=1&{query}&id={}", encode("ü a"))),
            server.get(&format!("/bloom?items={json}")),
            server.get(&format!("/bloom?items=[{json}]")),
        ];
        for items in [item.clone(), json!([item]), json!([item, item])] {
            let body = json!({ "items": items, "unknown": null }).to_string();
            replies.push(server.connect().post("/bloom", &body));
            let fields = ["Accept: text/event-stream"];
            replies.push(server.connect().request("POST", "/bloom", &fields, body.as_bytes()));
        }
        let expected = replies[0].json();
        for reply in &replies {
            assert_eq!((reply.status, reply.json()), (200, expected.clone()), "version {version}");
            assert_eq!(reply.field("content-type"), "application/json");
            assert_eq!(reply.field("cache-control"), "no-store");
        }
        let compared = &expected["items"][0];
        assert_eq!((&compared["id"], &compared["count"]), (&json!("ü a"), &json!(60)));
        assert_eq!(sorted(&compared["clientMissing"]), hashes(&digests(0..20)));
        assert_eq!(sorted(&compared["serverMissing"]), entries(version, &digests(60..80)));
        assert_eq!(compared.as_object().map(|item| item.len()), Some(4), "{compared}");
        let read = server.read(&format!("/get?id={}", encode("ü a")));
        assert_eq!(expected["cursor"], read["cursor"]);
        let head = server.connect().request("HEAD", &format!("/bloom?id=a&{query}"), &[], b"");
        assert_eq!((head.status, head.body.len()), (200, 0));
    }
}

#[test]
fn equal_counts_are_not_equal_sets() {
    let server = Server::start();
    append(&server, "a", 0..10);
    for (version, size, own, missing) in [
        (1, 100, 0..10, 0),
        (1, 100, 1..11, 1),
        (1, 100, 10..20, 10),
        (2, 48, 0..10, 0),
        (2, 48, 1..11, 1),
        (2, 48, 10..20, 10),
    ] {
        let own = digests(own);
        let compared = compare(&server, &item("a", version, &own, size));
        assert_eq!(compared[0]["count"], 10);
        assert_eq!(sorted(&compared[0]["clientMissing"]), hashes(&digests(0..missing)));
        let lacking = entries(version, &own[own.len() - missing..]);
        assert_eq!(sorted(&compared[0]["serverMissing"]), lacking);
    }
}

/// Even a maker that loses events loses nothing: they are listed as if it did not have them.
#[test]
fn events_that_found_no_room_are_sent_again() {
    let server = Server::start();
    append(&server, "a", 0..500);
    let own = digests(100..500);
    let (filter, unplaced) = Bloom::of(&own, 400, SEED);
    assert!(unplaced.len() > 5, "the table is nearly full, and nothing was moved");
    let item = json!({ "id": "a", "count": 400, "bloomFilter": filter.encode() });
    let compared = compare(&server, &json!(item));
    let expected = [digests(0..100), unplaced].concat();
    assert_eq!(sorted(&compared[0]["clientMissing"]), hashes(&expected));
    assert_eq!(sorted(&compared[0]["serverMissing"]), Vec::<String>::new());
    let (_, reply) = post(&server, "/get", &item);
    let events = reply["items"][0]["events"].as_array().expect("a read has events").clone();
    let sent: Vec<Digest> = events
        .iter()
        .map(|event| digest(event["value"].as_str().expect("a value is a string").as_bytes()))
        .collect();
    assert_eq!(hashes(&sent), hashes(&expected));
}

#[test]
fn without_a_filter_there_are_counts_and_the_servers_filter() {
    let server = Server::start();
    append(&server, "a", 0..30);
    for (count, servers) in [(None, false), (Some(30), false), (Some(31), false), (Some(29), true)]
    {
        let (mut item, mut query) = (json!({ "id": "a" }), "/bloom?id=a".to_owned());
        if let Some(count) = count {
            item["count"] = count.into();
            query.push_str(&format!("&count={count}"));
        }
        for mut compared in
            [compare(&server, &item).remove(0), server.read(&query)["items"][0].take()]
        {
            let members = compared.as_object_mut().expect("an item is an object");
            let filter = members.remove("bloomFilter");
            assert_eq!(filter.is_some(), servers, "{query}");
            assert_eq!(compared, json!({ "id": "a", "count": 30 }), "{query}");
        }
    }
    let empty = server.read("/bloom?id=nobody");
    assert_eq!(empty["items"], json!([{ "id": "nobody", "count": 0 }]));
    assert_eq!(halves(empty["cursor"].as_str().expect("a string")).0, 0);
}

#[test]
fn the_servers_own_filter_holds_all_it_has() {
    let server = Server::start();
    append(&server, "a", 0..300);
    let filter_of = |item: Value| compare(&server, &item)[0]["bloomFilter"].clone();
    let mut seeds = Vec::new();
    for item in [
        json!({ "id": "a", "count": 0 }),
        json!({ "id": "a", "count": 299 }),
        item("a", 1, &digests(0..100), 299),
        item("a", 1, &[], 0),
    ] {
        let filter = filter_of(item);
        let filter = Bloom::decode(filter.as_str().expect("the server has more events"));
        assert_eq!((filter.count, filter.entries()), (300, 300));
        assert!(digests(0..300).iter().all(|digest| filter.contains(digest)));
        assert!(!digests(300..400).iter().any(|digest| filter.contains(digest)));
        seeds.push(filter.seed);
    }
    seeds.sort_unstable();
    seeds.dedup();
    assert_eq!(seeds.len(), 4, "every filter has a seed of its own");
    for item in [item("a", 1, &digests(0..100), 300), item("a", 2, &digests(0..290), 48)] {
        assert_eq!(filter_of(item), Value::Null);
    }
}

#[test]
fn a_filter_of_the_servers_over_one_mebibyte_is_left_out() {
    let server = Server::start();
    append(&server, "a", 0..166_434);
    let compared = server.read("/bloom?id=a&count=1");
    let filter = compared["items"][0]["bloomFilter"].as_str().expect("it has just the size");
    assert_eq!(filter.len() / 4 * 3, (1 << 20) - 16);
    assert_eq!(Bloom::decode(filter).entries(), 166_434);
    append(&server, "a", 166_434..166_435);
    assert_eq!(
        server.read("/bloom?id=a&count=1")["items"],
        json!([{ "id": "a", "count": 166_435, "bloomFilterOmitted": true }])
    );
}

#[test]
fn a_sketch_that_does_not_decode_says_how_many_cells_to_try() {
    let server = Server::start();
    append(&server, "a", 0..20_000);
    append(&server, "b", 0..30);
    let good = item("b", 2, &digests(0..10), 64);
    for (cells, next) in
        [(1, Some(4)), (100, Some(400)), (8_192, Some(32_768)), (8_193, None), (10_000, None)]
    {
        let mut told = json!({ "id": "a" });
        if let Some(next) = next {
            told["nextCells"] = next.into();
        }
        let bad = item("a", 2, &digests(10_000..10_010), cells);
        let compared = compare(&server, &json!([good, bad]));
        let mut expected = told.clone();
        expected["count"] = 20_000.into();
        expected["undecoded"] = true.into();
        assert_eq!(compared[1], expected);
        assert_eq!(sorted(&compared[0]["clientMissing"]), hashes(&digests(10..30)));

        let reply =
            server.connect().post("/get", &json!({ "items": [good, bad, "c"] }).to_string());
        assert_eq!(reply.status, 409, "{}", reply.text());
        assert_eq!(reply.field("content-type"), "application/problem+json");
        assert_eq!(reply.field("cache-control"), "no-store");
        let problem = reply.json();
        assert_eq!((&problem["status"], &problem["title"]), (&json!(409), &json!("Conflict")));
        assert_eq!(problem["items"], json!([told]));
    }
    let both = json!([item("b", 2, &[], 1), item("a", 2, &[], 4)]);
    let (status, problem) = post(&server, "/get", &both);
    let expected = json!([{ "id": "b", "nextCells": 4 }, { "id": "a", "nextCells": 16 }]);
    assert_eq!((status, &problem["items"]), (409, &expected), "in request order");
}

/// The same filter for another storage.
pub(crate) fn for_storage(id: &str, item: &Value) -> Value {
    let mut item = item.clone();
    item["id"] = id.into();
    item
}

#[test]
fn without_an_id_it_is_the_whole_server() {
    let server = Server::start();
    append(&server, "a", 0..20);
    append(&server, "ü b", 10..40);
    let all: Vec<Digest> = (0..20)
        .map(|number| filter::digest_of_server("a", &value(number)))
        .chain((10..40).map(|number| filter::digest_of_server("ü b", &value(number))))
        .collect();
    let own = [&all[15..], &digests(0..5)[..]].concat();
    for (version, size) in [(1, 200), (2, 96)] {
        let item = without_id(item("", version, &own, size));
        let compared = compare(&server, &item).remove(0);
        assert_eq!(compared.as_object().map(|item| item.len()), Some(3), "{compared}");
        assert_eq!(compared["count"], 50);
        assert_eq!(sorted(&compared["clientMissing"]), hashes(&all[..15]));
        assert_eq!(sorted(&compared["serverMissing"]), entries(version, &digests(0..5)));
        let several = compare(&server, &json!([{ "id": "a" }, item, { "id": "ü b" }]));
        assert_eq!(several[0], json!({ "id": "a", "count": 20 }));
        assert_eq!(several[1]["clientMissing"], compared["clientMissing"]);
        assert_eq!(several[2], json!({ "id": "ü b", "count": 30 }));
    }
    assert_eq!(server.read("/bloom")["items"], json!([{ "count": 50 }]));
    let counted = server.read("/bloom?count=10");
    let filter = counted["items"][0]["bloomFilter"].as_str().expect("the server has more");
    let filter = Bloom::decode(filter);
    assert_eq!((filter.count, filter.entries()), (50, 50));
    assert!(all.iter().all(|digest| filter.contains(digest)));
    for (target, last) in [("/bloom", 50), ("/bloom?count=1", 50), ("/bloom?id=a", 20)] {
        let cursor = server.read(target)["cursor"].as_str().expect("a string").to_owned();
        assert_eq!(halves(&cursor).0, last, "{target}");
    }
}

#[test]
#[ignore = "appends a million events"]
fn a_filter_over_the_whole_server_has_a_limit() {
    let server = Server::start();
    append(&server, "a", 0..1_048_576);
    let item = without_id(item("", 2, &[], 4));
    assert_eq!(compare(&server, &item)[0]["undecoded"], true);
    append(&server, "b", 0..1);
    let (status, problem) = post(&server, "/bloom", &json!([{ "id": "b" }, item]));
    let detail = problem["detail"].as_str().unwrap_or_default();
    assert!(status == 400 && detail.contains("1048576"), "{problem}");
    assert!(detail.starts_with("items[1]"), "{detail}");
    assert_eq!(server.read("/bloom")["items"], json!([{ "count": 1_048_577 }]));
}

#[test]
fn several_items_are_answered_in_their_order() {
    let server = Server::start();
    append(&server, "a", 0..10);
    append(&server, "b", 0..20);
    append(&server, "other", 0..1);
    let a = item("a", 1, &digests(0..9), 50);
    let b = item("b", 2, &digests(0..18), 48);
    let (status, reply) = post(&server, "/bloom", &json!([b, { "id": "c" }, a, b]));
    assert_eq!(status, 200, "{reply}");
    let items = reply["items"].as_array().expect("a comparison has items");
    let shapes: Vec<_> = items
        .iter()
        .map(|item| (item["id"].as_str(), item["count"].as_u64(), item["clientMissing"].as_array()))
        .map(|(id, count, missing)| (id.expect("an id"), count, missing.map(Vec::len)))
        .collect();
    assert_eq!(shapes, [("b", Some(20), Some(2)), ("c", Some(0), None), ("a", Some(10), Some(1))]);
    assert_eq!(halves(reply["cursor"].as_str().expect("a string")).0, 30);
    let many: Vec<Value> = (0..64).map(|n| for_storage(&n.to_string(), &a)).collect();
    assert_eq!(compare(&server, &json!(many)).len(), 64);
}

/// Requests that are refused, and how `detail` begins.
fn refused() -> Vec<(Value, &'static str)> {
    let good = item("a", 1, &digests(0..3), 10);
    let with = |key: &str, value: Value| {
        let mut item = good.clone();
        item[key] = value;
        item
    };
    let raw = |bytes: Vec<u8>| base64url(&bytes);
    let head = |version, size, count| raw(filter::head(version, size, count, SEED));
    vec![
        (json!([]), "items: "),
        (json!("a"), "items: "),
        (json!(["a"]), "items[0]: "),
        (json!([1]), "items[0]: "),
        (with("id", json!(1)), "items.id: "),
        (with("id", json!("")), "items.id: "),
        (with("id", Value::Null), "items.id: "),
        (with("count", json!(11)), "items.bloomFilter: its head has the count 10, not 11"),
        (with("count", json!(-10)), "items.count: "),
        (with("count", json!(10.5)), "items.count: "),
        (with("count", json!("10")), "items.count: "),
        (with("count", Value::Null), "items.count: "),
        (json!({ "id": "a", "bloomFilter": good["bloomFilter"] }), "items.count: "),
        (json!({ "bloomFilter": good["bloomFilter"] }), "items.count: "),
        (json!([good, { "id": "b", "count": -1 }]), "items[1].count: "),
        (json!([good, with("count", json!(11))]), "items[1]"),
        (json!([good, { "id": "a" }]), "items[1]"),
        (json!([{}, { "id": "a" }, { "count": 3 }]), "items[2]"),
        ((0..65).map(|n| json!({ "id": n.to_string() })).collect(), "items"),
        (with("bloomFilter", Value::Null), "items.bloomFilter: "),
        (with("bloomFilter", json!("")), "items.bloomFilter: "),
        (with("bloomFilter", json!("AQ==")), "items.bloomFilter: "),
        (with("bloomFilter", json!("AQ/+")), "items.bloomFilter: "),
        (with("bloomFilter", head(1, 3, 10).into()), "items.bloomFilter: length 24 "),
        (with("bloomFilter", head(1, 4, 10).into()), "items.bloomFilter: size 4 "),
        (with("bloomFilter", head(3, 3, 10).into()), "items.bloomFilter: version 3 "),
        (with("bloomFilter", head(2, 0, 10).into()), "items.bloomFilter: size 0 "),
        (with("bloomFilter", head(2, 32_769, 10).into()), "items.bloomFilter: size 32769 "),
        (with("bloomFilter", head(1, 275_253, 1_048_577).into()), "items.bloomFilter: count "),
        (json!([{ "id": "z" }, with("bloomFilter", json!("AQ"))]), "items[1].bloomFilter: "),
    ]
}

#[test]
fn what_is_malformed_is_refused_by_name() {
    let server = Server::start();
    append(&server, "a", 0..5);
    let check = |shown: &str, reply: Reply, begins: &str| {
        assert_eq!(reply.status, 400, "{shown}: {}", reply.text());
        let problem = reply.json();
        let detail = problem["detail"].as_str().expect("a problem has a detail");
        assert!(detail.starts_with(begins), "{shown}: {detail}, not {begins}");
        assert_eq!(reply.field("cache-control"), "no-store", "{shown}");
    };
    for (items, begins) in refused() {
        let body = json!({ "items": items }).to_string();
        check(&body, server.connect().post("/bloom", &body), begins);
    }
    let good = bloom(&digests(0..3), 10);
    let double =
        format!(r#"{{"items":{{"id":"a","count":10,"count":10,"bloomFilter":"{good}"}}}}"#);
    for (body, begins) in [
        ("{}", "items: "),
        ("", "body: "),
        ("[]", "body: "),
        (r#"{"items":null}"#, "items: "),
        (double.as_str(), "items.count: "),
    ] {
        check(body, server.connect().post("/bloom", body), begins);
    }
    for (query, begins) in [
        (format!("id=a&bloomFilter={good}"), "count: "),
        (
            format!("id=a&bloomFilter={good}&count=11"),
            "bloomFilter: its head has the count 10, not 11",
        ),
        (format!("id=a&bloomFilter={good}&count=ten"), "count: "),
        ("id=a&count=".to_owned(), "count: "),
        ("id=a&count=1&count=1".to_owned(), "count: "),
        ("id=a&id=a".to_owned(), "id: "),
        ("id=".to_owned(), "id: "),
        ("id=a&count=1&bloomFilter=".to_owned(), "bloomFilter: "),
        (format!("id=a&count=10&bloomFilter={good}A"), "bloomFilter: "),
        ("items=[]".to_owned(), "items: "),
    ] {
        check(&query, server.get(&format!("/bloom?{query}")), begins);
    }
}

#[test]
fn filters_of_an_independent_implementation_are_understood() {
    let server = Server::start();
    let file: Value = serde_json::from_str(include_str!("../data/filters.json")).expect("JSON");
    let vectors = file["filters"].as_array().expect("a list of filters");
    assert_eq!(vectors.len(), 10);
    for (number, vector) in vectors.iter().enumerate() {
        let text = |key: &str| vector[key].as_str().expect("a string").to_owned();
        let events = vector["n"].as_u64().expect("a number");
        let id = number.to_string();
        let values: Vec<String> =
            (0..events).map(|event| format!("{}-{event}", text("prefix"))).collect();
        let absent: Vec<&str> = match vector["absent"].as_array() {
            Some(absent) => absent.iter().map(|value| value.as_str().expect("text")).collect(),
            None => vec!["absent"],
        };
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        for values in [&values, &absent].into_iter().filter(|values| !values.is_empty()) {
            server.set(&id, values);
        }
        let count = vector["count"].as_u64().unwrap_or(events);
        let item = json!({ "id": id, "bloomFilter": text("filter"), "count": count });
        let compared = compare(&server, &item).remove(0);
        let missing: Vec<Digest> = absent.iter().map(|value| digest(value.as_bytes())).collect();
        assert_eq!(sorted(&compared["clientMissing"]), hashes(&missing), "vector {number}");
        assert_eq!(compared["serverMissing"], json!([]), "vector {number}");
        let (_, reply) = post(&server, "/get", &item);
        let events = reply["items"][0]["events"].as_array().expect("a read has events").clone();
        let sent: Vec<&Value> = events.iter().map(|event| &event["value"]).collect();
        assert_eq!(sent, absent, "vector {number}");
        let elsewhere = compare(&server, &for_storage("nobody", &item)).remove(0);
        let seed = u64::from_str_radix(&text("seed"), 16).expect("hexadecimal");
        let version = vector["version"].as_u64().expect("a number") as u8;
        if elsewhere["undecoded"].is_null() {
            let mut expected: Vec<String> = values
                .iter()
                .map(|value| entry(version, &digest(value.as_bytes()), seed))
                .collect();
            expected.sort();
            assert_eq!(sorted(&elsewhere["serverMissing"]), expected, "vector {number}");
        } else {
            assert_eq!((version, values.len() > 1), (2, true), "vector {number}");
        }
    }
}
