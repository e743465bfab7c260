//! Owns the check of the routes: whatever a query or a body asks for is refused with a reason, or
//! understood; and what was understood, written down again, is understood as the same.

use rill::config::{SELECTION_FILTERS_MAX, SELECTION_STORAGES_MAX};
use rill::event::{Hash, NewValues};
use rill::filter::Filter;
use rill::http::{Method, write_problem_body};
use rill::problem::Problem;
use rill::route::{self, Answer, Limits, Route};
use rill::selection::{CompareItem, Item, Selection, Window};
use serde_json::{Map, Value, json};

use super::input::Input;

const LIMITS: Limits = Limits { value_bytes_max: 100 };

/// Which route and method, the length of the query, the query, the body.
pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.byte() % 5;
    let query_bytes = usize::from(input.u16());
    let query = input.text(query_bytes);
    let body = input.rest();
    let route = match kind {
        0 | 1 => Ok(Route::Get),
        2 | 3 => Ok(Route::Bloom),
        _ => route::find(Method::Post, &format!("/set/{query}")),
    };
    let post = kind % 2 == 1 || kind == 4;
    let answer = route.and_then(|route| {
        let answer = route.answer(post, &query, body, &LIMITS)?;
        Ok((route, answer))
    });
    match answer {
        Ok((route, answer)) => understood(&route, &answer),
        Err(problem) => refused(&problem),
    }
}

fn refused(problem: &Problem) {
    assert!(matches!(problem.status, 400 | 404 | 413), "{problem:?}");
    let body: Value = serde_json::from_slice(&write_problem_body(problem)).expect("JSON");
    assert_eq!(body["detail"], problem.detail);
    assert!(!problem.detail.is_empty(), "a refusal says why");
}

fn understood(route: &Route, answer: &Answer) {
    match answer {
        Answer::Select(selection) => {
            check_selection(selection);
            let last_event_id = selection.last_event_id.as_ref();
            let last_event_id =
                last_event_id.map(|id| format!("lastEventId={}", encode(id))).unwrap_or_default();
            let document = selection_document(selection);
            again(route, true, &last_event_id, &Value::Object(document.clone()), answer);
            let query = format!("{last_event_id}&{}", query_of(document));
            again(route, false, &query, &Value::Null, answer);
        }
        Answer::Compare(items) => {
            let items: Vec<Value> = items.iter().map(compare_document).collect();
            let document = Map::from_iter([("items".to_owned(), Value::Array(items))]);
            again(route, true, "", &Value::Object(document.clone()), answer);
            again(route, false, &query_of(document), &Value::Null, answer);
        }
        Answer::Append { values, .. } => {
            let texts: Vec<&str> = values.iter().map(|value| &*value.text).collect();
            assert!(!texts.is_empty());
            assert!(texts.iter().all(|text| text.len() <= LIMITS.value_bytes_max));
            assert!(values.iter().all(|value| value.hash == Hash::of(&value.text)));
            let document = match values {
                NewValues::One(value) => json!({ "value": value.text }),
                NewValues::List(_) => json!({ "values": texts }),
            };
            again(route, true, "", &document, answer);
        }
        Answer::Health | Answer::Metrics | Answer::Page => panic!("nobody asked for {answer:?}"),
    }
}

fn again(route: &Route, post: bool, query: &str, body: &Value, answer: &Answer) {
    let read = route.answer(post, query, body.to_string().as_bytes(), &LIMITS);
    assert_eq!(read.as_ref(), Ok(answer), "?{query} {body}");
}

fn check_selection(selection: &Selection) {
    let Selection { items, after, window, .. } = selection;
    assert!((1..=SELECTION_STORAGES_MAX).contains(&items.len()));
    assert!(items.iter().filter(|item| item.filter.is_some()).count() <= SELECTION_FILTERS_MAX);
    let cursors = after.is_some() || items.iter().any(|item| item.after.is_some());
    assert!(!(cursors && matches!(window, Window::Newest(_))), "the newest are after nothing");
}

fn selection_document(selection: &Selection) -> Map<String, Value> {
    let items = selection.items.iter().map(|Item { id, after, filter }| {
        let mut item = Map::from_iter([("id".to_owned(), id.as_str().into())]);
        put(&mut item, "after", after.map(|after| after.to_string().into()));
        put(&mut item, "bloomFilter", filter.as_ref().map(|filter| text_of(filter).into()));
        Value::Object(item)
    });
    let mut document = Map::from_iter([("items".to_owned(), Value::Array(items.collect()))]);
    put(&mut document, "after", selection.after.map(|after| after.to_string().into()));
    match selection.window {
        Window::All => {}
        Window::Oldest(limit) => put(&mut document, "limit", Some(limit.into())),
        Window::Newest(last) => put(&mut document, "last", Some(last.into())),
    }
    document
}

fn compare_document(item: &CompareItem) -> Value {
    let mut document = Map::new();
    put(&mut document, "id", item.id.as_ref().map(|id| id.as_str().into()));
    put(&mut document, "count", item.count.map(Value::from));
    put(&mut document, "bloomFilter", item.filter.as_ref().map(|filter| text_of(filter).into()));
    Value::Object(document)
}

fn put(object: &mut Map<String, Value>, key: &str, value: Option<Value>) {
    object.extend(value.map(|value| (key.to_owned(), value)));
}

fn text_of(filter: &Filter) -> String {
    match filter {
        Filter::InverseBloom(filter) => filter.encode(),
        Filter::Sketch(sketch) => sketch.encode(),
    }
}

/// A document as parameters: strings and numbers bare, the items as JSON.
fn query_of(document: Map<String, Value>) -> String {
    let parameters = document.into_iter().map(|(name, value)| match value {
        Value::String(text) => format!("{name}={}", encode(&text)),
        value => format!("{name}={}", encode(&value.to_string())),
    });
    parameters.collect::<Vec<String>>().join("&")
}

fn encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
