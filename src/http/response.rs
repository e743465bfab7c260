//! Owns how replies are written: heads, chunks, and the body of a problem (RFC 9457). Called by the
//! hub and the SSE layer. Decides neither status nor framing.

use super::head::Version;
use super::{is_token, is_value_byte};
use crate::problem::{Problem, reason};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Length(usize),
    Chunked,
    /// For HTTP/1.0: the connection's end is the body's, so it closes whatever was asked.
    UntilClose,
    /// 204 and 304: the status says that there is no body.
    Empty,
}

/// Ends a chunked message.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
/// The interim reply that lets a client send its body.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Appends a head. `always` are the lines that every reply has, `lines` those of this one, ends
/// included; `version` is the client's: the server's own is 1.1 on every reply.
pub fn write_head(
    out: &mut Vec<u8>,
    always: &[u8],
    version: Version,
    status: u16,
    keep_alive: bool,
    framing: Framing,
    lines: &[&[u8]],
) {
    let mut number = itoa::Buffer::new();
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(number.format(status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason(status).as_bytes());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(always);
    match (keep_alive && framing != Framing::UntilClose, version) {
        (false, _) => write_field(out, "Connection", "close"),
        (true, Version::Http10) => write_field(out, "Connection", "keep-alive"),
        (true, Version::Http11) => {}
    }
    match framing {
        Framing::Length(bytes) => write_field(out, "Content-Length", number.format(bytes)),
        Framing::Chunked => write_field(out, "Transfer-Encoding", "chunked"),
        Framing::UntilClose | Framing::Empty => {}
    }
    for line in lines {
        debug_assert!(is_field(line), "'{}' is no field, or more than one", line.escape_ascii());
        out.extend_from_slice(line);
    }
    out.extend_from_slice(b"\r\n");
}

pub(super) fn write_field(out: &mut Vec<u8>, name: &str, value: &str) {
    let start = out.len();
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
    debug_assert!(is_field(&out[start..]), "{name}: '{value}' is no value");
}

/// With a control character a value could write fields of its own.
fn is_field(line: &[u8]) -> bool {
    line.strip_suffix(b"\r\n").is_some_and(|line| {
        let (name, value) = line.split_at(line.iter().position(|b| *b == b':').unwrap_or(0));
        is_token(name) && value.starts_with(b": ") && value.iter().copied().all(is_value_byte)
    })
}

/// `application/problem+json`.
pub fn write_problem_body(problem: &Problem) -> Vec<u8> {
    let mut body = Vec::with_capacity(problem.detail.len() + 96);
    body.extend_from_slice(br#"{"type":"about:blank","title":"#);
    write_json_string(&mut body, reason(problem.status));
    body.extend_from_slice(br#","status":"#);
    body.extend_from_slice(itoa::Buffer::new().format(problem.status).as_bytes());
    body.extend_from_slice(br#","detail":"#);
    write_json_string(&mut body, &problem.detail);
    body.push(b'}');
    body
}

fn write_json_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string is JSON, and memory takes it");
}

/// Appends one chunk; nothing for an empty payload, which would end the message.
pub fn write_chunk(out: &mut Vec<u8>, payload: &[u8]) {
    if payload.is_empty() {
        return;
    }
    write_hexadecimal(out, payload.len());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
}

fn write_hexadecimal(out: &mut Vec<u8>, number: usize) {
    let digits = (usize::BITS - number.leading_zeros()).div_ceil(4);
    for place in (0..digits).rev() {
        out.push(b"0123456789abcdef"[number >> (4 * place) & 15]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(version: Version, status: u16, keep_alive: bool, framing: Framing) -> String {
        let mut out = b"before".to_vec();
        let lines: [&[u8]; 2] = [b"ETag: \"1\"\r\n", b"Vary: Accept\r\n"];
        write_head(&mut out, b"A: b\r\n", version, status, keep_alive, framing, &lines);
        let text = String::from_utf8(out).unwrap();
        text.strip_prefix("before").unwrap().to_owned()
    }

    #[test]
    fn a_head_says_how_the_message_and_the_connection_go_on() {
        assert_eq!(
            head(Version::Http11, 200, true, Framing::Length(17)),
            "HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 17\r\n\
             ETag: \"1\"\r\nVary: Accept\r\n\r\n"
        );
        let (close, kept) = (Some("Connection: close"), Some("Connection: keep-alive"));
        let (chunked, empty) = (Some("Transfer-Encoding: chunked"), Some("Content-Length: 0"));
        for (version, keep_alive, framing, connection, length) in [
            (Version::Http11, true, Framing::Length(0), None, empty),
            (Version::Http11, false, Framing::Length(0), close, empty),
            (Version::Http10, true, Framing::Length(0), kept, empty),
            (Version::Http10, false, Framing::Length(0), close, empty),
            (Version::Http11, true, Framing::Chunked, None, chunked),
            (Version::Http10, true, Framing::UntilClose, close, None),
            (Version::Http11, true, Framing::Empty, None, None),
        ] {
            let text = head(version, 204, keep_alive, framing);
            let find = |names: [&str; 2]| {
                text.lines().find(|line| names.iter().any(|name| line.starts_with(name)))
            };
            let case = (version, keep_alive, framing);
            assert_eq!(find(["Connection", "Connection"]), connection, "{case:?}");
            assert_eq!(find(["Transfer-Encoding", "Content-Length"]), length, "{case:?}");
        }
    }

    #[test]
    fn a_field_is_one_line() {
        for line in ["A: b\r\n", "A-B: \r\n", "A: b: c\td\r\n", "A: \u{e4}\r\n"] {
            assert!(is_field(line.as_bytes()), "{line:?}");
        }
        for line in [
            "",
            "\r\n",
            "A\r\n",
            "A:b\r\n",
            "A: b",
            "A: b\n",
            ": b\r\n",
            "A B: c\r\n",
            "A: b\r\nC: d\r\n",
        ] {
            assert!(!is_field(line.as_bytes()), "{line:?}");
        }
    }

    #[test]
    fn chunks_state_their_size() {
        let long = vec![b'x'; 0x1_0a0];
        for (payload, size) in [(&b"a"[..], "1"), (b"0123456789abcdef", "10"), (&long, "10a0")] {
            let mut out = Vec::new();
            write_chunk(&mut out, payload);
            let mut expected = format!("{size}\r\n").into_bytes();
            expected.extend_from_slice(payload);
            expected.extend_from_slice(b"\r\n");
            assert_eq!(out, expected);
        }
        let mut out = Vec::new();
        write_chunk(&mut out, b"");
        assert_eq!(out, b"");
    }

    #[test]
    fn a_problem_is_json_whatever_its_detail_says() {
        let problem = Problem::bad_request("id: \"\\\u{0}\n\u{2028}ä");
        let body = write_problem_body(&problem);
        let start = br#"{"type":"about:blank","title":"Bad Request","status":400,"detail":"#;
        assert_eq!(&body[..start.len()], start);
        let read: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(read["detail"], problem.detail);
    }
}
