//! Owns the error reply: a status and a sentence that says which input, and what was wrong with it
//! (RFC 9457). Made by `http`, `route` and the hub; encoded once, by `http::response`.

/// An error as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub status: u16,
    pub detail: String,
    /// The methods a 405 names in its `Allow` field; empty otherwise.
    pub allow: &'static str,
}

impl Problem {
    pub fn new(status: u16, detail: impl Into<String>) -> Problem {
        Problem { status, detail: detail.into(), allow: "" }
    }

    pub fn method_not_allowed(detail: impl Into<String>, allow: &'static str) -> Problem {
        Problem { status: 405, detail: detail.into(), allow }
    }

    pub fn bad_request(detail: impl Into<String>) -> Problem {
        Problem::new(400, detail)
    }
}

/// The reason phrase of every status rill sends (RFC 9110, 15; RFC 4918 for 507).
pub fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => unreachable!("rill sends no status {status}"),
    }
}
