//! Requests as a connection sees them: what is read from them, what is refused, and that neither
//! depends on how the bytes came.

mod refused;

use super::*;
use crate::config::{HEAD_BYTES_MAX, HEADERS_MAX, TARGET_BYTES_MAX};
use crate::problem::Problem;

const BODY_BYTES_MAX: usize = 64;

#[derive(Clone, Debug, PartialEq)]
struct Request {
    head: Head,
    path: String,
    query: String,
    body: Vec<u8>,
}

/// A connection that takes requests until one is refused; whether more bytes are awaited follows
/// from what it returns.
fn play<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Result<Request, Problem>> {
    let mut requests = Vec::new();
    let mut buffer = Vec::new();
    let mut scanned = 0;
    let mut receiving: Option<(Request, BodyReader)> = None;
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let Some((mut request, mut reader)) = receiving.take() else {
                match parse_head(&buffer, &mut scanned, BODY_BYTES_MAX) {
                    Ok(None) => break,
                    Ok(Some(ParsedHead { head, path, query, length })) => {
                        let reader = BodyReader::new(head.body);
                        let (path, query) = (path.to_owned(), query.to_owned());
                        receiving = Some((Request { head, path, query, body: Vec::new() }, reader));
                        buffer.drain(..length);
                        scanned = 0;
                    }
                    Err(problem) => {
                        requests.push(Err(problem));
                        return requests;
                    }
                }
                continue;
            };
            match reader.read(&buffer, &mut request.body, BODY_BYTES_MAX) {
                Ok(BodyProgress { consumed, complete }) => {
                    buffer.drain(..consumed);
                    if complete {
                        requests.push(Ok(request));
                        continue;
                    }
                    assert!(buffer.is_empty(), "an incomplete body takes everything");
                    receiving = Some((request, reader));
                    break;
                }
                Err(problem) => {
                    requests.push(Err(problem));
                    return requests;
                }
            }
        }
    }
    requests
}

fn play_whole(bytes: &[u8]) -> Vec<Result<Request, Problem>> {
    play([bytes])
}

fn read(request: &str) -> Request {
    let mut requests = play_whole(request.as_bytes());
    assert_eq!(requests.len(), 1, "{request:?}");
    requests.remove(0).unwrap_or_else(|problem| panic!("{request:?}: {problem:?}"))
}

fn get(fields: &str) -> String {
    format!("GET /get?id=a HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n")
}

fn post(fields: &str, body: &str) -> String {
    format!("POST /set/a HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n{body}")
}

fn chunked(body: &str) -> String {
    post("Transfer-Encoding: chunked\r\n", body)
}

#[test]
fn a_head_is_read_whole() {
    let request = read(
        "\r\nPOST /set/a%2Fb?x=1?&y HTTP/1.1\r\nhOST:\t a.test:80 \t\r\nAccept: text/event-stream\r\n\
         Content-Length: 1\r\nACCEPT:*/*;q=0.1\r\nExpect: 100-Continue\r\nIf-None-Match: \"1\"\r\n\
         Last-Event-ID: 17.9f3a2c1d\r\nif-none-match: \"2\"\r\n\r\nx",
    );
    let head = Head {
        method: Method::Post,
        version: Version::Http11,
        keep_alive: true,
        body: BodyLength::Sized(1),
        expects_continue: true,
        accept: "text/event-stream, */*;q=0.1".to_owned(),
        if_none_match: Some("\"1\", \"2\"".to_owned()),
        last_event_id: Some("17.9f3a2c1d".to_owned()),
    };
    let (path, query) = ("/set/a%2Fb".to_owned(), "x=1?&y".to_owned());
    assert_eq!(request, Request { head, path, query, body: b"x".to_vec() });
    let head = Head { version: Version::Http10, ..Head::default() };
    let (path, query) = ("/".to_owned(), String::new());
    let minimal = Request { head, path, query, body: Vec::new() };
    assert_eq!(read("GET / HTTP/1.0\r\n\r\n"), minimal);
}

#[test]
fn values_that_are_not_utf_8_are_read_with_replacements() {
    let requests = play_whole(b"GET / HTTP/1.0\r\nLast-Event-ID: 1\xff\r\nAccept:\r\n\r\n");
    let Request { head, .. } = requests[0].as_ref().unwrap();
    assert_eq!(head.last_event_id.as_deref(), Some("1\u{fffd}"));
    assert_eq!(head.accept, "");
}

#[test]
fn targets_have_a_path_and_a_query() {
    for (method, target, path, query) in [
        ("GET", "/", "/", ""),
        ("GET", "/get?items[]=a&b=%zz", "/get", "items[]=a&b=%zz"),
        ("GET", "//a/b", "//a/b", ""),
        ("GET", "/?", "/", ""),
        ("GET", "http://a.test/get?id=a", "/get", "id=a"),
        ("GET", "HTTPS://[::1]:80/get", "/get", ""),
        ("GET", "http://a.test", "/", ""),
        ("GET", "http://a.test?id=a/b", "/", "id=a/b"),
        ("OPTIONS", "*", "*", ""),
        ("OPTIONS", "/get", "/get", ""),
    ] {
        let read = read(&format!("{method} {target} HTTP/1.1\r\nHost: b.test\r\n\r\n"));
        assert_eq!((read.path.as_str(), read.query.as_str()), (path, query), "{target:?}");
    }
}

#[test]
fn tokens_are_made_of_what_rfc_9110_lists() {
    for byte in 0..=u8::MAX {
        let listed = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        assert_eq!(is_token_byte(byte), listed, "{}", byte.escape_ascii());
    }
}

#[test]
fn methods_known_to_http_are_left_to_the_router() {
    for (method, expected) in [
        ("GET", Method::Get),
        ("HEAD", Method::Head),
        ("POST", Method::Post),
        ("OPTIONS", Method::Options),
        ("PUT", Method::Other),
        ("DELETE", Method::Other),
        ("PATCH", Method::Other),
        ("TRACE", Method::Other),
        ("CONNECT", Method::Other),
    ] {
        let request = read(&format!("{method} / HTTP/1.0\r\n\r\n"));
        assert_eq!(request.head.method, expected, "{method}");
    }
}

#[test]
fn the_connection_goes_on_as_version_and_fields_say() {
    for (version, fields, keep_alive) in [
        ("1.1", "", true),
        ("1.2", "", true),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.1", "Connection: foo, CLOSE\r\n", false),
        ("1.1", "Connection: close\r\nConnection: keep-alive\r\n", false),
        ("1.0", "Connection: keep-alive, close\r\n", false),
        ("1.1", "Connection: closed\r\n", true),
        ("1.1", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n", true),
    ] {
        let head = read(&format!("GET / HTTP/{version}\r\nHost:\r\n{fields}\r\n")).head;
        assert_eq!(head.keep_alive, keep_alive, "{version} {fields:?}");
    }
}

#[test]
fn a_body_is_announced_within_its_limit() {
    for (fields, body, expected, continues) in [
        ("Content-Length: 0\r\nExpect: 100-continue\r\n", "", BodyLength::None, false),
        ("Content-Length: 0001\r\nExpect:\r\n", "x", BodyLength::Sized(1), false),
        ("Content-Length: 1\r\nContent-Encoding: Identity,\r\n", "x", BodyLength::Sized(1), false),
        ("transfer-encoding: Chunked\r\n", "0\r\n\r\n", BodyLength::Chunked, false),
        (
            "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n",
            "0\r\n\r\n",
            BodyLength::Chunked,
            true,
        ),
        ("Content-Encoding: gzip\r\nExpect: 100-continue\r\n", "", BodyLength::None, false),
    ] {
        let head = read(&post(fields, body)).head;
        assert_eq!((head.body, head.expects_continue), (expected, continues), "{fields:?}");
    }
    let forwarded = "POST / HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\nx";
    assert!(!read(forwarded).head.expects_continue);
}

#[test]
fn chunks_are_decoded() {
    for (encoded, decoded) in [
        ("0\r\n\r\n", ""),
        ("1\r\na\r\n0\r\n\r\n", "a"),
        ("00A;x\r\n0123456789\r\n2 ; y=\"a;\t\"\r\nab\r\n000\r\n\r\n", "0123456789ab"),
        ("2\r\n\r\n\r\n0;z\r\nX-Trailer: 1\r\nY:\r\n\r\n", "\r\n"),
        ("0000000000000001\r\na\r\n0\r\n\r\n", "a"),
    ] {
        let requests = play_whole(chunked(encoded).as_bytes());
        let Request { body, .. } = requests[0].as_ref().unwrap();
        assert_eq!(String::from_utf8_lossy(body), decoded, "{encoded:?}");
    }
    let largest = format!("3f\r\n{}\r\n1\r\nx\r\n0\r\n\r\n", "x".repeat(63));
    let requests = play_whole(chunked(&largest).as_bytes());
    assert_eq!(requests[0].as_ref().unwrap().body.len(), BODY_BYTES_MAX);
}

#[test]
fn what_is_malformed_or_ambiguous_is_refused() {
    for (request, status) in refused::requests() {
        let outcome = play_whole(&request);
        let shown = request.escape_ascii();
        assert_eq!(outcome.len(), 1, "{shown}");
        let problem = outcome[0].as_ref().expect_err(&shown.to_string());
        assert_eq!(problem.status, status, "{shown}: {}", problem.detail);
        assert!(problem.detail.is_ascii() || problem.detail.contains('…'), "{}", problem.detail);
        assert!(problem.detail.len() < 300, "{}", problem.detail);
        assert!(!problem.detail.contains(char::is_control), "{:?}", problem.detail);
    }
}

/// What can never become a request is refused as soon as that is certain, and nothing earlier.
#[test]
fn refusals_do_not_wait_for_an_end() {
    let target = |bytes: usize| format!("GET /{}", "a".repeat(bytes - 1));
    let head = |bytes: usize| {
        let start = "GET / HTTP/1.0\r\nX: ";
        format!("{start}{}", "a".repeat(bytes - start.len()))
    };
    for (start, expected) in [
        (String::new(), None),
        ("\r".to_owned(), None),
        ("\r\n\r\n\r\n\r\n".to_owned(), None),
        ("\r\n\r\n\r\n\r\n\r\n".to_owned(), Some(400)),
        ("G".to_owned(), None),
        ("\u{16}".to_owned(), Some(400)),
        (" ".to_owned(), Some(400)),
        ("\n".to_owned(), Some(400)),
        ("GET / HTTP/1.\r".to_owned(), None),
        ("GET / HTTP/1.0\n".to_owned(), Some(400)),
        ("GET / HTTP/1.0\rX".to_owned(), Some(400)),
        ("GET / HTTP/1.0\r\nX: a\n".to_owned(), Some(400)),
        ("A".repeat(32), None),
        ("A".repeat(33), Some(400)),
        (target(TARGET_BYTES_MAX), None),
        (target(TARGET_BYTES_MAX + 1), Some(414)),
        (target(TARGET_BYTES_MAX) + " HTTP/1.0\r\nX: a", None),
        (target(TARGET_BYTES_MAX + 1) + " HTTP/1.0\r\n\r\n", Some(414)),
        (head(HEAD_BYTES_MAX - 1), None),
        (head(HEAD_BYTES_MAX), Some(431)),
        (head(HEAD_BYTES_MAX - 3) + "\r\n\r\n", Some(431)),
    ] {
        let outcome = parse_head(start.as_bytes(), &mut 0, BODY_BYTES_MAX);
        let shown = excerpt(start.as_bytes());
        let status = outcome.map(|head| assert_eq!(head, None, "{shown}")).err().map(|p| p.status);
        assert_eq!(status, expected, "{shown}");
    }
}

#[test]
fn heads_fill_their_limits() {
    let padding = HEAD_BYTES_MAX - "GET / HTTP/1.0\r\nX: \r\n\r\n".len();
    read(&format!("GET / HTTP/1.0\r\nX: {}\r\n\r\n", "a".repeat(padding)));
    read(&format!("GET /{} HTTP/1.0\r\n\r\n", "a".repeat(TARGET_BYTES_MAX - 1)));
    read(&format!("GET / HTTP/1.0\r\n{}\r\n", "X: a\r\n".repeat(HEADERS_MAX)));
    let too_many = format!("GET / HTTP/1.0\r\n{}\r\n", "X: a\r\n".repeat(HEADERS_MAX + 1));
    let outcome = play_whole(too_many.as_bytes());
    assert_eq!(outcome[0].as_ref().map_err(|problem| problem.status), Err(431));
}

#[test]
fn what_is_thrown_away_is_bounded() {
    for (body, status) in [
        (format!("1;{}", "x".repeat(4096)), 400),
        (format!("1{}", " ".repeat(4097)), 400),
        ("1;xxxxxxxxx\r\na\r\n".repeat(500), 400),
        (format!("0\r\n{}", "X-A: bbbbbbbb\r\n".repeat(6_000)), 431),
        (format!("0\r\n{}", "X".repeat(HEAD_BYTES_MAX + 1)), 431),
    ] {
        let mut reader = BodyReader::new(BodyLength::Chunked);
        let mut decoded = Vec::new();
        let outcome = reader.read(body.as_bytes(), &mut decoded, 1024);
        let outcome = outcome.map_err(|problem| problem.status);
        assert_eq!(outcome, Err(status), "{}", excerpt(body.as_bytes()));
    }
}

#[test]
fn an_announced_size_takes_no_room() {
    let mut body = Vec::new();
    let mut reader = BodyReader::new(BodyLength::Chunked);
    reader.read(b"fffffff\r\n", &mut body, usize::MAX).unwrap();
    BodyReader::new(BodyLength::Sized(1 << 40)).read(b"", &mut body, usize::MAX).unwrap();
    assert_eq!(body.capacity(), 0);
}

/// A caller that keeps the note makes each byte looked at a bounded number of times.
#[test]
fn a_head_that_comes_byte_by_byte_is_not_scanned_again() {
    let request = get(&"X-Filler: aaaaaaaa\r\n".repeat(60));
    let mut scanned = 0;
    for end in 1..request.len() {
        let head = parse_head(&request.as_bytes()[..end], &mut scanned, BODY_BYTES_MAX).unwrap();
        assert_eq!(head, None);
        assert!(scanned + 1 >= end, "only a CR is looked at again");
    }
}

fn assert_splits_do_not_matter(bytes: &[u8]) {
    let whole = play_whole(bytes);
    assert_eq!(play(bytes.chunks(1)), whole, "byte by byte: {}", bytes.escape_ascii());
    for at in 0..=bytes.len() {
        let (first, second) = bytes.split_at(at);
        assert_eq!(play([first, second]), whole, "split at {at}: {}", bytes.escape_ascii());
    }
}

#[test]
fn how_requests_are_split_does_not_matter() {
    let get = get("Accept: */*\r\n");
    let sized = post("Content-Length: 13\r\n", "{\"value\":\"v\"}");
    let chunks = chunked("d;x=y\r\n{\"value\":\"v\"}\r\n2\r\n\r\n\r\n0\r\nX-Trailer: 1\r\n\r\n");
    for (conversation, requests) in [
        (get.clone(), 1),
        (sized.clone(), 1),
        (chunks.clone(), 1),
        (format!("\r\n{get}{sized}\r\n\r\n{chunks}{get}"), 4),
        (format!("{chunks}{chunks}{sized}{get}\r\n"), 4),
        (format!("{sized}{get}GET / HTTP/1.0\r\nX : a\r\n\r\n{get}"), 3),
    ] {
        assert_eq!(play_whole(conversation.as_bytes()).len(), requests, "{conversation:?}");
        assert_splits_do_not_matter(conversation.as_bytes());
    }
}

#[test]
fn how_refused_requests_are_split_does_not_matter() {
    for (request, _) in refused::requests() {
        assert_splits_do_not_matter(&request);
    }
}

/// Where one fault follows another, the first decides, also across the limits.
#[test]
fn how_long_refused_heads_are_split_does_not_matter() {
    let long = "a".repeat(TARGET_BYTES_MAX);
    let filler = "X: a\r\n".repeat(HEAD_BYTES_MAX / 6);
    for head in [
        format!("GET /{long}\nX"),
        format!("GET /a\n{long}{long}"),
        format!("GET /{long} HTTP/1.1\r\nX: a\n\r\n"),
        format!("GET / HTTP/1.1\r\n{filler}X: a\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{filler}X: a\n\r\n"),
        format!("{long}{long}{long}\n"),
    ] {
        let whole = play_whole(head.as_bytes());
        assert!(whole[0].is_err());
        for size in [1, 7, 4096, 65_537] {
            let pieces = play(head.as_bytes().chunks(size));
            assert_eq!(pieces, whole, "{size}: {}", excerpt(head.as_bytes()));
        }
    }
}
