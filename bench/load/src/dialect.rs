//! Owns what the contenders' protocols differ in: how one appends, how one follows, what says yes.
//! Called by `run` and `read`. Opens no socket and measures nothing.
//!
//! Every value carries its number as a mark, `~0000000042~`, which no protocol here alters or uses
//! itself. A message is recognised by its mark alone, so that counting costs the same for all.

use std::io::Write;

/// Digits of a mark.
pub(crate) const MARK_DIGITS: usize = 10;
/// The shortest value: a mark and its two ends.
pub(crate) const VALUE_BYTES_MIN: usize = MARK_DIGITS + 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Rill,
    DurableStreams,
    /// nginx with nchan: `/pub/…` and `/sub/…`.
    Nchan,
    /// Streams over RESP; appends only.
    Redis,
    /// `floor broadcast`, which speaks just enough for this program.
    Floor,
}

/// Values that go to one storage in one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Append<'a> {
    pub(crate) storage: &'a str,
    pub(crate) first: u64,
    pub(crate) values: usize,
    pub(crate) value_bytes: usize,
}

impl Dialect {
    pub(crate) fn named(name: &str) -> Option<Dialect> {
        Some(match name {
            "rill" => Dialect::Rill,
            "durable-streams" => Dialect::DurableStreams,
            "nchan" => Dialect::Nchan,
            "redis" => Dialect::Redis,
            "floor" => Dialect::Floor,
            _ => return None,
        })
    }

    /// The request that must come before the first append to a storage, where there is one.
    pub(crate) fn create(self, storage: &str) -> Option<Vec<u8>> {
        (self == Dialect::DurableStreams).then(|| {
            format!(
                "PUT /{storage} HTTP/1.1\r\nHost: bench\r\nContent-Type: text/plain\r\n\
                 Content-Length: 0\r\n\r\n"
            )
            .into_bytes()
        })
    }

    pub(crate) fn append(self, out: &mut Vec<u8>, append: &Append<'_>) {
        if self == Dialect::Redis {
            return append_redis(out, append);
        }
        let Append { storage, first, values, value_bytes } = *append;
        let mut body = Vec::with_capacity((value_bytes + 3) * values + 16);
        // Where the others have no batches of their own, one message holds all, a line each.
        let (open, between, close): (&[u8], &[u8], &[u8]) = match self {
            Dialect::Rill if values == 1 => (b"{\"value\":\"", b"", b"\"}"),
            Dialect::Rill => (b"{\"values\":[\"", b"\",\"", b"\"]}"),
            _ => (b"", b"\n", b""),
        };
        body.extend_from_slice(open);
        for place in 0..values {
            if place > 0 {
                body.extend_from_slice(between);
            }
            write_value(&mut body, first + place as u64, value_bytes);
        }
        body.extend_from_slice(close);
        let (path, media_type) = match self {
            Dialect::Rill => ("/set/", "application/json"),
            Dialect::Nchan | Dialect::Floor => ("/pub/", "text/plain"),
            Dialect::DurableStreams | Dialect::Redis => ("/", "text/plain"),
        };
        write!(
            out,
            "POST {path}{storage} HTTP/1.1\r\nHost: bench\r\nContent-Type: {media_type}\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        )
        .expect("memory takes every write");
        out.extend_from_slice(&body);
    }

    /// Replies to one append.
    pub(crate) fn replies(self, append: &Append<'_>) -> usize {
        if self == Dialect::Redis { append.values } else { 1 }
    }

    pub(crate) fn subscribe(self, storage: &str) -> Vec<u8> {
        let path = match self {
            Dialect::Rill => format!("/get?id={storage}&last=0"),
            Dialect::DurableStreams => format!("/{storage}?offset=now&live=sse"),
            Dialect::Nchan | Dialect::Floor => format!("/sub/{storage}"),
            Dialect::Redis => panic!("redis is measured for appends alone"),
        };
        format!("GET {path} HTTP/1.1\r\nHost: bench\r\nAccept: text/event-stream\r\n\r\n").into()
    }

    /// What a stream says when everything that is appended from now on will arrive on it.
    pub(crate) fn ready(self) -> &'static [u8] {
        match self {
            Dialect::Rill => b"event: synced\n",
            Dialect::DurableStreams => b"\"upToDate\":true",
            Dialect::Nchan => b": hi\n",
            Dialect::Floor => b": floor\n",
            Dialect::Redis => panic!("redis is measured for appends alone"),
        }
    }

    /// The length of the whole reply at the start of `bytes`, once it is there; an error for any
    /// reply but the one that says that the values were stored.
    pub(crate) fn reply(self, bytes: &[u8]) -> Result<Option<usize>, String> {
        match self {
            Dialect::Redis => redis_reply(bytes),
            Dialect::Rill => http_reply(bytes, &[201]),
            Dialect::DurableStreams => http_reply(bytes, &[201, 204]),
            Dialect::Nchan | Dialect::Floor => http_reply(bytes, &[201, 202]),
        }
    }
}

fn write_value(out: &mut Vec<u8>, number: u64, value_bytes: usize) {
    let end = out.len() + value_bytes;
    write!(out, "~{number:0width$}~", width = MARK_DIGITS).expect("memory takes every write");
    out.resize(end, b'x');
}

fn append_redis(out: &mut Vec<u8>, append: &Append<'_>) {
    let key = append.storage;
    for place in 0..append.values {
        write!(
            out,
            "*5\r\n$4\r\nXADD\r\n${}\r\n{key}\r\n$1\r\n*\r\n$1\r\nv\r\n${}\r\n",
            key.len(),
            append.value_bytes
        )
        .expect("memory takes every write");
        write_value(out, append.first + place as u64, append.value_bytes);
        out.extend_from_slice(b"\r\n");
    }
}

/// XADD answers with the entry's identifier, a bulk string.
fn redis_reply(bytes: &[u8]) -> Result<Option<usize>, String> {
    let Some(line_end) = memchr::memchr(b'\n', bytes) else { return Ok(None) };
    let line = String::from_utf8_lossy(&bytes[..line_end]);
    let length: usize = match line.trim_end().strip_prefix('$').map(str::parse) {
        Some(Ok(length)) => length,
        _ => return Err(format!("redis answered {line}")),
    };
    let end = line_end + 1 + length + 2;
    Ok((bytes.len() >= end).then_some(end))
}

fn http_reply(bytes: &[u8], accepted: &[u16]) -> Result<Option<usize>, String> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(bytes) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(format!("not a reply: {error}")),
    };
    let status = response.code.expect("a whole head has a status");
    if !accepted.contains(&status) {
        return Err(format!("answered {status}: {}", String::from_utf8_lossy(bytes)));
    }
    let mut length = 0;
    for header in response.headers {
        if header.name.eq_ignore_ascii_case("content-length") {
            let text = String::from_utf8_lossy(header.value);
            length = text.trim().parse().map_err(|_| format!("Content-Length: {text}"))?;
        }
    }
    Ok((bytes.len() >= head + length).then_some(head + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_whole_and_say_yes() {
        for (dialect, bytes, expected) in [
            (Dialect::Rill, "HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}", Some(Some(45))),
            (Dialect::Rill, "HTTP/1.1 201 Created\r\nContent-Length: 3\r\n\r\n{}", Some(None)),
            (Dialect::Rill, "HTTP/1.1 201 Cre", Some(None)),
            // 200 is rill's word for a value that was there before: not an append.
            (Dialect::Rill, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", None),
            (Dialect::DurableStreams, "HTTP/1.1 204 No Content\r\n\r\n", Some(Some(27))),
            (Dialect::Redis, "$3\r\n1-0\r\n", Some(Some(9))),
            (Dialect::Redis, "$3\r\n1-0", Some(None)),
            (Dialect::Redis, "-ERR no\r\n", None),
        ] {
            assert_eq!(dialect.reply(bytes.as_bytes()).ok(), expected, "{dialect:?} {bytes:?}");
        }
    }

    #[test]
    fn a_value_has_the_length_that_was_asked_for() {
        let append = Append { storage: "a", first: 7, values: 2, value_bytes: 20 };
        let mut out = Vec::new();
        Dialect::Rill.append(&mut out, &append);
        let body = r#"{"values":["~0000000007~xxxxxxxx","~0000000008~xxxxxxxx"]}"#;
        let text = String::from_utf8(out).unwrap();
        assert!(text.ends_with(&format!("Content-Length: {}\r\n\r\n{body}", body.len())), "{text}");
    }
}
