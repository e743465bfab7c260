//! Owns the decoder of event streams: WHATWG HTML 9.2.6, written from that text and not from the
//! server's code. Bytes in, messages out. Called by the SSE client of the tests, and by the check of
//! the encoding under `tests/fuzz`.

use std::collections::VecDeque;

use serde_json::Value;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// "message" unless the stream names it.
    pub(crate) event: String,
    pub(crate) data: String,
    /// The last event ID as of this message.
    pub(crate) id: String,
}

impl Message {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.data)
            .unwrap_or_else(|error| panic!("{error} in the data of {self:?}"))
    }

    pub(crate) fn seq(&self) -> u64 {
        self.json()["seq"].as_u64().unwrap_or_else(|| panic!("no seq in {self:?}"))
    }
}

/// Bytes of any split → messages.
#[derive(Default)]
pub(crate) struct Decoder {
    begun: bool,
    /// The last byte was a CR, so that a LF now belongs to it.
    after_cr: bool,
    line: Vec<u8>,
    event: String,
    data: String,
    last_event_id: String,
    /// Every `retry:` so far, the newest last.
    pub(crate) retries: Vec<u64>,
    pub(crate) comments: usize,
    messages: VecDeque<Message>,
}

impl Decoder {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            let ends_crlf = byte == b'\n' && self.after_cr;
            self.after_cr = byte == b'\r';
            match byte {
                _ if ends_crlf => {}
                b'\r' | b'\n' => self.end_line(),
                _ => self.line.push(byte),
            }
        }
    }

    fn end_line(&mut self) {
        let bytes = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&bytes);
        let line = if self.begun { &*text } else { text.strip_prefix('\u{feff}').unwrap_or(&text) };
        self.begun = true;
        if line.is_empty() {
            self.dispatch();
        } else if line.starts_with(':') {
            self.comments += 1;
        } else {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            self.field(name, value.strip_prefix(' ').unwrap_or(value));
        }
    }

    fn field(&mut self, name: &str, value: &str) {
        match name {
            "event" => value.clone_into(&mut self.event),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => value.clone_into(&mut self.last_event_id),
            "retry" if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) => {
                self.retries.extend(value.parse::<u64>());
            }
            _ => {}
        }
    }

    fn dispatch(&mut self) {
        let event = std::mem::take(&mut self.event);
        let mut data = std::mem::take(&mut self.data);
        if data.pop().is_none() {
            return;
        }
        let event = if event.is_empty() { "message".to_owned() } else { event };
        self.messages.push_back(Message { event, data, id: self.last_event_id.clone() });
    }

    pub(crate) fn next(&mut self) -> Option<Message> {
        self.messages.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stream: &[u8], expected: &[(&str, &str, &str)]) {
        let expected: Vec<Message> = expected
            .iter()
            .map(|&(event, data, id)| Message {
                event: event.into(),
                data: data.into(),
                id: id.into(),
            })
            .collect();
        for piece in 1..=stream.len() {
            let mut decoder = Decoder::default();
            stream.chunks(piece).for_each(|piece| decoder.push(piece));
            let messages: Vec<Message> = std::iter::from_fn(|| decoder.next()).collect();
            assert_eq!(messages, expected, "{:?} by {piece}", String::from_utf8_lossy(stream));
        }
    }

    #[test]
    fn the_decoder_does_as_the_standard_says() {
        check(b"data: a\n\n", &[("message", "a", "")]);
        check(b"data:a\r\rdata:  b\r\n\r\n", &[("message", "a", ""), ("message", " b", "")]);
        check("\u{feff}data: a\n\n".as_bytes(), &[("message", "a", "")]);
        check("data: a\n\n\u{feff}data: b\n\n".as_bytes(), &[("message", "a", "")]);
        check(b"data: a\ndata\ndata: b\n\n", &[("message", "a\n\nb", "")]);
        check(b"data\n\ndata\ndata\n\ndata:", &[("message", "", ""), ("message", "\n", "")]);
        check(b"event: x\ndata: a\n\ndata: b\n\n", &[("x", "a", ""), ("message", "b", "")]);
        check(b"event: x\n\ndata: b\n\n", &[("message", "b", "")]);
        check(b"id: 1\ndata: a\n\ndata: b\n\n", &[("message", "a", "1"), ("message", "b", "1")]);
        check(b"id: 1\n\nid\ndata: a\n\n", &[("message", "a", "")]);
        check(b"id: 1\n\ndata: a\n\n", &[("message", "a", "1")]);
        check(b"id: 1\nid: 2\x003\ndata: a\n\n", &[("message", "a", "1")]);
        check(b": c\n:\ndata: a\n:\ndata: b\n\n", &[("message", "a\nb", "")]);
        check(b"retry: 20\nnothing: x\n\ndata: a\n\n", &[("message", "a", "")]);
        check(b"data: not dispatched at the end\n", &[]);
        let mut decoder = Decoder::default();
        decoder.push(b"retry: 20\nretry: 3x\nretry:\n:\n: x\nretry: 40\n");
        assert_eq!((decoder.retries, decoder.comments), (vec![20, 40], 2));
    }
}
