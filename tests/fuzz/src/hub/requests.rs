//! Owns the requests that an input of the hub's check can name in two bytes, so that it need not
//! find HTTP out. Sends none of them.

use super::filter::{Bloom, Digest, digest, sketch};

/// Storages that appends go to.
pub(super) const STORAGES: u8 = 3;

/// One request; `kind` says which, `number` what is in it.
pub(super) fn request(kind: u8, number: u8) -> Vec<u8> {
    let storage = number % STORAGES;
    let bloom = || Bloom::of(&held(), 8, 1).0.encode();
    let cells = u32::from(number) + 1;
    match kind % 24 {
        0 => append(storage, &format!(r#"{{"value":"v{number}"}}"#)),
        1 => append(storage, &format!(r#"{{"values":["v{number}","w","v{number}"]}}"#)),
        2 => append(storage, &format!(r#"{{"value":"{number}{}"}}"#, "x".repeat(3_000))),
        // More than is parsed on the loop.
        3 => append(storage, &format!(r#"{{"value":"{number}{}"}}"#, "y".repeat(70_000))),
        4 => chunked(storage, &format!(r#"{{"value":"v{number}"}}"#)),
        5 => expecting(storage, r#"{"value":"expected"}"#),
        6 => get(&format!("/get?id=s{storage}"), ""),
        7 => get(&format!("/get?items=s0&items=s1&items=s2&limit={}", 1 + number / 8), ""),
        8 => get(&format!("/get?items=s0&items=s1&last={number}"), ""),
        9 => get(&format!("/get?id=s{storage}&after={number}.00000007"), ""),
        10 => get(&format!("/get?id=s{storage}"), "If-None-Match: *\r\n"),
        11 => get(&format!("/get?id=s{storage}"), STREAM),
        12 => get("/get?items=s0&items=s1&items=s2", STREAM),
        13 => get("/get?items=s0&items=s2", &format!("{STREAM}Last-Event-ID: {number}\r\n")),
        14 => format!("GET /get?id=s{storage} HTTP/1.0\r\n{STREAM}\r\n").into_bytes(),
        15 => get(&format!("/get?id=s{storage}&bloomFilter={}", bloom()), STREAM),
        16 => get(&format!("/get?id=s{storage}&bloomFilter={}", sketch(&held(), cells, 1)), STREAM),
        17 => get(&format!("/get?id=s{storage}&bloomFilter={}", sketch(&held(), cells, 1)), ""),
        18 => post("/bloom", &compare(Some(storage), &sketch(&held(), cells, 1), held().len())),
        19 => post("/bloom", &compare((number > 0).then_some(storage), &bloom(), 8)),
        20 => get(&format!("/bloom?id=s{storage}&count={}", number % 4), ""),
        21 => get("/healthz", ""),
        22 => get("/metrics", ["", "Connection: close\r\n"][usize::from(number % 2)]),
        _ => odd(number),
    }
}

const STREAM: &str = "Accept: text/event-stream\r\n";

/// What the maker of the filters has.
fn held() -> Vec<Digest> {
    (0..6).map(|number| digest(format!("v{number}").as_bytes())).collect()
}

/// Requests of which one each is enough.
fn odd(number: u8) -> Vec<u8> {
    match number % 8 {
        0 => b"HEAD /get?id=s0 HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n".to_vec(),
        1 => b"HEAD /get?id=s0 HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        2 => b"OPTIONS /set/s0 HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        3 => b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc".to_vec(),
        4 => b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".to_vec(),
        5 => b"GET  / HTTP/1.1\r\n\r\n".to_vec(),
        6 => b"\r\n\r\n".to_vec(),
        _ => post("/get", &format!(r#"{{"items":["s0"]{}}}"#, " ".repeat(70_000))),
    }
}

fn get(target: &str, fields: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: x\r\n{fields}\r\n").into_bytes()
}

fn post(target: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

fn append(storage: u8, body: &str) -> Vec<u8> {
    post(&format!("/set/s{storage}"), body)
}

fn chunked(storage: u8, body: &str) -> Vec<u8> {
    let (first, second) = body.split_at(body.len() / 2);
    format!(
        "POST /set/s{storage} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
         {:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n",
        first.len(),
        second.len()
    )
    .into_bytes()
}

fn expecting(storage: u8, body: &str) -> Vec<u8> {
    format!(
        "POST /set/s{storage} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A comparison of a storage, or of the whole server.
fn compare(storage: Option<u8>, filter: &str, count: usize) -> String {
    let id = storage.map(|storage| format!(r#""id":"s{storage}","#)).unwrap_or_default();
    format!(r#"{{"items":{{{id}"bloomFilter":"{filter}","count":{count}}}}}"#)
}
