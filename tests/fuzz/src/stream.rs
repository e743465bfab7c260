//! Owns the check of the event-stream encoding: what is written of any event is read back by a
//! decoder that was written from the standard, however the bytes are split, and whole frames are
//! whole chunks.

use rill::event::{Cursor, Epoch, Seq};
use rill::http::{BodyLength, BodyReader};
use rill::id::Id;
use rill::json;
use rill::sse::{self, Frame};
use serde_json::{Value, json};

use super::input::Input;

#[allow(dead_code, reason = "the tests of the wire use more of it")]
#[path = "../../it/harness/decoder.rs"]
mod decoder;

use decoder::{Decoder, Message};

/// Values as long as this are repeated beyond the size of a frame.
const LONG_BYTES: usize = 250;
const REPEATS: usize = 70;

/// The epoch, the piece length, an identifier, and until the end steps and values.
pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let epoch = Epoch(input.u64() as u32);
    let piece_bytes = usize::from(input.byte()) + 1;
    let id_bytes = usize::from(input.byte());
    let Ok(id) = Id::new(&input.text(id_bytes)) else { return };
    let (mut events, mut seq) = (Vec::new(), 0);
    while !input.is_empty() {
        seq += Seq::from(input.byte()) + 1;
        // Now and then far on: a position is a number of 64 bits.
        seq = if input.byte() == 0 { seq.saturating_mul(1 << 20).min(1 << 62) } else { seq };
        let bytes = usize::from(input.byte());
        let repeats = if bytes >= LONG_BYTES { REPEATS } else { 1 };
        events.push((seq, input.text(bytes).repeat(repeats)));
    }
    let stream = Stream { epoch, id, events };
    let bytes = stream.encode();
    let mut decoder = Decoder::default();
    bytes.chunks(piece_bytes).for_each(|piece| decoder.push(piece));
    stream.check(&mut decoder);
}

struct Stream {
    epoch: Epoch,
    id: Id,
    events: Vec<(Seq, String)>,
}

impl Stream {
    /// As a server sends it: `retry`, a reset, the events with a comment between them, `synced`.
    fn encode(&self) -> Vec<u8> {
        let id_json = json::string(self.id.as_str());
        let mut events = self.events.iter().map(|(seq, value)| (*seq, &**value)).peekable();
        let mut bytes = sse::retry(2_000);
        bytes.extend_from_slice(sse::RESET);
        let mut written = 0;
        while let Some(frame) = Frame::next(self.epoch, &id_json, &mut events) {
            written += frame.events();
            assert_eq!(frame.last(), self.events[written - 1].0);
            let part = |range: std::ops::Range<u32>| {
                &frame.bytes()[range.start as usize..range.end as usize]
            };
            let payload = part(frame.range(false));
            assert_eq!(from_chunk(part(frame.range(true))), payload, "a frame is one chunk");
            bytes.extend_from_slice(payload);
            bytes.extend_from_slice(sse::COMMENT);
        }
        assert_eq!(written, self.events.len(), "every event is in a frame");
        let items = [(id_json, written as u64)];
        sse::write_synced(&mut bytes, &self.cursor(), Some(&items));
        sse::write_synced(&mut bytes, &self.cursor(), None);
        bytes
    }

    fn cursor(&self) -> String {
        self.cursor_at(self.events.last().map_or(0, |(seq, _)| *seq))
    }

    fn cursor_at(&self, seq: Seq) -> String {
        Cursor { seq, epoch: Some(self.epoch) }.to_string()
    }

    fn check(&self, decoder: &mut Decoder) {
        let mut next = |event: &str, id: &str, data: Value| {
            let Some(message) = decoder.next() else { panic!("{event} {id} was not dispatched") };
            let Message { event: named, id: last_event_id, .. } = &message;
            assert_eq!((&**named, &**last_event_id, message.json()), (event, id, data));
        };
        next("reset", "0", json!({ "cursor": "0" }));
        let id = self.id.as_str();
        for (seq, value) in &self.events {
            let data = json!({ "id": id, "seq": seq, "value": value });
            next("message", &self.cursor_at(*seq), data);
        }
        let cursor = self.cursor();
        let items = json!([{ "id": id, "count": self.events.len() }]);
        next("synced", &cursor, json!({ "cursor": cursor, "items": items }));
        next("synced", &cursor, json!({ "cursor": cursor }));
        assert_eq!(decoder.next(), None, "nothing else is dispatched");
        assert_eq!(decoder.retries, [2_000]);
        let comments = decoder.comments;
        assert!(comments <= self.events.len() && (comments > 0) != self.events.is_empty());
    }
}

/// What a chunk holds, by the reader of request bodies.
fn from_chunk(chunk: &[u8]) -> Vec<u8> {
    let (mut body, mut reader) = (Vec::new(), BodyReader::new(BodyLength::Chunked));
    let progress = reader.read(chunk, &mut body, usize::MAX).expect("a chunk is well-formed");
    assert!(progress.consumed == chunk.len() && !progress.complete);
    body
}
