//! Owns the `Date` of replies (RFC 9110, 6.6.1): made once a second, from a time that is given.

use std::time::{Duration, UNIX_EPOCH};

#[derive(Debug)]
pub struct Date {
    unix_seconds: u64,
    text: String,
}

impl Date {
    pub fn at(unix_seconds: u64) -> Date {
        let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(unix_seconds));
        Date { unix_seconds, text }
    }

    /// The text for this second.
    pub fn text(&mut self, unix_seconds: u64) -> &str {
        if self.unix_seconds != unix_seconds {
            *self = Date::at(unix_seconds);
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_follows_the_time() {
        let mut date = Date::at(784_111_777);
        assert_eq!(date.text(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date.text(784_111_778), "Sun, 06 Nov 1994 08:49:38 GMT");
    }
}
