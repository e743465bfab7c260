//! Owns percent-encoding (RFC 3986, 2.1) in the two places a target has it: a path segment, where
//! `+` is itself, and a query (WHATWG URL, 5.1), where it is a space. Called by `set`, `get` and
//! `bloom`.
//! Decodes only what it is given: what a parameter means, and whether it is wanted, is theirs.

use std::borrow::Cow;
use std::fmt;

/// Why encoded text does not decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PercentError {
    NotHexadecimal,
    NotUtf8,
}

impl fmt::Display for PercentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PercentError::NotHexadecimal => "'%' is not followed by two hexadecimal digits",
            PercentError::NotUtf8 => "is not UTF-8 when percent-decoded",
        })
    }
}

/// A path segment, decoded.
pub(super) fn decode_segment(text: &str) -> Result<Cow<'_, str>, PercentError> {
    match memchr::memchr(b'%', text.as_bytes()) {
        None => Ok(Cow::Borrowed(text)),
        Some(first) => decode(text, first, b'+').map(Cow::Owned),
    }
}

/// A name or a value of a query, decoded.
pub(super) fn decode_query(text: &str) -> Result<Cow<'_, str>, PercentError> {
    match memchr::memchr2(b'%', b'+', text.as_bytes()) {
        None => Ok(Cow::Borrowed(text)),
        Some(first) => decode(text, first, b' ').map(Cow::Owned),
    }
}

/// The parameters of a query: names and values, both still encoded.
pub(super) fn parameters(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// `first` is where the first byte stands that may not stand for itself.
fn decode(text: &str, first: usize, plus: u8) -> Result<String, PercentError> {
    let (plain, mut rest) = text.as_bytes().split_at(first);
    let mut decoded = Vec::with_capacity(text.len());
    decoded.extend_from_slice(plain);
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'%' => {
                let (digits, tail) =
                    rest.split_first_chunk::<2>().ok_or(PercentError::NotHexadecimal)?;
                decoded.push(hexadecimal(*digits).ok_or(PercentError::NotHexadecimal)?);
                rest = tail;
            }
            b'+' => decoded.push(plus),
            _ => decoded.push(byte),
        }
    }
    String::from_utf8(decoded).map_err(|_| PercentError::NotUtf8)
}

fn hexadecimal([high, low]: [u8; 2]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    Some(digit(high)? << 4 | digit(low)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_decodes_as_its_place_says() {
        use PercentError::{NotHexadecimal, NotUtf8};
        for (text, segment, query) in [
            ("", Ok(""), Ok("")),
            ("abc", Ok("abc"), Ok("abc")),
            ("a+b", Ok("a+b"), Ok("a b")),
            ("+%2B+", Ok("+++"), Ok(" + ")),
            ("%61%2f%2F%25", Ok("a//%"), Ok("a//%")),
            ("%C3%A4ä", Ok("ää"), Ok("ää")),
            ("%00", Ok("\0"), Ok("\0")),
            ("%", Err(NotHexadecimal), Err(NotHexadecimal)),
            ("a%4", Err(NotHexadecimal), Err(NotHexadecimal)),
            ("%4g", Err(NotHexadecimal), Err(NotHexadecimal)),
            ("%+1", Err(NotHexadecimal), Err(NotHexadecimal)),
            ("%%41", Err(NotHexadecimal), Err(NotHexadecimal)),
            ("%é1", Err(NotHexadecimal), Err(NotHexadecimal)),
            ("%C3", Err(NotUtf8), Err(NotUtf8)),
            ("%ED%A0%80", Err(NotUtf8), Err(NotUtf8)),
            ("%C0%80", Err(NotUtf8), Err(NotUtf8)),
        ] {
            assert_eq!(decode_segment(text).as_deref(), segment.as_ref().copied(), "{text}");
            assert_eq!(decode_query(text).as_deref(), query.as_ref().copied(), "{text}");
        }
    }

    #[test]
    fn text_without_escapes_is_not_copied() {
        assert!(matches!(decode_segment("a+b"), Ok(Cow::Borrowed("a+b"))));
        assert!(matches!(decode_query("abc"), Ok(Cow::Borrowed("abc"))));
    }

    #[test]
    fn a_query_falls_into_parameters() {
        for (query, expected) in [
            ("", vec![]),
            ("&&", vec![]),
            ("a", vec![("a", "")]),
            ("=", vec![("", "")]),
            ("a=b=c&&d=&=e", vec![("a", "b=c"), ("d", ""), ("", "e")]),
            ("a=%26&a=;b", vec![("a", "%26"), ("a", ";b")]),
        ] {
            assert_eq!(parameters(query).collect::<Vec<_>>(), expected, "{query}");
        }
    }
}
