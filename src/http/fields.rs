//! Owns what header fields say about a message: whose it is, how long its body is, whether the
//! connection goes on. Called by `head` with all fields of one request. Knows the fields that this
//! server acts on; the others are ignored, whatever they say.

use httparse::Header;

use super::authority::is_authority;
use super::head::{BodyLength, Version};
use super::{elements, excerpt, is_token, is_value_byte, trim};
use crate::problem::Problem;

#[derive(Debug, Default)]
pub(super) struct Examined {
    pub(super) keep_alive: bool,
    pub(super) body: BodyLength,
    pub(super) expects_continue: bool,
    pub(super) accept: String,
    pub(super) if_none_match: Option<String>,
    pub(super) last_event_id: Option<String>,
}

pub(super) fn examine(
    fields: &[Header<'_>],
    version: Version,
    body_bytes_max: usize,
) -> Result<Examined, Problem> {
    let mut collected = Collected::default();
    for field in fields {
        if let Some(name) = Name::of(field.name) {
            collected.add(name, field.value)?;
        }
    }
    collected.conclude(version, body_bytes_max)
}

#[derive(Clone, Copy)]
enum Name {
    Accept,
    Connection,
    ContentEncoding,
    ContentLength,
    Expect,
    Host,
    IfNoneMatch,
    LastEventId,
    TransferEncoding,
}

impl Name {
    fn of(name: &str) -> Option<Name> {
        const NAMES: [(&str, Name); 9] = [
            ("Accept", Name::Accept),
            ("Connection", Name::Connection),
            ("Content-Encoding", Name::ContentEncoding),
            ("Content-Length", Name::ContentLength),
            ("Expect", Name::Expect),
            ("Host", Name::Host),
            ("If-None-Match", Name::IfNoneMatch),
            ("Last-Event-ID", Name::LastEventId),
            ("Transfer-Encoding", Name::TransferEncoding),
        ];
        let found = NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, name)| *name)
    }
}

/// What Connection asks for; `close` wins.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Persistence {
    #[default]
    AsTheVersionHasIt,
    KeepAlive,
    Close,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TransferCoding {
    Chunked,
    Unknown,
}

/// The fields of one request as they were seen, before they are held against each other.
#[derive(Default)]
struct Collected<'a> {
    host: Option<&'a [u8]>,
    content_length: Option<&'a [u8]>,
    transfer_coding: Option<TransferCoding>,
    unknown_content_coding: Option<&'a [u8]>,
    persistence: Persistence,
    expects_continue: bool,
    accept: Option<String>,
    if_none_match: Option<String>,
    last_event_id: Option<String>,
}

impl<'a> Collected<'a> {
    fn add(&mut self, name: Name, value: &'a [u8]) -> Result<(), Problem> {
        match name {
            Name::Accept => join(&mut self.accept, value),
            Name::IfNoneMatch => join(&mut self.if_none_match, value),
            Name::LastEventId => join(&mut self.last_event_id, value),
            Name::Connection => self.persistence = persistence(self.persistence, value),
            Name::Host => {
                check_host(value)?;
                set_once(&mut self.host, "Host", value)?;
            }
            Name::ContentLength => set_once(&mut self.content_length, "Content-Length", value)?,
            Name::TransferEncoding => {
                self.transfer_coding = Some(transfer_coding(self.transfer_coding, value)?);
            }
            Name::ContentEncoding => {
                let unknown = elements(value)
                    .find(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"));
                self.unknown_content_coding = self.unknown_content_coding.or(unknown);
            }
            Name::Expect => self.expects_continue |= expects_continue(value)?,
        }
        Ok(())
    }

    fn conclude(self, version: Version, body_bytes_max: usize) -> Result<Examined, Problem> {
        if version == Version::Http11 && self.host.is_none() {
            return Err(Problem::bad_request("Host: an HTTP/1.1 request has exactly one"));
        }
        let body = self.body_length(version, body_bytes_max)?;
        if let (Some(coding), true) = (self.unknown_content_coding, body != BodyLength::None) {
            let detail = format!("Content-Encoding: {} is not known", excerpt(coding));
            return Err(Problem::new(415, detail));
        }
        let keep_alive = match self.persistence {
            Persistence::AsTheVersionHasIt => version == Version::Http11,
            Persistence::KeepAlive => true,
            Persistence::Close => false,
        };
        Ok(Examined {
            keep_alive,
            body,
            // An HTTP/1.0 client does not know interim replies, whatever was forwarded for it.
            expects_continue: self.expects_continue
                && version == Version::Http11
                && body != BodyLength::None,
            accept: self.accept.unwrap_or_default(),
            if_none_match: self.if_none_match,
            last_event_id: self.last_event_id,
        })
    }

    fn body_length(&self, version: Version, body_bytes_max: usize) -> Result<BodyLength, Problem> {
        match (self.transfer_coding, self.content_length) {
            (None, None) => Ok(BodyLength::None),
            (None, Some(length)) => sized(length, body_bytes_max),
            (Some(_), Some(_)) => {
                Err(Problem::bad_request("Content-Length: stands beside Transfer-Encoding"))
            }
            (Some(_), None) if version == Version::Http10 => {
                Err(Problem::bad_request("Transfer-Encoding: HTTP/1.0 has none"))
            }
            (Some(TransferCoding::Unknown), None) => {
                Err(Problem::new(501, "Transfer-Encoding: only 'chunked' is known"))
            }
            (Some(TransferCoding::Chunked), None) => Ok(BodyLength::Chunked),
        }
    }
}

/// A list over several fields is one list; a field that should be single becomes one that is none.
fn join(joined: &mut Option<String>, value: &[u8]) {
    let value = String::from_utf8_lossy(value);
    match joined {
        Some(joined) => {
            joined.push_str(", ");
            joined.push_str(&value);
        }
        None => *joined = Some(value.into_owned()),
    }
}

fn set_once<'a>(single: &mut Option<&'a [u8]>, name: &str, value: &'a [u8]) -> Result<(), Problem> {
    match single.replace(value) {
        Some(_) => Err(Problem::bad_request(format!("{name}: stands more than once"))),
        None => Ok(()),
    }
}

/// Empty is allowed: a client whose target has no authority sends it so (RFC 9110, 7.2).
fn check_host(value: &[u8]) -> Result<(), Problem> {
    if value.is_empty() || is_authority(value) {
        return Ok(());
    }
    Err(Problem::bad_request(format!("Host: {} is not a host and port", excerpt(value))))
}

fn persistence(before: Persistence, value: &[u8]) -> Persistence {
    elements(value).fold(before, |before, option| {
        if before == Persistence::Close || option.eq_ignore_ascii_case(b"close") {
            Persistence::Close
        } else if option.eq_ignore_ascii_case(b"keep-alive") {
            Persistence::KeepAlive
        } else {
            before
        }
    })
}

fn expects_continue(value: &[u8]) -> Result<bool, Problem> {
    let mut expects_continue = false;
    for expectation in elements(value).filter(|expectation| !expectation.is_empty()) {
        if !expectation.eq_ignore_ascii_case(b"100-continue") {
            let detail = format!("Expect: {} is not known", excerpt(expectation));
            return Err(Problem::new(417, detail));
        }
        expects_continue = true;
    }
    Ok(expects_continue)
}

/// Takes no empty element, no parameter and nothing after `chunked`, which is where parsers differ.
fn transfer_coding(
    before: Option<TransferCoding>,
    value: &[u8],
) -> Result<TransferCoding, Problem> {
    let mut coding = before;
    for element in elements(value) {
        let name_end = element.iter().position(|byte| *byte == b';').unwrap_or(element.len());
        let name = trim(&element[..name_end]);
        let chunked = name.eq_ignore_ascii_case(b"chunked");
        let malformed = !is_token(name) || (chunked && name.len() < element.len());
        if malformed || coding == Some(TransferCoding::Chunked) {
            let detail = format!("Transfer-Encoding: {} is not 'chunked'", excerpt(value));
            return Err(Problem::bad_request(detail));
        }
        coding = match coding {
            None if chunked => Some(TransferCoding::Chunked),
            _ => Some(TransferCoding::Unknown),
        };
    }
    Ok(coding.expect("a split has at least one element"))
}

fn sized(value: &[u8], body_bytes_max: usize) -> Result<BodyLength, Problem> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        let detail = format!("Content-Length: {} is not a number", excerpt(value));
        return Err(Problem::bad_request(detail));
    }
    // A number too large for the type is too large for any limit as well.
    let length = value.iter().fold(0_usize, |length, digit| {
        length.saturating_mul(10).saturating_add(usize::from(digit - b'0'))
    });
    if length > body_bytes_max {
        let detail =
            format!("Content-Length: {} is over the limit of {body_bytes_max}", excerpt(value));
        return Err(Problem::new(413, detail));
    }
    Ok(if length == 0 { BodyLength::None } else { BodyLength::Sized(length) })
}

/// Says which of the lines is no field; one of them is not.
pub(super) fn malformed(lines: &[u8]) -> Problem {
    let bad = lines.split(|byte| *byte == b'\n').find_map(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        describe(line).map(|why| (line, why))
    });
    let (line, why) = bad.unwrap_or((lines, "is malformed"));
    Problem::bad_request(format!("header field: {} {why}", excerpt(line)))
}

fn describe(line: &[u8]) -> Option<&'static str> {
    if line.is_empty() {
        return None;
    }
    let Some(colon) = line.iter().position(|byte| *byte == b':') else {
        return Some("has no colon");
    };
    if !is_token(&line[..colon]) {
        return Some("has a name that is not a token");
    }
    let valid = line[colon + 1..].iter().copied().all(is_value_byte);
    (!valid).then_some("has a control character in its value")
}
