//! Owns If-None-Match (RFC 9110, 13.1.2). Called by the hub; makes no entity tags.

/// Whether the field lists `etag` or is `*`, so that the client has the answer already. The
/// comparison is weak. What comes after a malformed tag is not read.
pub fn none_match(if_none_match: &str, etag: &str) -> bool {
    let wanted = etag.strip_prefix("W/").unwrap_or(etag);
    if_none_match.trim() == "*" || listed_tags(if_none_match).any(|tag| tag == wanted)
}

/// The tags that the field lists, in quotes, without the mark of a weak one.
pub fn listed_tags(if_none_match: &str) -> impl Iterator<Item = &str> {
    let mut rest = if_none_match;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let tag = rest.strip_prefix("W/").unwrap_or(rest);
        let end = tag.strip_prefix('"')?.find('"')?;
        let (tag, after) = tag.split_at(end + 2);
        rest = after;
        Some(tag)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_matches_where_it_is_listed() {
        for (field, matches) in [
            (r#""17.a""#, true),
            (r#"W/"17.a""#, true),
            (r#""1", "17.a""#, true),
            (r#""a,b" , W/"17.a","c""#, true),
            (r#", "17.a""#, true),
            ("*", true),
            (" * ", true),
            ("", false),
            (r#""17.b""#, false),
            (r#""17.A""#, false),
            ("17.a", false),
            (r#"w/"17.a""#, false),
            (r#""1", *"#, false),
            (r#""17.a"#, false),
            (r#"", "17.a"#, false),
            ("\"ä\", \"17.a\"", true),
        ] {
            assert_eq!(none_match(field, r#""17.a""#), matches, "{field:?}");
        }
        assert!(none_match(r#""17.a""#, r#"W/"17.a""#));
    }
}
