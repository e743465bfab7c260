//! What an operator sees: health, metrics, log lines.

use std::collections::BTreeMap;

use crate::harness::{Server, Stream};

#[test]
fn health_is_an_answer_of_the_writer() {
    let server = Server::start();
    for _ in 0..3 {
        let reply = server.get("/healthz");
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.field("cache-control"), "no-store");
    }
}

/// Metrics by name, labels included; every line must be of the text format.
fn metrics(server: &Server) -> BTreeMap<String, f64> {
    let reply = server.get("/metrics");
    assert_eq!(reply.status, 200);
    assert!(reply.field("content-type").starts_with("text/plain"), "{:?}", reply.fields);
    let (mut samples, mut types) = (BTreeMap::new(), BTreeMap::new());
    for line in reply.text().lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let words: Vec<&str> = words.by_ref().collect();
            let [kind, name, rest] = words[..] else { panic!("{line:?}") };
            assert!(matches!(kind, "HELP" | "TYPE") && !rest.is_empty(), "{line:?}");
            if kind == "TYPE" {
                assert!(matches!(rest, "counter" | "gauge" | "histogram"), "{line:?}");
                assert!(types.insert(name.to_owned(), rest).is_none(), "{line:?} twice");
            }
            continue;
        }
        let (name, number) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?}"));
        let number: f64 = number.parse().unwrap_or_else(|_| panic!("{line:?}"));
        let bare = name.split('{').next().unwrap_or_default();
        let plain = bare.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        assert!(bare.starts_with("rill_") && plain, "{line:?}");
        assert_eq!(name.contains('{'), name.ends_with("\"}"), "{line:?}");
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .filter_map(|suffix| bare.strip_suffix(suffix))
            .find(|family| types.get(*family) == Some(&"histogram"))
            .unwrap_or(bare);
        assert!(types.contains_key(family), "{line:?} has no type");
        assert!(samples.insert(name.to_owned(), number).is_none(), "{line:?} twice");
    }
    samples
}

#[test]
fn metrics_follow_what_happens() {
    let server = Server::start();
    let idle = metrics(&server);
    assert!(idle.len() >= 10, "{idle:?}");
    server.set("a", &["one", "two"]);
    server.get("/get?id=a");
    let mut stream = server.stream("/get?id=a");
    stream.until_synced();
    server.set("a", &["three"]);
    stream.next();
    let busy = metrics(&server);
    let grown: Vec<&String> = busy
        .iter()
        .filter(|(name, value)| **value > *idle.get(*name).unwrap_or(&0.0))
        .map(|e| e.0)
        .collect();
    for part in ["request", "event", "stream"] {
        assert!(grown.iter().any(|name| name.contains(part)), "no {part} in {grown:?}");
    }
    for (name, before) in &idle {
        if name.split('{').next().is_some_and(|bare| bare.ends_with("_total")) {
            assert!(busy.get(name).is_some_and(|after| after >= before), "{name} fell");
        }
    }
    let all: Vec<f64> = busy.values().copied().collect();
    assert!(all.contains(&3.0), "three events show: {busy:?}");
}

const SECRET: &str = "a-capability-nobody-may-read-in-a-log";

fn lines_of(args: &[&str]) -> Vec<String> {
    let mut server = Server::start_with(args);
    server.set(SECRET, &["v"]);
    server.get(&format!("/get?id={SECRET}"));
    server.get(&format!("/get?items=[{{%22id%22:%22{SECRET}%22}}]&after=x"));
    server.get(&format!("/{SECRET}"));
    Stream::open(server.address(), &format!("/get?items={SECRET}"), &[]).until_synced();
    server.connect().request("PUT", &format!("/set/{SECRET}"), &[], b"");
    server.process.signal("TERM");
    assert_eq!(server.process.exit_code(), Some(0));
    let (stdout, stderr) = (server.process.stdout.clone(), server.process.stderr.clone());
    for lines in [&stdout, &stderr] {
        let ended: Option<()> = lines.wait_for(|_| None);
        assert_eq!(ended, None);
    }
    [stdout.seen(), stderr.seen()].concat()
}

#[test]
fn requests_are_logged_when_asked_for_and_never_with_an_identifier() {
    let with = lines_of(&["--access-log"]);
    let without = lines_of(&[]);
    let requests =
        |lines: &[String]| lines.iter().filter(|line| line.contains(" access: ")).count();
    assert!(requests(&with) >= 6, "{with:#?}");
    assert_eq!(requests(&without), 0, "{without:#?}");
    for line in with.iter().chain(&without) {
        assert!(!line.contains(&SECRET[..20]), "the capability stands in a log line: {line}");
    }
    for status in ["201", "200", "400", "404", "405"] {
        assert!(with.iter().any(|line| line.contains(status)), "no {status} in {with:#?}");
    }
}
