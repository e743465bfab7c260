//! The forms of a selection, as tables: what a query or a body selects, or why it is refused.

use std::fmt::Write as _;

use super::*;
use crate::route::samples;

/// `a b|$F c@AFTER; after=…; oldest=…; newest=…; event=…`, the parts that there are.
fn describe(selection: &Selection) -> String {
    let mut text = String::new();
    for item in &selection.items {
        let space = if text.is_empty() { "" } else { " " };
        write!(text, "{space}{}", item.id.as_str()).unwrap();
        if let Some(filter) = &item.filter {
            write!(text, "|{}", samples::name(filter)).unwrap();
        }
        if let Some(after) = item.after {
            write!(text, "@{after}").unwrap();
        }
    }
    if let Some(after) = selection.after {
        write!(text, "; after={after}").unwrap();
    }
    match selection.window {
        Window::All => {}
        Window::Oldest(events) => write!(text, "; oldest={events}").unwrap(),
        Window::Newest(events) => write!(text, "; newest={events}").unwrap(),
    }
    if let Some(id) = &selection.last_event_id {
        write!(text, "; event={id}").unwrap();
    }
    text
}

type Expected<'a> = Result<&'a str, &'a str>;

fn check(input: &str, result: Result<Selection, Problem>, expected: Expected<'_>) {
    let result = match result {
        Ok(selection) => Ok(describe(&selection)),
        Err(problem) => {
            assert_eq!((problem.status, problem.allow), (400, ""), "{input}");
            Err(problem.detail)
        }
    };
    assert_eq!(result.as_deref().map_err(String::as_str), expected, "{input}");
}

fn check_queries(cases: &[(&str, Expected<'_>)]) {
    for (query, expected) in cases {
        check(query, from_query(&samples::fill(query)), *expected);
    }
}

fn check_bodies(cases: &[(&str, Expected<'_>)]) {
    for (body, expected) in cases {
        check(body, from_body("", samples::fill(body).as_bytes()), *expected);
    }
}

#[test]
fn a_query_names_one_storage() {
    check_queries(&[
        ("id=a", Ok("a")),
        ("&id=a&", Ok("a")),
        ("%69d=%61+%2B%26", Ok("a +&")),
        ("id=a&bloomFilter=$F", Ok("a|$F")),
        ("id=a&bloomFilter=$S", Ok("a|$S")),
        ("bloomFilter=&id=a", Err("bloomFilter: an empty filter is malformed")),
        ("id=[a", Ok("[a")),
        ("id=a=b", Ok("a=b")),
        ("", Err("id: is needed for one storage, or items for 1 to 10000")),
        ("bloomFilter=$F", Err("id: is needed for one storage, or items for 1 to 10000")),
        ("id", Err("id: an identifier has at least 1 byte")),
        ("id=%00", Err("id: an identifier has no control characters, this one has U+0000")),
        ("id=..", Err("id: an identifier is not '.' or '..'")),
        ("id=a&id=a", Err("id: stands twice")),
        ("id=a&bloomFilter=$F&bloomFilter=$F", Err("bloomFilter: stands twice")),
        ("id=%4", Err("id: '%' is not followed by two hexadecimal digits")),
        ("id=%FF", Err("id: is not UTF-8 when percent-decoded")),
    ]);
}

#[test]
fn a_query_names_many_storages() {
    check_queries(&[
        ("items=a", Ok("a")),
        ("items=a&items=b", Ok("a b")),
        ("items[]=b&items%5B%5D=a", Ok("b a")),
        ("items=a&items[]=b&items=a", Ok("a b")),
        (r#"items=["a","b"]"#, Ok("a b")),
        (
            r#"items=%5B%7B%22id%22%3A%22a%22,%22bloomFilter%22:%22$F%22%7D,%22b%22%5D"#,
            Ok("a|$F b"),
        ),
        (r#"items={"id":"a","after":"5"}&items=b"#, Ok("a@5 b")),
        (r#"items[]=["[a"]"#, Ok("[a")),
        ("items=+[", Ok(" [")),
        ("items=", Err("items: an identifier has at least 1 byte")),
        ("items=a&items=.", Err("items[1]: an identifier is not '.' or '..'")),
        ("items=[]", Err("items: names no storage; 1 to 10000 are needed")),
        ("items=[", Err("items: invalid JSON: EOF while parsing a list at line 1 column 1")),
        (r#"items=["a"]b"#, Err("items: invalid JSON: trailing characters at line 1 column 6")),
        (
            "items=a&items=[null]",
            Err("items[1][0]: expected an identifier or an object with an id, got null"),
        ),
        (r#"items=[{"id":"a"},{}]"#, Err("items[1].id: is missing")),
        ("id=a&items=a", Err("id: cannot be combined with items")),
        ("id=a&items[0][id]=a", Err("id: cannot be combined with items")),
        ("items=a&bloomFilter=$F", Err("bloomFilter: stands inside an item, not beside items")),
        ("items=%e4", Err("items: is not UTF-8 when percent-decoded")),
    ]);
}

#[test]
fn a_query_names_storages_by_index() {
    check_queries(&[
        ("items[0][id]=a&items[0][bloomFilter]=$F", Ok("a|$F")),
        ("items%5B1%5D%5Bafter%5D=7&items[1][id]=b&items[0][id]=a", Ok("a b@7")),
        ("items[10][id]=c&items[9][id]=b&items[10][after]=", Ok("b c")),
        ("items[0][id]=a&items[0][id]=a", Err("items[0][id]: stands twice")),
        ("items[3][bloomFilter]=$F", Err("items[3].id: is missing")),
        ("items[3][id]=", Err("items[3].id: an identifier has at least 1 byte")),
        (
            "items[0][id]=a&items[0][after]=x",
            Err("items[0].after: expected a cursor of the form SEQ or SEQ.EPOCH"),
        ),
        (
            "items[0][id]=a&items[0][after]=%x",
            Err("items[0][after]: '%' is not followed by two hexadecimal digits"),
        ),
        ("items[0][id]=a&items=b", Err("items: cannot be combined with items[0][id]")),
        (
            "items[0][id]=a&bloomFilter=$F",
            Err("bloomFilter: stands inside an item, not beside items"),
        ),
        ("items[0][more]=a", Err("id: is needed for one storage, or items for 1 to 10000")),
    ]);
}

#[test]
fn parameters_that_are_not_known_are_ignored() {
    check_queries(&[
        ("id=a&x=%zz&%zz=1&%ff=%&=&ID=b&Items=c", Ok("a")),
        ("id=a&items[x][id]=%&items[][id]=b&items[-1][id]=b&items[0]=b", Ok("a")),
        ("id=a&items[0][id=b&items0][id]=b&items[99999999999999999999][id]=b", Ok("a")),
        ("id=a&filter=F&bloomfilter=F&lasteventid=1", Ok("a")),
    ]);
}

#[test]
fn a_query_says_where_to_start_and_how_much() {
    let limit = "limit: expected an integer from 1 to 10000";
    let last = "last: expected an integer from 0 to 10000";
    let after = "after: expected a cursor of the form SEQ or SEQ.EPOCH";
    check_queries(&[
        ("id=a&after=17", Ok("a; after=17")),
        ("id=a&after=17.9f3a2c1d", Ok("a; after=17.9f3a2c1d")),
        ("id=a&after=0", Ok("a; after=0")),
        ("id=a&after=", Ok("a")),
        ("id=a&after=99999999999999999999", Ok("a; after=18446744073709551615")),
        ("id=a&after=x", Err(after)),
        ("id=a&after=+1", Err(after)),
        ("id=a&after=17.", Err(after)),
        ("id=a&after=1&after=1", Err("after: stands twice")),
        ("id=a&after=&after=1", Err("after: stands twice")),
        ("id=a&limit=1", Ok("a; oldest=1")),
        ("id=a&limit=10000&after=3", Ok("a; after=3; oldest=10000")),
        ("id=a&limit=007", Ok("a; oldest=7")),
        ("id=a&limit=0", Err(limit)),
        ("id=a&limit=10001", Err(limit)),
        ("id=a&limit=99999999999999999999999", Err(limit)),
        ("id=a&limit=4294967297", Err(limit)),
        ("id=a&limit=", Err(limit)),
        ("id=a&limit=-1", Err(limit)),
        ("id=a&limit=%2B1", Err(limit)),
        ("id=a&limit=1.0", Err(limit)),
        ("id=a&limit=1&limit=1", Err("limit: stands twice")),
        ("id=a&last=0", Ok("a; newest=0")),
        ("id=a&last=10000&after=", Ok("a; newest=10000")),
        ("id=a&last=10001", Err(last)),
        ("id=a&last=", Err(last)),
        ("id=a&last=1&last=1", Err("last: stands twice")),
        ("id=a&limit=1&last=1", Err("last: cannot be combined with limit")),
        ("id=a&last=1&after=0", Err("last: cannot be combined with after")),
        ("items[0][id]=a&items[0][after]=1&last=0", Err("last: cannot be combined with after")),
    ]);
}

#[test]
fn a_reconnecting_stream_adds_its_cursor_to_any_url() {
    check_queries(&[
        ("id=a&lastEventId=17.9f3a2c1d", Ok("a; event=17.9f3a2c1d")),
        ("id=a&lastEventId=no+cursor", Ok("a; event=no cursor")),
        ("id=a&lastEventId=", Ok("a")),
        ("id=a&last=5&lastEventId=1", Ok("a; newest=5; event=1")),
        ("id=a&after=2&lastEventId=1&lastEventId=3", Ok("a; after=2; event=3")),
        ("id=a&lastEventId=%", Err("lastEventId: '%' is not followed by two hexadecimal digits")),
    ]);
    for (query, expected) in [
        ("lastEventId=5", Ok("a; event=5")),
        ("id=b&id=b&after=x&limit=%&%=&lastEventId=5", Ok("a; event=5")),
        ("last%45ventId=5&lastEventId=", Ok("a")),
        ("lastEventId=%", Err("lastEventId: '%' is not followed by two hexadecimal digits")),
    ] {
        check(query, from_body(query, br#"{"items":"a"}"#), expected);
    }
}

#[test]
fn a_body_names_storages() {
    check_bodies(&[
        (r#"{"items":"a"}"#, Ok("a")),
        (r#"{"items":"[a"}"#, Ok("[a")),
        (r#"{"items":{"id":"a","bloomFilter":"$F"}}"#, Ok("a|$F")),
        (r#"{"items":["b","a"]}"#, Ok("b a")),
        (
            r#" {"items" : [{"id":"a","bloomFilter":"$G"}, "b", {"after":5,"id":"c"}],
                 "after": "17.9f3a2c1d", "limit": 100} "#,
            Ok("a|$G b c@5; after=17.9f3a2c1d; oldest=100"),
        ),
        (r#"{"\u0069tems":"\u00e4\ud83d\ude00"}"#, Ok("ä😀")),
        (r#"{"items":"a","lastEventId":"5"}"#, Ok("a")),
        ("{}", Err("items: names no storage; 1 to 10000 are needed")),
        (r#"{"items":[]}"#, Err("items: names no storage; 1 to 10000 are needed")),
        (r#"{"id":"a"}"#, Err(r#"id: stands inside items in a body: {"items": {"id": "…"}}"#)),
        (
            r#"{"items":"a","bloomFilter":"$F"}"#,
            Err(r#"bloomFilter: stands inside items in a body: {"items": {"id": "…"}}"#),
        ),
        (
            r#"{"items":7}"#,
            Err("items: expected an identifier or an object with an id, or an array of those, \
                 got a number"),
        ),
        (
            r#"{"items":["a",["b"]]}"#,
            Err("items[1]: expected an identifier or an object with an id, got an array"),
        ),
        (r#"{"items":{"bloomFilter":"$F"}}"#, Err("items.id: is missing")),
        (r#"{"items":["a",{}]}"#, Err("items[1].id: is missing")),
        (r#"{"items":""}"#, Err("items: an identifier has at least 1 byte")),
        (
            r#"{"items":["a","\u0000"]}"#,
            Err("items[1]: an identifier has no control characters, this one has U+0000"),
        ),
        (r#"{"items":[{"id":"."}]}"#, Err("items[0].id: an identifier is not '.' or '..'")),
        (
            r#"{"items":["a","b",{"id":"c","bloomFilter":null}]}"#,
            Err("items[2].bloomFilter: expected a string, got null"),
        ),
        (r#"{"items":{"id":{}}}"#, Err("items.id: expected a string, got an object")),
        (
            r#"{"items":{"id":"a","after":null}}"#,
            Err("items.after: expected a cursor of the form SEQ or SEQ.EPOCH, got null"),
        ),
        (r#"{"items":{"id":"a","id":"a"}}"#, Err("items.id: stands twice")),
        (r#"{"items":"a","items":"a"}"#, Err("items: stands twice")),
    ]);
}

#[test]
fn a_body_says_where_to_start_and_how_much() {
    let limit = "limit: expected an integer from 1 to 10000";
    let after = "after: expected a cursor of the form SEQ or SEQ.EPOCH";
    let fraction = format!("{after}, got a number that is not written as an integer from 0");
    for (rest, expected) in [
        (r#""after":17"#, Ok("a; after=17")),
        (r#""after":"17""#, Ok("a; after=17")),
        (r#""after":"""#, Ok("a")),
        (r#""after":0,"limit":1"#, Ok("a; after=0; oldest=1")),
        (r#""after":99999999999999999999"#, Ok("a; after=18446744073709551615")),
        (r#""after":17.5"#, Err(fraction.as_str())),
        (r#""after":1e2"#, Err(fraction.as_str())),
        (
            r#""after":-1"#,
            Err("after: expected a cursor of the form SEQ or SEQ.EPOCH, got a negative number"),
        ),
        (r#""after":"x""#, Err(after)),
        (
            r#""after":true"#,
            Err("after: expected a cursor of the form SEQ or SEQ.EPOCH, got a boolean"),
        ),
        (r#""after":1,"x":0,"after":1"#, Err("after: stands twice")),
        (r#""limit":10000"#, Ok("a; oldest=10000")),
        (r#""limit":0"#, Err(limit)),
        (r#""limit":10001"#, Err(limit)),
        (r#""limit":4294967297"#, Err(limit)),
        (r#""limit":"5""#, Err("limit: expected an integer from 1 to 10000, got a string")),
        (r#""last":0"#, Ok("a; newest=0")),
        (r#""last":10001"#, Err("last: expected an integer from 0 to 10000")),
        (r#""last":null"#, Err("last: expected an integer from 0 to 10000, got null")),
        (r#""last":1,"limit":1"#, Err("last: cannot be combined with limit")),
        (r#""last":1,"after":"1""#, Err("last: cannot be combined with after")),
        (r#""last":1,"after":"""#, Ok("a; newest=1")),
    ] {
        let body = format!(r#"{{"items":"a",{rest}}}"#);
        check(&body, from_body("", body.as_bytes()), expected);
    }
    check_bodies(&[(
        r#"{"last":1,"items":["b",{"id":"a","after":1}]}"#,
        Err("last: cannot be combined with after"),
    )]);
}

#[test]
fn an_identifier_counts_once_or_is_refused() {
    let twice = "items[2]: this identifier stands twice, with another filter or cursor";
    check_bodies(&[
        (r#"{"items":["a","b","a"]}"#, Ok("a b")),
        (r#"{"items":["a","b",{"id":"a","after":""}]}"#, Ok("a b")),
        (r#"{"items":["b",{"id":"a","after":5},{"after":"5","id":"a"}]}"#, Ok("b a@5")),
        (
            r#"{"items":["b",{"id":"a","bloomFilter":"$F"},{"id":"a","bloomFilter":"$F"}]}"#,
            Ok("b a|$F"),
        ),
        (r#"{"items":["a","b",{"id":"a","after":5}]}"#, Err(twice)),
        (r#"{"items":["a","b",{"id":"a","bloomFilter":""}]}"#, Err(twice)),
        (
            r#"{"items":["b",{"id":"a","bloomFilter":"$F"},{"id":"a","bloomFilter":"$G"}]}"#,
            Err(twice),
        ),
    ]);
}

#[test]
fn a_request_has_so_many_storages_and_filters() {
    let array = |count: usize, item: &dyn Fn(usize) -> String| {
        let items: Vec<_> = (0..count).map(item).collect();
        format!(r#"{{"items":[{}]}}"#, items.join(","))
    };
    let plain = |n: usize| format!("\"{n}\"");
    let again = |n: usize| format!("\"{}\"", n % 10_000);
    let filtered = |n: usize| format!(r#"{{"id":"{n}","bloomFilter":"$F"}}"#);
    for (body, expected) in [
        (array(10_000, &plain), Ok(10_000)),
        (array(20_001, &again), Ok(10_000)),
        // Few are looked through otherwise than many.
        (array(12, &|n| format!("\"{}\"", n % 6)), Ok(6)),
        (array(10_001, &plain), Err("items[10000]: a request names at most 10000 storages")),
        (array(64, &filtered), Ok(64)),
        (array(65, &filtered), Err("items[64]: a request has at most 64 filters")),
        // Parsing stops at the limit: what follows is not even JSON.
        (
            array(10_001, &plain).replace(']', ",?"),
            Err("items[10000]: a request names at most 10000 storages"),
        ),
    ] {
        let selection = from_body("", samples::fill(&body).as_bytes());
        let result = selection.map(|selection| selection.items.len());
        assert_eq!(
            result.as_ref().map_err(|problem| problem.detail.as_str()),
            expected.as_ref().map_err(|e| *e)
        );
    }
    let indexed: String = (0..65).map(|n| format!("&items[{n}][id]={n}")).collect();
    let query =
        (0..65).map(|n| format!("&items[{n}][bloomFilter]=$F")).collect::<String>() + &indexed;
    let result = from_query(&samples::fill(&query));
    check(&query, result, Err("items[64]: a request has at most 64 filters"));
}

#[test]
fn a_filter_that_is_none_is_refused_where_it_stands() {
    check_queries(&[
        ("bloomFilter=$S%3D&id=a", Err("bloomFilter: base64url stands here without padding")),
        ("bloomFilter=$SAA&id=a", Err("bloomFilter: length 73 does not follow from size 4")),
        (
            "items[7][id]=a&items[7][bloomFilter]=AA",
            Err("items[7].bloomFilter: length 1 is less than the head's 24"),
        ),
        (
            r#"items=a&items=["b",{"id":"c","bloomFilter":"$FAAAA"}]"#,
            Err("items[1][1].bloomFilter: length 51 does not follow from size 1"),
        ),
    ]);
    check_bodies(&[
        (
            r#"{"items":{"bloomFilter":"","id":"a"}}"#,
            Err("items.bloomFilter: an empty filter is malformed"),
        ),
        (
            r#"{"items":["a",{"id":"b","bloomFilter":"$F"},{"id":"c","bloomFilter":"$SAA"}]}"#,
            Err("items[2].bloomFilter: length 73 does not follow from size 4"),
        ),
        // In the order of the request.
        (
            r#"{"items":[{"id":"b","bloomFilter":""},{"id":"a","bloomFilter":"AA"}]}"#,
            Err("items[0].bloomFilter: an empty filter is malformed"),
        ),
    ]);
}

#[test]
fn filters_are_decoded_when_all_else_was_found_right() {
    check_bodies(&[
        (
            r#"{"items":[{"id":"a","bloomFilter":""},{"id":"a","bloomFilter":"AA"}]}"#,
            Err("items[1]: this identifier stands twice, with another filter or cursor"),
        ),
        (
            r#"{"items":{"id":"a","bloomFilter":""},"last":1,"limit":1}"#,
            Err("last: cannot be combined with limit"),
        ),
        (
            r#"{"items":[{"id":"a","bloomFilter":""},{"id":"a","bloomFilter":""}]}"#,
            Err("items[0].bloomFilter: an empty filter is malformed"),
        ),
    ]);
}
