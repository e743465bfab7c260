//! Owns the grammar of `host[:port]` (RFC 3986, 3.2.2), in a Host field or an absolute-form target.
//! Stricter than its letter where that would let two requests look like one: a comma is no part of
//! a name, and userinfo is refused.

use std::net::Ipv6Addr;

pub(super) fn is_authority(text: &[u8]) -> bool {
    let after_host = match text {
        [b'[', rest @ ..] => after_ip_literal(rest),
        _ => after_registered_name(text),
    };
    after_host.is_some_and(|rest| rest.is_empty() || is_port(rest))
}

fn is_port(text: &[u8]) -> bool {
    matches!(text, [b':', digits @ ..] if digits.iter().all(u8::is_ascii_digit))
}

/// `text` follows the opening bracket.
fn after_ip_literal(text: &[u8]) -> Option<&[u8]> {
    let end = text.iter().position(|byte| *byte == b']')?;
    is_ip_literal(&text[..end]).then_some(&text[end + 1..])
}

/// Between the brackets: an IPv6 address, or a later one as `vN.…`.
fn is_ip_literal(text: &[u8]) -> bool {
    let [b'v' | b'V', future @ ..] = text else {
        return std::str::from_utf8(text).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok());
    };
    let Some(dot) = future.iter().position(|byte| *byte == b'.') else { return false };
    let (version, address) = (&future[..dot], &future[dot + 1..]);
    !version.is_empty()
        && version.iter().all(u8::is_ascii_hexdigit)
        && !address.is_empty()
        && address.iter().all(|byte| is_name_byte(*byte) || *byte == b':')
}

/// What follows a name, which an IPv4 address has the form of.
fn after_registered_name(text: &[u8]) -> Option<&[u8]> {
    const NAME_BYTES: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 256 {
            table[byte] = is_name_byte(byte as u8);
            byte += 1;
        }
        table
    };
    let mut rest = text;
    loop {
        let end = rest.iter().position(|byte| !NAME_BYTES[usize::from(*byte)]);
        match &rest[end.unwrap_or(rest.len())..] {
            [b'%', a, b, after @ ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => {
                rest = after
            }
            after => return (after.len() < text.len()).then_some(after),
        }
    }
}

/// Unreserved characters and sub-delimiters, the comma left out.
const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&'..=b'+' | b';' | b'=')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_a_host_and_perhaps_a_port() {
        for text in [
            "localhost",
            "a.test",
            "a.test:",
            "a.test:8080",
            "127.0.0.1:80",
            "xn--nxasmq6b",
            "a_b",
            "%41.test",
            "[::1]",
            "[2001:db8::1]:80",
            "[::ffff:127.0.0.1]",
            "[v1.a:b]",
        ] {
            assert!(is_authority(text.as_bytes()), "{text:?}");
        }
        for text in [
            "",
            ":80",
            "a b",
            "a,b",
            "a:b",
            "a:80:80",
            "a:+80",
            "u@a",
            "a/b",
            "a?b",
            "a\\b",
            "ä",
            "%4",
            "%4g",
            "[]",
            "[::1",
            "[::1]a",
            "::1",
            "[127.0.0.1]",
            "[fe80::1%25eth0]",
            "[v.a]",
            "[v1.]",
            "[v1]",
        ] {
            assert!(!is_authority(text.as_bytes()), "{text:?}");
        }
    }
}
