//! Owns the head of a request: where it ends, and what it says. Called by the hub with whatever
//! bytes have come. The request line and the fields are read by `request_line` and `fields`; this
//! file finds the lines, so that every rule about their ends stands in one place.

use memchr::{memchr, memchr2};

use super::fields::{self, Examined};
use super::request_line::{self, RequestLine};
use crate::config::{HEAD_BYTES_MAX, HEADERS_FEW, HEADERS_MAX};
use crate::problem::Problem;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Method {
    #[default]
    Get,
    Head,
    Post,
    Options,
    /// Known to HTTP, of no use here: PUT, DELETE, PATCH, TRACE, CONNECT.
    Other,
}

impl Method {
    pub fn name(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Options => "OPTIONS",
            Method::Other => "(other)",
        }
    }
}

/// What the client understands: a higher minor version is at least 1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Version {
    Http10,
    #[default]
    Http11,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum BodyLength {
    /// No body, or one of a stated length of 0: nothing to wait for.
    #[default]
    None,
    /// At least 1, and within the limit.
    Sized(usize),
    Chunked,
}

/// A whole head, with its target as it stands in the bytes that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedHead<'a> {
    pub head: Head,
    /// Still percent-encoded, and begins with `/`; `*` only for OPTIONS.
    pub path: &'a str,
    /// What follows the first `?`, without it.
    pub query: &'a str,
    /// Bytes that it took, with empty lines before it.
    pub length: usize,
}

/// What a request's head says besides its target, as far as it is of use here.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Head {
    pub method: Method,
    pub version: Version,
    pub keep_alive: bool,
    pub body: BodyLength,
    /// The client waits for a 100 before it sends the body.
    pub expects_continue: bool,
    /// All Accept fields, joined by `, `; empty if there is none.
    pub accept: String,
    pub if_none_match: Option<String>,
    pub last_event_id: Option<String>,
}

impl Head {
    /// What it holds in memory.
    pub fn bytes(&self) -> usize {
        let optional = [&self.if_none_match, &self.last_event_id].into_iter().flatten();
        optional.chain([&self.accept]).map(String::capacity).sum()
    }
}

/// Empty lines that old clients send after a body, taken for nothing before a request line.
const EMPTY_LINES_MAX: usize = 4;

/// Looks for a whole head at the start of `buffer`; `None` while more bytes are needed. `scanned` is
/// the caller's note of how much was looked at, 0 for a new head, so that a head that comes byte by
/// byte costs linear time. How the bytes were split does not change the outcome, and what can never
/// become a head is refused without waiting for its end.
pub fn parse_head<'a>(
    buffer: &'a [u8],
    scanned: &mut usize,
    body_bytes_max: usize,
) -> Result<Option<ParsedHead<'a>>, Problem> {
    let start = leading_empty_lines(buffer);
    let window = &buffer[start..buffer.len().min(start + HEAD_BYTES_MAX)];
    let scan = scan_lines(window, scanned.saturating_sub(start));
    let (Scan::More(seen) | Scan::End(seen) | Scan::Broken(seen, _)) = scan;
    // Before the lines' verdict: it stands earlier in the bytes, and comes first however they come.
    request_line::check_start(&window[..seen])?;
    match scan {
        Scan::Broken(_, why) => Err(Problem::bad_request(format!("request head: {why}"))),
        Scan::More(_) if window.len() == HEAD_BYTES_MAX => {
            Err(Problem::new(431, format!("request head: longer than {HEAD_BYTES_MAX} bytes")))
        }
        Scan::More(_) => {
            *scanned = start + seen;
            Ok(None)
        }
        Scan::End(end) => parse_lines(&window[..end], start + end, body_bytes_max).map(Some),
    }
}

fn leading_empty_lines(buffer: &[u8]) -> usize {
    let empty_lines = buffer.chunks_exact(2).take(EMPTY_LINES_MAX);
    2 * empty_lines.take_while(|line| line == b"\r\n").count()
}

enum Scan {
    /// No end yet; every line that ends before this ends well.
    More(usize),
    /// The head is so long.
    End(usize),
    /// A line that ends here ends badly.
    Broken(usize, &'static str),
}

/// Finds the empty line that ends a head, and any line end that is not exactly CR LF.
fn scan_lines(window: &[u8], from: usize) -> Scan {
    let mut at = from;
    while let Some(found) = memchr2(b'\r', b'\n', &window[at..]) {
        let line_end = at + found;
        if window[line_end] == b'\n' {
            return Scan::Broken(line_end, "a line ends in LF without CR");
        }
        match window.get(line_end + 1) {
            None => return Scan::More(line_end),
            Some(b'\n') if line_end == 0 => {
                return Scan::Broken(line_end, "too many empty lines before the request line");
            }
            Some(b'\n') if window[..line_end].ends_with(b"\r\n") => return Scan::End(line_end + 2),
            Some(b'\n') => at = line_end + 2,
            Some(_) => return Scan::Broken(line_end, "CR without LF"),
        }
    }
    Scan::More(window.len())
}

/// A whole head: a request line and fields that end in CR LF, and an empty line.
fn parse_lines(
    lines: &[u8],
    length: usize,
    body_bytes_max: usize,
) -> Result<ParsedHead<'_>, Problem> {
    let line_end = memchr(b'\r', lines).expect("a scanned head has ended lines");
    let RequestLine { method, version, path, query } = request_line::parse(&lines[..line_end])?;
    let Examined { keep_alive, body, expects_continue, accept, if_none_match, last_event_id } =
        parse_fields(&lines[line_end + 2..], version, body_bytes_max)?;
    let head = Head {
        method,
        version,
        keep_alive,
        body,
        expects_continue,
        accept,
        if_none_match,
        last_event_id,
    };
    Ok(ParsedHead { head, path, query, length })
}

/// Most requests have few fields, and room for all that are allowed is 4 KiB to clear.
fn parse_fields(
    lines: &[u8],
    version: Version,
    body_bytes_max: usize,
) -> Result<Examined, Problem> {
    let mut few = [httparse::EMPTY_HEADER; HEADERS_FEW];
    match httparse::parse_headers(lines, &mut few) {
        Err(httparse::Error::TooManyHeaders) => {}
        parsed => return examine(parsed, lines, version, body_bytes_max),
    }
    let mut many = [httparse::EMPTY_HEADER; HEADERS_MAX];
    examine(httparse::parse_headers(lines, &mut many), lines, version, body_bytes_max)
}

fn examine(
    parsed: httparse::Result<(usize, &[httparse::Header<'_>])>,
    lines: &[u8],
    version: Version,
    body_bytes_max: usize,
) -> Result<Examined, Problem> {
    match parsed {
        Ok(httparse::Status::Complete((_, headers))) => {
            fields::examine(headers, version, body_bytes_max)
        }
        Ok(httparse::Status::Partial) => unreachable!("a scanned head ends in an empty line"),
        Err(httparse::Error::TooManyHeaders) => {
            Err(Problem::new(431, format!("header fields: more than {HEADERS_MAX}")))
        }
        Err(_) => Err(fields::malformed(lines)),
    }
}
