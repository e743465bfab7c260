//! What the tests drive the server with: its process, an HTTP/1.1 client, an SSE client. All of it
//! fails the test when something does not come within `PATIENCE`; nothing sleeps.

mod decoder;
pub(crate) mod filter;
mod folder;
mod http;
mod process;
mod random;
mod server;
mod sse;

use std::time::Duration;

pub(crate) use decoder::Message;
pub(crate) use folder::Folder;
pub(crate) use http::{Connection, Fault, Reply, find};
pub(crate) use process::Process;
pub(crate) use random::Random;
pub(crate) use server::{Server, Stopped, listening, rill, set_over};
pub(crate) use sse::Stream;

/// How long a test waits for what must come: far longer than a busy machine takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// SHA-256 of a value as the wire spells it.
pub(crate) fn hash(value: &str) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(value.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Percent-encodes everything but the unreserved characters of RFC 3986.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// Splits a cursor of the server's into its two halves.
pub(crate) fn halves(cursor: &str) -> (u64, &str) {
    let (seq, epoch) = cursor.split_once('.').unwrap_or_else(|| panic!("no epoch in {cursor:?}"));
    let digits = epoch.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    assert!(epoch.len() == 8 && digits, "an epoch is 8 lower-case hex digits: {cursor:?}");
    (seq.parse().unwrap_or_else(|_| panic!("no number before the point: {cursor:?}")), epoch)
}
