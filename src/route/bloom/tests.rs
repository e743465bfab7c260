//! The forms of a comparison, as tables: what a query or a body compares, or why it is refused.

use super::*;
use crate::route::samples;

/// `a|$F#3 *#5`: the storage or `*` for the whole server, the filter, the count.
fn describe(items: &[CompareItem]) -> String {
    let items = items.iter().map(|CompareItem { id, filter, count }| {
        let id = id.as_ref().map_or("*", Id::as_str);
        let filter = filter.as_ref().map_or(String::new(), |f| format!("|{}", samples::name(f)));
        format!("{id}{filter}{}", count.map_or(String::new(), |count| format!("#{count}")))
    });
    items.collect::<Vec<_>>().join(" ")
}

type Case<'a> = (&'a str, Result<&'a str, &'a str>);

fn check(from: impl Fn(&str) -> Result<Vec<CompareItem>, Problem>, cases: &[Case<'_>]) {
    for (input, expected) in cases {
        let result = match from(&samples::fill(input)) {
            Ok(items) => Ok(describe(&items)),
            Err(problem) => {
                assert_eq!((problem.status, problem.allow), (400, ""), "{input}");
                Err(problem.detail)
            }
        };
        assert_eq!(result.as_deref().map_err(String::as_str), *expected, "{input}");
    }
}

fn check_queries(cases: &[Case<'_>]) {
    check(from_query, cases);
}

fn check_bodies(cases: &[Case<'_>]) {
    check(|body| from_body(body.as_bytes()), cases);
}

#[test]
fn a_query_compares_one_storage_or_the_whole_server() {
    check_queries(&[
        ("", Ok("*")),
        ("id=a", Ok("a")),
        ("%69d=%61+%2B&", Ok("a +")),
        ("count=5&id=a", Ok("a#5")),
        ("count=0", Ok("*#0")),
        ("id=a&bloomFilter=$F&count=3", Ok("a|$F#3")),
        ("bloomFilter=$S&count=02", Ok("*|$S#2")),
        ("id=a&x=%&after=x&limit=0&items[]=b&items[0][id]=b&ID=b&%zz=1", Ok("a")),
        ("id=", Err("id: an identifier has at least 1 byte")),
        ("id=a&id=a", Err("id: stands twice")),
        ("id=%4", Err("id: '%' is not followed by two hexadecimal digits")),
        ("count=1&count=1", Err("count: stands twice")),
        ("bloomFilter=$F&bloomFilter=$F&count=3", Err("bloomFilter: stands twice")),
        ("bloomFilter=&count=3", Err("bloomFilter: an empty filter is malformed")),
        ("bloomFilter=$S%3d&count=2", Err("bloomFilter: base64url stands here without padding")),
    ]);
}

#[test]
fn items_of_a_query_are_json() {
    check_queries(&[
        (r#"items={}"#, Ok("*")),
        (r#"items={"id":"a","bloomFilter":"$F","count":3}"#, Ok("a|$F#3")),
        ("items=%5B%7B%22id%22:%22b%22%7D,%7B%22count%22:7%7D%5D", Ok("b *#7")),
        ("items=[]", Err("items: names nothing to compare; 1 to 64 items are needed")),
        ("items=", Err("items: expected an object, or an array of those, got nothing")),
        ("items=a", Err("items: invalid JSON: expected value at line 1 column 1")),
        (r#"items="a""#, Err("items: expected an object, got a string")),
        (r#"items=["a"]"#, Err("items[0]: expected an object, got a string")),
        ("items={}&items={}", Err("items: stands twice")),
        ("items={}&id=a", Err("id: cannot be combined with items")),
        ("items={}&bloomFilter=$F", Err("bloomFilter: cannot be combined with items")),
        ("count=1&items={}", Err("count: cannot be combined with items")),
    ]);
}

#[test]
fn a_body_compares_items() {
    let misplaced =
        |name| format!(r#"{name}: stands inside items in a body: {{"items": {{"id": "…"}}}}"#);
    check_bodies(&[
        (r#"{"items":{}}"#, Ok("*")),
        (r#"{"items":{"id":"a","bloomFilter":"$F","count":3},"after":{}}"#, Ok("a|$F#3")),
        (
            r#" {"items" : [{"count":2,"bloomFilter":"$S"}, {"id":"b","after":null}, {"id":"a","count":0}]} "#,
            Ok("*|$S#2 b a#0"),
        ),
        ("", Err("body: expected an object with items, got nothing")),
        ("[]", Err("body: expected an object with items, got an array")),
        ("{}", Err("items: names nothing to compare; 1 to 64 items are needed")),
        (r#"{"items":[]}"#, Err("items: names nothing to compare; 1 to 64 items are needed")),
        (r#"{"items":{},"items":{}}"#, Err("items: stands twice")),
        (r#"{"items":null}"#, Err("items: expected an object, or an array of those, got null")),
        (r#"{"items":"a"}"#, Err("items: expected an object, got a string")),
        (r#"{"items":[{},[]]}"#, Err("items[1]: expected an object, got an array")),
        (r#"{"items":[{"id":"."}]}"#, Err("items[0].id: an identifier is not '.' or '..'")),
        (r#"{"items":{"id":null}}"#, Err("items.id: expected a string, got null")),
        (r#"{"items":{"id":"a","id":"a"}}"#, Err("items.id: stands twice")),
        (r#"{"items":{"count":1,"count":1}}"#, Err("items.count: stands twice")),
        (
            r#"{"items":[{"bloomFilter":null,"count":3}]}"#,
            Err("items[0].bloomFilter: expected a string, got null"),
        ),
        (r#"{"id":"a"}"#, Err(&misplaced("id"))),
        (r#"{"items":{},"bloomFilter":"$F"}"#, Err(&misplaced("bloomFilter"))),
        (r#"{"count":1,"items":{}}"#, Err(&misplaced("count"))),
    ]);
}

#[test]
fn a_count_is_an_integer_and_the_filters_own() {
    let integer = "count: expected an integer from 0";
    check_queries(&[
        ("count=18446744073709551615", Ok("*#18446744073709551615")),
        ("count=99999999999999999999", Ok("*#18446744073709551615")),
        ("count=", Err(integer)),
        ("count=-1", Err(integer)),
        ("count=%2B1", Err(integer)),
        ("count=1.0", Err(integer)),
        ("bloomFilter=$F", Err("count: is needed beside bloomFilter")),
        ("bloomFilter=$F&count=2", Err("bloomFilter: its head has the count 3, not 2")),
        ("bloomFilter=$S&count=3", Err("bloomFilter: its head has the count 2, not 3")),
    ]);
    check_bodies(&[
        (r#"{"items":{"count":99999999999999999999}}"#, Ok("*#18446744073709551615")),
        (
            r#"{"items":{"count":"1"}}"#,
            Err("items.count: expected an integer from 0, got a string"),
        ),
        (
            r#"{"items":{"count":-1}}"#,
            Err("items.count: expected an integer from 0, got a negative number"),
        ),
        (r#"{"items":{"count":null}}"#, Err("items.count: expected an integer from 0, got null")),
        (
            r#"{"items":[{},{"id":"a","bloomFilter":"$F"}]}"#,
            Err("items[1].count: is needed beside bloomFilter"),
        ),
        (
            r#"{"items":[{},{"id":"a","bloomFilter":"$F","count":4}]}"#,
            Err("items[1].bloomFilter: its head has the count 3, not 4"),
        ),
    ]);
}

#[test]
fn what_is_compared_twice_counts_once_or_is_refused() {
    let twice = "items[1]: this identifier, or the whole server, stands twice, \
                 with another filter or count";
    check_bodies(&[
        (r#"{"items":[{},{"id":"a"},{},{"id":"a"}]}"#, Ok("* a")),
        (
            r#"{"items":[{"id":"a","bloomFilter":"$F","count":3},{"id":"b"},
                         {"count":3,"bloomFilter":"$F","id":"a"}]}"#,
            Ok("a|$F#3 b"),
        ),
        (r#"{"items":[{},{"count":1}]}"#, Err(twice)),
        (r#"{"items":[{"count":3},{"count":3,"bloomFilter":"$F"}]}"#, Err(twice)),
        (
            r#"{"items":[{"count":3,"bloomFilter":"$G"},{"count":3,"bloomFilter":"$F"}]}"#,
            Err(twice),
        ),
        (r#"{"items":[{"id":"a","count":2},{"id":"a","count":1}]}"#, Err(twice)),
        // Of neither filter it is asked whether it is one.
        (r#"{"items":[{"count":3,"bloomFilter":""},{"count":3,"bloomFilter":"AA"}]}"#, Err(twice)),
    ]);
}

#[test]
fn a_request_compares_so_many_items() {
    let array = |count: usize, distinct: usize| {
        let item = |n| format!(r#"{{"id":"{}","bloomFilter":"$F","count":3}}"#, n % distinct);
        let items: Vec<_> = (0..count).map(item).collect();
        samples::fill(&format!(r#"{{"items":[{}]}}"#, items.join(",")))
    };
    let more = "items[64]: a request compares at most 64 items";
    for (body, expected) in [
        (array(64, 64), Ok(64)),
        (array(130, 64), Ok(64)),
        (array(65, 65), Err(more)),
        // Parsing stops at the limit: what follows is not even JSON.
        (array(65, 65).replace(']', ",?"), Err(more)),
    ] {
        let result = from_body(body.as_bytes()).map(|items| items.len());
        assert_eq!(
            result.as_ref().map_err(|problem| problem.detail.as_str()),
            expected.as_ref().map_err(|e| *e)
        );
    }
}
