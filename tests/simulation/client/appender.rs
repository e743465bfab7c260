//! Owns the client that appends: one request at a time, one value or many, some of them twice, and
//! some that others append as well. One that saw no reply asks for the same again.

use super::View;
use super::http;
use super::selects::{STORAGES, name, quote};
use crate::random::Random;

pub(super) struct Appender {
    number: u64,
    /// What is to be appended now: storage and values.
    asked: Option<(String, Vec<String>)>,
    /// A request for that has no reply yet.
    pub(super) waits: bool,
    values: u64,
    pub(super) acknowledged: u64,
}

impl Appender {
    pub(super) fn new(number: u64) -> Appender {
        Appender { number, asked: None, waits: false, values: 0, acknowledged: 0 }
    }

    pub(super) fn is_busy(&self) -> bool {
        self.asked.is_some()
    }

    pub(super) fn begin(&mut self, random: &mut Random) -> Option<Vec<u8>> {
        if self.asked.is_some() {
            return None;
        }
        let count = if random.one_in(4) { 1 + random.below(6) } else { 1 };
        let values = (0..count).map(|_| self.value(random)).collect();
        self.asked = Some((name(random.below(STORAGES)), values));
        Some(self.again())
    }

    fn value(&mut self, random: &mut Random) -> String {
        // Sometimes a value that was sent before, or that others send.
        if !random.one_in(5) {
            self.values += 1;
        }
        if random.one_in(10) {
            return format!("everybody's {}", random.below(8));
        }
        let padding = match random.below(200) {
            // More than is parsed on the loop, or than an entry of the hot cache takes.
            0 => 70_000,
            // Longer than a page.
            1 => 140_000,
            2..10 => 3_000,
            _ => random.below(30) as usize,
        };
        format!("v{}.{}\n\u{2028}{}", self.number, self.values, "x".repeat(padding))
    }

    /// The request for what is to be appended, from its start.
    pub(super) fn again(&mut self) -> Vec<u8> {
        let Some((storage, values)) = &self.asked else { return Vec::new() };
        self.waits = true;
        let body = match values.as_slice() {
            [value] => serde_json::json!({ "value": value }),
            values => serde_json::json!({ "values": values }),
        };
        http::request("POST", &format!("/set/{}", quote(storage)), "", &body.to_string())
    }

    /// Whether the connection ends.
    pub(super) fn replies(&mut self, incoming: &mut Vec<u8>, view: &View<'_>) -> bool {
        let mut closes = false;
        while let Some(reply) = http::take(incoming, false) {
            closes |= reply.closes();
            let asked = if std::mem::take(&mut self.waits) { self.asked.take() } else { None };
            let Some((storage, values)) = asked else {
                assert_eq!(reply.status, 408, "nobody asked: {}", reply.head);
                continue;
            };
            match reply.status {
                200 | 201 => self.acknowledge(&storage, &values, &reply.json(), view),
                408 => self.asked = Some((storage, values)),
                503 if view.crowded => self.asked = Some((storage, values)),
                // Whether it was stored is not known, or that it was not: it is given up, or sent
                // again as one that is much like it.
                500 | 507 if view.commits_failed => {}
                status => panic!("an append was answered {status}: {:?}", reply.body),
            }
        }
        closes
    }

    /// Acknowledged is durable, at the place that is named.
    fn acknowledge(
        &mut self,
        storage: &str,
        values: &[String],
        reply: &serde_json::Value,
        view: &View<'_>,
    ) {
        assert_eq!(reply["id"], storage);
        let one = [reply.clone()];
        let events = reply["events"].as_array().map_or(&one[..], Vec::as_slice);
        assert_eq!(events.len(), values.len());
        for (event, value) in events.iter().zip(values) {
            let seq = event["seq"].as_u64().expect("a seq is a number");
            let stored = view.record.event(seq).expect("what is acknowledged is durable");
            assert_eq!((stored.storage.as_str(), &stored.value), (storage, value), "at {seq}");
            assert_eq!(event["hash"], crate::filter::hexadecimal(&stored.digest));
            assert!(seq <= view.noticed, "what is acknowledged is visible");
        }
        self.acknowledged += 1;
    }
}
