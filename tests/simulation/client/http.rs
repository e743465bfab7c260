//! Owns how a simulated client reads replies from bytes: heads, sized and chunked bodies. Written
//! from the RFCs, not from the server's code.

/// A reply that is whole.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }

    /// Whether the connection ends after it.
    pub(crate) fn closes(&self) -> bool {
        self.field("Connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("a reply's body is JSON")
    }
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    lines.find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// The head, if it is whole, and its length with the empty line.
pub(crate) fn head(bytes: &[u8]) -> Option<(String, usize)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    Some((String::from_utf8(bytes[..end].to_vec()).expect("heads are ASCII"), end + 4))
}

pub(crate) fn status(head: &str) -> u16 {
    assert!(head.starts_with("HTTP/1.1 "), "a reply starts with a status line: {head}");
    head[9..12].parse().expect("a status is a number")
}

/// Takes the reply at the front, if it is whole. One to HEAD has no body.
pub(crate) fn take(bytes: &mut Vec<u8>, to_head: bool) -> Option<Reply> {
    let (head, start) = head(bytes)?;
    let status = status(&head);
    let bodiless = to_head || matches!(status, 204 | 304);
    let (body, end) = match field(&head, "Content-Length") {
        _ if bodiless => (Vec::new(), start),
        Some(length) => {
            let end = start + length.parse::<usize>().expect("a length is a number");
            (bytes.get(start..end)?.to_vec(), end)
        }
        None => chunked(bytes, start)?,
    };
    bytes.drain(..end);
    Some(Reply { status, head, body })
}

fn chunked(bytes: &[u8], mut at: usize) -> Option<(Vec<u8>, usize)> {
    let mut body = Vec::new();
    loop {
        let (chunk, length) = whole_chunk(&bytes[at..])?;
        at += length;
        if chunk.is_empty() {
            return Some((body, at));
        }
        body.extend_from_slice(&chunk);
    }
}

/// The first chunk and its length with framing, if it is whole.
pub(crate) fn whole_chunk(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let line = bytes.windows(2).position(|w| w == b"\r\n")?;
    let size = std::str::from_utf8(&bytes[..line]).expect("a chunk size");
    let size = usize::from_str_radix(size, 16).expect("a chunk size");
    let end = line + 2 + size;
    let chunk = bytes.get(line + 2..end)?;
    assert_eq!(bytes.get(end..end + 2)?, b"\r\n", "a chunk ends with CRLF");
    Some((chunk.to_vec(), end + 2))
}

pub(crate) fn request(method: &str, target: &str, fields: &str, body: &str) -> Vec<u8> {
    let length = match method {
        "POST" => format!("Content-Length: {}\r\n", body.len()),
        _ => String::new(),
    };
    format!("{method} {target} HTTP/1.1\r\nHost: x\r\n{fields}{length}\r\n{body}").into_bytes()
}
