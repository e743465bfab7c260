//! Owns the header fields that every reply carries: Date (RFC 9110, 5.6.7), and what lets scripts of
//! other origins read the reply (WHATWG Fetch, 3.3.3). Written once a second. Called by the hub.

use std::time::{Duration, UNIX_EPOCH};

use super::response::write_field;

#[derive(Debug)]
pub struct Always {
    cors_origin: String,
    unix_seconds: u64,
    lines: Vec<u8>,
}

impl Always {
    /// `cors_origin` is what may read replies: an origin, or `*`.
    pub fn new(cors_origin: &str) -> Always {
        let mut always =
            Always { cors_origin: cors_origin.to_owned(), unix_seconds: 0, lines: Vec::new() };
        always.write();
        always
    }

    /// The lines for this second, ends included.
    pub fn lines(&mut self, unix_seconds: u64) -> &[u8] {
        if self.unix_seconds != unix_seconds {
            self.unix_seconds = unix_seconds;
            self.write();
        }
        &self.lines
    }

    fn write(&mut self) {
        let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(self.unix_seconds));
        self.lines.clear();
        write_field(&mut self.lines, "Date", &date);
        write_field(&mut self.lines, "Access-Control-Allow-Origin", &self.cors_origin);
        write_field(&mut self.lines, "Access-Control-Expose-Headers", "ETag, Retry-After");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_follow_the_time() {
        let mut always = Always::new("https://a.test");
        for (unix_seconds, date) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (784_111_778, "Sun, 06 Nov 1994 08:49:38 GMT"),
        ] {
            let expected = format!(
                "Date: {date}\r\nAccess-Control-Allow-Origin: https://a.test\r\n\
                 Access-Control-Expose-Headers: ETag, Retry-After\r\n"
            );
            assert_eq!(always.lines(unix_seconds), expected.as_bytes());
        }
    }
}
