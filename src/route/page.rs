//! Owns the page on `/`, for people. Called by the hub.

const PAGE: &str = include_str!("page.html");

/// The page's HTML. Its script fills in the address that the page was loaded from; who runs none
/// reads the default one.
pub fn page() -> &'static str {
    PAGE
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
        assert_eq!(hosts, PAGE.matches("http://127.0.0.1:7400").count());
        assert!(hosts >= 4, "append, read, follow and resume name the server");
        for link in ["href=\"healthz\"", "href=\"metrics\""] {
            assert!(PAGE.contains(link), "{link}");
        }
    }
}
