//! Owns HTTP/1.1 as a server speaks it (RFC 9110, 9112), sans I/O: bytes to requests, replies to
//! bytes, and the two header fields whose values are small languages, Accept and If-None-Match.
//! Called by the hub and the SSE layer. Strict: whatever two parsers could read in two ways is
//! refused, so that no intermediary's idea of where a message ends differs from ours. Holds no
//! connections, knows no routes, decides no status but those of malformed requests.

mod accept;
mod always;
mod authority;
mod body;
mod conditional;
mod fields;
mod head;
mod request_line;
mod response;
#[cfg(test)]
mod tests;

pub use accept::{lists, quality};
pub use always::Always;
pub use body::{BodyProgress, BodyReader};
pub use conditional::{listed_tags, none_match};
pub use head::{BodyLength, Head, Method, ParsedHead, Version, parse_head};
pub use response::{CONTINUE, Framing, LAST_CHUNK, write_chunk, write_head, write_problem_body};

/// `tchar` of RFC 9110, 5.6.2: what methods, field names and codings are made of.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().copied().all(is_token_byte)
}

/// What may stand in a field's value: no control character but the tab.
fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Optional whitespace (OWS) is spaces and tabs, never what else `trim` takes for white.
fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// The elements of a comma-separated list without quoted strings; empty ones stay.
fn elements(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == b',').map(trim)
}

/// A short piece of what a client sent, safe in a problem's detail.
fn excerpt(text: &[u8]) -> String {
    const EXCERPT_BYTES_MAX: usize = 40;
    match text.get(..EXCERPT_BYTES_MAX) {
        Some(piece) if piece.len() < text.len() => format!("'{}…'", piece.escape_ascii()),
        _ => format!("'{}'", text.escape_ascii()),
    }
}
