//! Owns the page on `/`, for people. Called by the hub.

use std::borrow::Cow;

const PAGE: &str = include_str!("page.html");

/// What the page's command lines call the server until its script has filled in the real address.
const DEFAULT_BASE: &str = "http://127.0.0.1:7400";

/// The page's HTML; `base` is the address its command lines show to those who run no scripts.
pub fn page(base: Option<&str>) -> Cow<'static, str> {
    match base {
        None => Cow::Borrowed(PAGE),
        Some(base) => Cow::Owned(PAGE.replace(DEFAULT_BASE, &escape(base))),
    }
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_needs_nothing_from_elsewhere_and_writes_text_only() {
        for absent in ["src=", "@import", "url(", "innerHTML", "<link", "https:", "//cdn"] {
            assert!(!PAGE.contains(absent), "{absent}");
        }
        let hosts = PAGE.matches("http:").count();
        assert_eq!(hosts, PAGE.matches(DEFAULT_BASE).count());
        assert!(hosts >= 4, "append, read, follow and resume name the server");
        for link in ["href=\"healthz\"", "href=\"metrics\""] {
            assert!(PAGE.contains(link), "{link}");
        }
    }

    #[test]
    fn the_base_is_text() {
        assert_eq!(page(None), PAGE);
        let page = page(Some("http://h/'\"&<b>"));
        assert!(page.contains("http://h/&#39;&quot;&amp;&lt;b&gt;</span>/set/"));
        assert!(!page.contains(DEFAULT_BASE));
    }
}
