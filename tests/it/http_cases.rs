//! Plays `tests/data/http_cases.json`: raw requests with the outcomes that RFC 9110 and 9112 allow.
//! Where a case does not say whether the connection stays open, the client ends sending, so that
//! the server's close shows every reply there is.

use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Connection, Fault, Reply, Server};

const FOLLOW_UP: &str = "GET /get?id=a HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[test]
fn every_case_has_an_outcome_that_is_allowed() {
    let server = Server::start();
    server.set("a", &["v"]);
    let text = include_str!("../data/http_cases.json");
    let document: Value = serde_json::from_str(text).expect("the cases are JSON");
    let cases = document["cases"].as_array().expect("the document has cases");
    assert!(cases.len() > 50);
    let millis = document["defaults"]["read_timeout_ms"].as_u64().expect("a default");
    let address = server.address();
    let run = |case: &Value| {
        let mut connection = Connection::open(address);
        connection.set_patience(Duration::from_millis(2 * millis));
        let why = Case { case, connection }.run().err()?;
        Some(format!("{} ({}): {why}", text_of(case, "name"), text_of(case, "level")))
    };
    let failures: Vec<String> = thread::scope(|scope| {
        let lanes = cases.chunks(cases.len().div_ceil(8));
        let lanes: Vec<_> = lanes
            .map(|lane| scope.spawn(move || lane.iter().filter_map(run).collect::<Vec<_>>()))
            .collect();
        lanes.into_iter().flat_map(|lane| lane.join().expect("a case does not panic")).collect()
    });
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

fn text_of<'a>(case: &'a Value, key: &str) -> &'a str {
    case[key].as_str().unwrap_or_default()
}

fn list_of<'a>(case: &'a Value, key: &str) -> &'a [Value] {
    case[key].as_array().map_or(&[], Vec::as_slice)
}

struct Case<'a> {
    case: &'a Value,
    connection: Connection,
}

/// A reply, or why there was none, as the cases name it.
enum Outcome {
    Reply(Reply),
    Close,
    Wait,
}

impl Case<'_> {
    fn run(&mut self) -> Result<(), String> {
        self.send();
        let streams = self.case["stream"] == true;
        let mut expected = vec![&self.case["accept"]];
        expected.extend(list_of(self.case, "then"));
        let (mut replies, mut last) = (0, Outcome::Wait);
        for (place, accept) in expected.iter().enumerate() {
            let to_head = list_of(self.case, "head").get(place) == Some(&Value::Bool(true));
            last = self.outcome(to_head, streams)?;
            self.judge(place, accept, &last)?;
            match &last {
                Outcome::Reply(_) => replies += 1,
                Outcome::Close | Outcome::Wait => break,
            }
        }
        match last {
            Outcome::Reply(_) if !streams => self.judge_after(replies, expected.len()),
            Outcome::Close if self.case["conn_after"] == "open" => Err("closed".to_owned()),
            _ => Ok(()),
        }
    }

    fn send(&mut self) {
        let bytes = raw(&self.case["raw"]);
        let cuts: Vec<usize> = match self.case["chunk"].as_u64() {
            Some(size) => (0..bytes.len()).step_by(size as usize).skip(1).collect(),
            None => list_of(self.case, "split_at").iter().map(|at| cut(at, bytes.len())).collect(),
        };
        let mut from = 0;
        for to in cuts.into_iter().chain([bytes.len()]) {
            self.connection.send(&bytes[from..to]);
            from = to;
        }
        if self.case["half_close"] == true {
            self.connection.end_sending();
        }
    }

    fn outcome(&mut self, to_head: bool, streams: bool) -> Result<Outcome, String> {
        loop {
            let (mut reply, mut body) = match self.connection.try_head(to_head) {
                Ok(head) => head,
                Err(Fault::Closed) => return Ok(Outcome::Close),
                Err(Fault::Silent) => return Ok(Outcome::Wait),
                Err(Fault::Malformed(what)) => return Err(format!("malformed: {what}")),
            };
            let broken = |fault| format!("a {} with a broken body: {fault:?}", reply.status);
            while let Some(piece) = self.connection.try_piece(&mut body).map_err(broken)? {
                reply.body.extend(piece);
                let synced = String::from_utf8_lossy(&reply.body).contains("event: synced");
                if streams && synced {
                    break;
                }
            }
            if reply.status >= 200 || self.case["skip_1xx"] != true {
                return Ok(Outcome::Reply(reply));
            }
        }
    }

    fn judge(&self, place: usize, accept: &Value, outcome: &Outcome) -> Result<(), String> {
        let got = match outcome {
            Outcome::Reply(reply) => reply.status.to_string(),
            Outcome::Close => "close".to_owned(),
            Outcome::Wait => "wait".to_owned(),
        };
        let matches = |allowed: &Value| match allowed {
            Value::String(class) => {
                *class == got || class.ends_with("xx") && got.len() == 3 && class[..1] == got[..1]
            }
            number => number.as_u64().map(|status| status.to_string()).as_ref() == Some(&got),
        };
        if !accept.as_array().is_some_and(|accept| accept.iter().any(matches)) {
            return Err(format!("outcome {} is {got}, allowed are {accept}", place + 1));
        }
        if list_of(self.case, "forbid").iter().any(matches) {
            return Err(format!("{got} is forbidden"));
        }
        match outcome {
            Outcome::Reply(reply) if place == 0 => self.judge_fields(reply),
            _ => Ok(()),
        }
    }

    fn judge_fields(&self, reply: &Reply) -> Result<(), String> {
        let has = |name: &Value| {
            let name = name.as_str().expect("a field's name is a string");
            reply.fields.iter().any(|(field, _)| field == name)
        };
        if let Some(name) = list_of(self.case, "require_headers").iter().find(|name| !has(name)) {
            return Err(format!("no field {name}"));
        }
        if let Some(name) = list_of(self.case, "forbid_headers").iter().find(|name| has(name)) {
            return Err(format!("has the field {name}"));
        }
        for (name, part) in self.case["header_not_contains"].as_object().into_iter().flatten() {
            if reply.field(name).contains(part.as_str().expect("a part is a string")) {
                return Err(format!("{name} is {:?}", reply.field(name)));
            }
        }
        let forbidden = text_of(self.case, "forbid_body");
        if !forbidden.is_empty() && String::from_utf8_lossy(&reply.body).contains(forbidden) {
            return Err(format!("the body contains {forbidden:?}"));
        }
        Ok(())
    }

    /// What the connection does once the replies that were expected have come.
    fn judge_after(&mut self, replies: usize, expected: usize) -> Result<(), String> {
        let replies_max = self.case["max_responses"].as_u64().unwrap_or(expected as u64);
        if text_of(self.case, "conn_after") == "open" {
            self.connection.send(FOLLOW_UP);
            return match self.connection.try_reply(false) {
                Ok(reply) if reply.status == 200 => Ok(()),
                other => Err(format!("a follow-up gets {other:?}")),
            };
        }
        if text_of(self.case, "conn_after") != "close" {
            self.connection.end_sending();
        }
        match self.connection.until_close() {
            Err(fault) => Err(format!("the connection does not close: {fault:?}")),
            Ok(rest) if replies as u64 >= replies_max && !rest.is_empty() => {
                Err(format!("one reply too many: {:?}", String::from_utf8_lossy(&rest)))
            }
            Ok(_) => Ok(()),
        }
    }
}

fn cut(at: &Value, length: usize) -> usize {
    let at = at.as_i64().expect("a cut is a number");
    if at < 0 { length - at.unsigned_abs() as usize } else { at as usize }
}

/// A string, or a list of strings and `[string, count]`; every character is one octet.
fn raw(value: &Value) -> Vec<u8> {
    match value {
        Value::String(text) => {
            let targets = [
                ("{{HOST}}", "localhost"),
                ("{{GET}}", "/get?id=a"),
                ("{{SET}}", "/set/a"),
                ("{{SSE}}", "/get?id=a"),
                ("{{Q}}", "&"),
            ];
            let filled =
                targets.iter().fold(text.clone(), |text, (from, to)| text.replace(from, to));
            filled.chars().map(|c| u8::try_from(u32::from(c)).expect("one octet")).collect()
        }
        Value::Array(parts) => parts
            .iter()
            .flat_map(|part| match part {
                Value::Array(pair) => {
                    raw(&pair[0]).repeat(pair[1].as_u64().expect("a count") as usize)
                }
                text => raw(text),
            })
            .collect(),
        other => panic!("not bytes: {other}"),
    }
}
