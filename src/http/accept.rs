//! Owns Accept (RFC 9110, 12.5.1): how much a client wants a media type. Called by the SSE layer,
//! which compares. A malformed element is passed over: content is negotiated with whom it helps.

/// The quality, 0 to 1000, that the most specific matching range gives `media_type`; 0 where none
/// matches, 1000 for an empty field.
pub fn quality(accept: &str, media_type: &str) -> u16 {
    if accept.is_empty() {
        return 1000;
    }
    best(accept, media_type).map_or(0, |(_, quality)| quality)
}

/// The quality where the type itself is listed, not a wildcard that covers it.
pub fn lists(accept: &str, media_type: &str) -> Option<u16> {
    let (specificity, quality) = best(accept, media_type)?;
    (specificity >= Specificity::Parameterised).then_some(quality)
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Specificity {
    Any,
    Type,
    /// With parameters such as a charset, which the types here do not have.
    Parameterised,
    Exact,
}

fn best(accept: &str, media_type: &str) -> Option<(Specificity, u16)> {
    split_unquoted(accept, b',').filter_map(|element| match_range(element, media_type)).max()
}

fn match_range(element: &str, media_type: &str) -> Option<(Specificity, u16)> {
    let mut parts = split_unquoted(element, b';').map(|part| part.trim_matches([' ', '\t']));
    let range = parts.next()?;
    let mut specificity = specificity(range, media_type)?;
    let mut quality = 1000;
    for parameter in parts.filter(|parameter| !parameter.is_empty()) {
        match parameter.split_once('=') {
            Some((name, value)) if name.eq_ignore_ascii_case("q") => {
                quality = parse_quality(value)?;
            }
            _ if specificity == Specificity::Exact => specificity = Specificity::Parameterised,
            _ => {}
        }
    }
    Some((specificity, quality))
}

fn specificity(range: &str, media_type: &str) -> Option<Specificity> {
    if range.eq_ignore_ascii_case(media_type) {
        return Some(Specificity::Exact);
    }
    if range == "*/*" {
        return Some(Specificity::Any);
    }
    let (kind, _) = media_type.split_once('/').expect("the caller names a whole media type");
    let covered = range.strip_suffix("/*")?.eq_ignore_ascii_case(kind);
    covered.then_some(Specificity::Type)
}

/// 0 to 1 in thousandths; digits past the third are read and dropped.
fn parse_quality(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(3);
    let thousandths = digits.fold(0, |value, digit| value * 10 + u16::from(digit - b'0'));
    match whole {
        "0" => Some(thousandths),
        "1" if fraction.bytes().all(|byte| byte == b'0') => Some(1000),
        _ => None,
    }
}

/// Splits where the separator stands outside quoted strings.
fn split_unquoted(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let current = rest?;
        let end = find_unquoted(current.as_bytes(), separator);
        rest = end.map(|end| &current[end + 1..]);
        Some(&current[..end.unwrap_or(current.len())])
    })
}

fn find_unquoted(text: &[u8], separator: u8) -> Option<usize> {
    let mut at = 0;
    let mut quoted = false;
    while at < text.len() {
        match text[at] {
            b'"' => quoted = !quoted,
            b'\\' if quoted => at += 1,
            byte if byte == separator && !quoted => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_range_decides() {
        // Field, then quality and listing of text/event-stream.
        for (accept, expected_quality, listed) in [
            ("", 1000, None),
            ("*/*", 1000, None),
            ("text/event-stream", 1000, Some(1000)),
            ("Text/Event-Stream", 1000, Some(1000)),
            ("text/*", 1000, None),
            ("text/*;q=0.3, */*;q=0.9", 300, None),
            ("*/*, text/event-stream;q=0.2", 200, Some(200)),
            ("text/event-stream;q=0, */*", 0, Some(0)),
            ("text/event-stream ; Q=0.5", 500, Some(500)),
            ("text/event-stream;charset=utf-8", 1000, Some(1000)),
            ("text/event-stream;charset=utf-8;q=0.9, text/event-stream;q=0.1", 100, Some(100)),
            ("text/event-stream;q=0.1, text/event-stream;q=0.7", 700, Some(700)),
            ("text/event-stream;a=\"x, y;q=0\";q=0.4", 400, Some(400)),
            ("a/b;c=\"\\\", text/event-stream\"", 0, None),
            ("a/b;c=\"\\\"\", text/event-stream", 1000, Some(1000)),
            ("application/json", 0, None),
            ("text/event-streams, text/event", 0, None),
            (",, text/event-stream ,", 1000, Some(1000)),
            ("text/event-stream;q=1.000", 1000, Some(1000)),
            ("text/event-stream;q=0.12345", 123, Some(123)),
            ("text/event-stream;q=1.1", 0, None),
            ("text/event-stream;q=2", 0, None),
            ("text/event-stream;q=-1", 0, None),
            ("text/event-stream;q=", 0, None),
            ("text/event-stream;q=0.+1", 0, None),
            ("text/html, image/gif, *; q=.2, */*; q=0.2", 200, None),
            ("\u{fffd}, text/event-stream", 1000, Some(1000)),
        ] {
            assert_eq!(quality(accept, "text/event-stream"), expected_quality, "{accept:?}");
            assert_eq!(lists(accept, "text/event-stream"), listed, "{accept:?}");
        }
    }
}
