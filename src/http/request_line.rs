//! Owns the request line: method, target, version (RFC 9112, 3). Called by `head`, with the line as
//! far as it came or whole. Leaves percent-encoding to the router.

use memchr::{memchr, memchr2};

use super::authority::is_authority;
use super::head::{Method, Version};
use super::{excerpt, is_token_byte};
use crate::config::TARGET_BYTES_MAX;
use crate::problem::Problem;

/// Longer than every registered method; what has no space by then is no request.
const METHOD_BYTES_MAX: usize = 32;

const THREE_PARTS: &str = "is not 'METHOD TARGET VERSION'";

#[derive(Debug)]
pub(super) struct RequestLine<'a> {
    pub(super) method: Method,
    pub(super) version: Version,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
}

/// Refuses what no further bytes would make a request line, in time that does not grow with a
/// target of legal length. `start` is the line as far as it came, or more than the line.
pub(super) fn check_start(start: &[u8]) -> Result<(), Problem> {
    let method = &start[..start.len().min(METHOD_BYTES_MAX + 1)];
    let Some(method_end) = method.iter().position(|byte| !is_token_byte(*byte)) else {
        if method.len() > METHOD_BYTES_MAX {
            return Err(malformed("method", method, "is too long"));
        }
        return Ok(());
    };
    if method_end == 0 || method[method_end] != b' ' {
        return Err(malformed("method", &method[..=method_end], "is not a method and a space"));
    }
    let rest = &start[method_end + 1..];
    if rest.len() > TARGET_BYTES_MAX {
        let target_bytes = memchr2(b' ', b'\r', rest).unwrap_or(rest.len());
        if target_bytes > TARGET_BYTES_MAX {
            let detail = format!("request target: longer than {TARGET_BYTES_MAX} bytes");
            return Err(Problem::new(414, detail));
        }
    }
    Ok(())
}

/// `line` is whole and passed `check_start`.
pub(super) fn parse(line: &[u8]) -> Result<RequestLine<'_>, Problem> {
    let (method, target, version) =
        split(line).ok_or_else(|| malformed("request line", line, THREE_PARTS))?;
    let version = parse_version(version, line)?;
    let method = parse_method(method)?;
    let (path, query) = parse_target(target, method)?;
    Ok(RequestLine { method, version, path, query })
}

/// At the first two spaces; no version has a third.
fn split(line: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let method_end = memchr(b' ', line)?;
    let (method, rest) = (&line[..method_end], &line[method_end + 1..]);
    let target_end = memchr(b' ', rest)?;
    Some((method, &rest[..target_end], &rest[target_end + 1..]))
}

/// `version` is all that follows the target in `line`.
fn parse_version(version: &[u8], line: &[u8]) -> Result<Version, Problem> {
    match version {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            if *major == b'1' {
                return Ok(Version::Http11);
            }
            let detail = format!("HTTP version: {} is not 1.x", excerpt(version));
            Err(Problem::new(505, detail))
        }
        _ if version.contains(&b' ') => Err(malformed("request line", line, THREE_PARTS)),
        _ => Err(malformed("HTTP version", version, "is not of the form HTTP/1.1")),
    }
}

fn parse_method(method: &[u8]) -> Result<Method, Problem> {
    match method {
        b"GET" => Ok(Method::Get),
        b"HEAD" => Ok(Method::Head),
        b"POST" => Ok(Method::Post),
        b"OPTIONS" => Ok(Method::Options),
        b"PUT" | b"DELETE" | b"PATCH" | b"TRACE" | b"CONNECT" => Ok(Method::Other),
        _ => Err(Problem::new(501, format!("method: {} is not known", excerpt(method)))),
    }
}

/// Path and query of an origin-form or absolute-form target; `*` where OPTIONS asks for it.
fn parse_target(target: &[u8], method: Method) -> Result<(&str, &str), Problem> {
    let refuse = |why| Err(malformed("request target", target, why));
    if !target.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#') {
        return refuse("has a byte that no target has; it must be percent-encoded");
    }
    let text = std::str::from_utf8(target).expect("visible ASCII was checked above");
    if text.starts_with('/') {
        return Ok(split_query(text));
    }
    if text == "*" && method == Method::Options {
        return Ok((text, ""));
    }
    let Some(rest) = strip_scheme(text) else {
        return refuse("does not begin with '/', 'http://' or 'https://'");
    };
    let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path_and_query) = rest.split_at(authority_end);
    if !is_authority(authority.as_bytes()) {
        return refuse("does not name a host");
    }
    Ok(match split_query(path_and_query) {
        ("", query) => ("/", query),
        path_and_query => path_and_query,
    })
}

fn split_query(text: &str) -> (&str, &str) {
    match memchr(b'?', text.as_bytes()) {
        Some(path_end) => (&text[..path_end], &text[path_end + 1..]),
        None => (text, ""),
    }
}

fn strip_scheme(target: &str) -> Option<&str> {
    let scheme_end = target.find("://")?;
    let scheme = &target[..scheme_end];
    let known = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    known.then(|| &target[scheme_end + 3..])
}

fn malformed(what: &str, text: &[u8], why: &str) -> Problem {
    Problem::bad_request(format!("{what}: {} {why}", excerpt(text)))
}
