//! Owns the Server-Sent Events layer: when a selection is answered as a stream, and how events are
//! encoded (WHATWG HTML, 9.2). The hub and the readers call it. It knows nothing of sockets and
//! feeds.
//!
//! Lines end in LF only, `retry:` and comments have no blank line of their own, and every event
//! ends a chunk: forms that every client tried gets right.

use std::iter::Peekable;
use std::ops::Range;

use crate::config::{self, FRAME_BYTES};
use crate::event::{Epoch, Seq};
use crate::http;
use crate::json;

const MEDIA_TYPE: &str = "text/event-stream";
/// As the protocol's first draft spelt it.
const MEDIA_TYPE_DRAFT: &str = "event/text-stream";

pub const COMMENT: &[u8] = b":\n";
pub const RESET: &[u8] = b"event: reset\nid: 0\ndata: {\"cursor\":\"0\"}\n\n";

/// Whether `Accept` lists an event stream, with a quality above 0 and not below JSON's.
pub fn wants_stream(accept: &str) -> bool {
    // Most requests name neither: both have a hyphen.
    if !accept.contains('-') {
        return false;
    }
    let listed = [MEDIA_TYPE, MEDIA_TYPE_DRAFT].iter().filter_map(|t| http::lists(accept, t)).max();
    listed.is_some_and(|q| q > 0 && q >= http::quality(accept, "application/json"))
}

pub fn retry(milliseconds: u64) -> Vec<u8> {
    format!("retry: {milliseconds}\n").into_bytes()
}

/// What a stream that cannot be served, or that ends, tells its client: come back later than
/// usual, and not all at once.
pub fn retry_away(random: u64) -> Vec<u8> {
    retry(config::RETRY_AWAY + random % config::RETRY_AWAY_JITTER)
}

/// An appended event. `id_json` is the identifier as a JSON string.
pub fn write_event(out: &mut Vec<u8>, epoch: Epoch, id_json: &[u8], seq: Seq, value: &str) {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(seq).as_bytes();
    out.extend_from_slice(b"id: ");
    out.extend_from_slice(digits);
    out.push(b'.');
    out.extend_from_slice(&epoch.digits());
    out.extend_from_slice(b"\ndata: {\"id\":");
    out.extend_from_slice(id_json);
    out.extend_from_slice(b",\"seq\":");
    out.extend_from_slice(digits);
    out.extend_from_slice(b",\"value\":");
    json::write_string(out, value);
    out.extend_from_slice(b"}\n\n");
}

/// `items`: identifiers as JSON strings with their counts, or nothing where there are too many.
pub fn write_synced(out: &mut Vec<u8>, cursor: &str, items: Option<&[(Vec<u8>, u64)]>) {
    out.extend_from_slice(b"event: synced\nid: ");
    out.extend_from_slice(cursor.as_bytes());
    out.extend_from_slice(b"\ndata: {\"cursor\":\"");
    out.extend_from_slice(cursor.as_bytes());
    out.push(b'"');
    if let Some(items) = items {
        out.extend_from_slice(b",\"items\":[");
        for (place, (id_json, count)) in items.iter().enumerate() {
            if place > 0 {
                out.push(b',');
            }
            out.extend_from_slice(b"{\"id\":");
            out.extend_from_slice(id_json);
            out.extend_from_slice(b",\"count\":");
            out.extend_from_slice(itoa::Buffer::new().format(*count).as_bytes());
            out.push(b'}');
        }
        out.push(b']');
    }
    out.extend_from_slice(b"}\n\n");
}

/// Events of one storage, encoded once, chunk framing included, for every subscriber.
#[derive(Clone, Debug)]
pub struct Frame {
    bytes: Vec<u8>,
    payload: Range<u32>,
    events: usize,
    last: Seq,
}

impl Frame {
    /// The next events, as many as a frame takes: one, and those that go with it into
    /// `FRAME_BYTES`. `None` when there are no more.
    pub fn next<'a>(
        epoch: Epoch,
        id_json: &[u8],
        events: &mut Peekable<impl Iterator<Item = (Seq, &'a str)>>,
    ) -> Option<Frame> {
        let mut payload = Vec::with_capacity(id_json.len() + events.peek()?.1.len() + 96);
        let (mut taken, mut last) = (0, 0);
        let fits = |payload: &Vec<u8>, value: &str| {
            payload.is_empty() || payload.len() + id_json.len() + value.len() < FRAME_BYTES
        };
        while let Some((seq, value)) = events.next_if(|(_, value)| fits(&payload, value)) {
            write_event(&mut payload, epoch, id_json, seq, value);
            taken += 1;
            last = seq;
        }
        let mut bytes = Vec::with_capacity(payload.len() + 16);
        http::write_chunk(&mut bytes, &payload);
        let end = bytes.len() - b"\r\n".len();
        let payload = (end - payload.len()) as u32..end as u32;
        Some(Frame { bytes, payload, events: taken, last })
    }

    pub fn events(&self) -> usize {
        self.events
    }

    /// The `seq` of the last of its events.
    pub fn last(&self) -> Seq {
        self.last
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The part to send, as a chunk or bare.
    pub fn range(&self, chunked: bool) -> Range<u32> {
        if chunked { 0..self.bytes.len() as u32 } else { self.payload.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn accept_decides_between_json_and_a_stream() {
        for (accept, stream) in [
            ("", false),
            ("*/*", false),
            ("text/*", false),
            ("application/json", false),
            ("text/event-stream", true),
            ("TEXT/Event-Stream", true),
            ("event/text-stream", true),
            ("text/event-stream, application/json", true),
            ("text/event-stream;q=0.5, application/json", false),
            ("text/event-stream;q=0.5, application/json;q=0.4", true),
            ("text/event-stream;q=0", false),
            ("text/event-stream, */*", true),
            ("text/html, text/event-stream;q=0.9, */*;q=0.8", true),
        ] {
            assert_eq!(wants_stream(accept), stream, "{accept}");
        }
    }

    #[test]
    fn events_are_encoded_on_one_line() {
        let event = text(|out| write_event(out, Epoch(0x9f3a_2c1d), b"\"a\"", 17, "x\r\n\"\0ä"));
        let expected = "id: 17.9f3a2c1d\n\
                        data: {\"id\":\"a\",\"seq\":17,\"value\":\"x\\r\\n\\\"\\u0000ä\"}\n\n";
        assert_eq!(event, expected);
    }

    #[test]
    fn synced_lists_items_or_leaves_them_out() {
        let items = [(b"\"a\"".to_vec(), 2), (b"\"b\"".to_vec(), 0)];
        let with = text(|out| write_synced(out, "17.9f3a2c1d", Some(&items)));
        assert!(with.ends_with(
            "data: {\"cursor\":\"17.9f3a2c1d\",\
             \"items\":[{\"id\":\"a\",\"count\":2},{\"id\":\"b\",\"count\":0}]}\n\n"
        ));
        let without = text(|out| write_synced(out, "1.0000000a", None));
        assert!(without.ends_with("data: {\"cursor\":\"1.0000000a\"}\n\n"));
    }

    #[test]
    fn a_frame_is_a_chunk_around_its_payload() {
        let mut events = [(1, "v")].into_iter().peekable();
        let frame = Frame::next(Epoch(1), b"\"a\"", &mut events).unwrap();
        let bytes = frame.bytes();
        let bare = frame.range(false);
        let payload = &bytes[bare.start as usize..bare.end as usize];
        let mut chunk = Vec::new();
        http::write_chunk(&mut chunk, payload);
        assert_eq!(bytes, chunk);
        assert!(payload.starts_with(b"id: 1.00000001\n") && payload.ends_with(b"\n\n"));
    }

    #[test]
    fn small_events_share_frames_and_large_ones_do_not() {
        let large = "x".repeat(FRAME_BYTES);
        let values = [&large[..], "a", "b", &large, &large[..FRAME_BYTES / 2], "c", &large, "d"];
        let mut events = (5..).zip(values).peekable();
        let frames: Vec<Frame> =
            std::iter::from_fn(|| Frame::next(Epoch(1), b"\"a\"", &mut events)).collect();
        let held: Vec<(usize, Seq)> = frames.iter().map(|f| (f.events(), f.last())).collect();
        assert_eq!(held, [(1, 5), (2, 7), (1, 8), (2, 10), (1, 11), (1, 12)]);
        let joined: Vec<u8> = frames
            .iter()
            .flat_map(|frame| {
                let bare = frame.range(false);
                frame.bytes()[bare.start as usize..bare.end as usize].to_vec()
            })
            .collect();
        let mut apart = Vec::new();
        for (seq, value) in (5..).zip(values) {
            write_event(&mut apart, Epoch(1), b"\"a\"", seq, value);
        }
        assert!(joined == apart);
    }
}
