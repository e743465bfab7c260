//! Owns the router: which request asks for what. `Request → Answer`, where an answer is plain data;
//! the hub turns it into effects, and a reader thread calls `Route::answer` for large bodies. Knows
//! nothing of sockets, threads or streams.

mod bloom;
mod get;
mod items;
mod json;
mod page;
mod parameter;
mod percent;
#[cfg(test)]
mod samples;
mod set;

use crate::event::NewValues;
use crate::http::Method;
use crate::id::Id;
use crate::problem::Problem;
use crate::selection::{CompareItem, Selection};

pub use page::page;

/// What a path names.
#[derive(Clone, Debug, PartialEq)]
pub enum Route {
    Page,
    Health,
    Metrics,
    Get,
    Set(Id),
    Bloom,
}

/// What a request asks for.
#[derive(Debug, PartialEq)]
pub enum Answer {
    Select(Selection),
    Compare(Vec<CompareItem>),
    Append { id: Id, values: NewValues },
    Health,
    Metrics,
    Page,
}

/// The limits on a request's content that a person may set.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub value_bytes_max: usize,
}

/// Which route a request line names, so that a body for nobody is refused before it is read. The
/// path is still percent-encoded. HEAD counts as GET; OPTIONS is answered before a route is asked
/// for.
pub fn find(method: Method, path: &str) -> Result<Route, Problem> {
    match path {
        "/" => read_only(method).map(|()| Route::Page),
        "/healthz" => read_only(method).map(|()| Route::Health),
        "/metrics" => read_only(method).map(|()| Route::Metrics),
        "/get" => read_or_post(method).map(|()| Route::Get),
        "/bloom" => read_or_post(method).map(|()| Route::Bloom),
        _ => match path.strip_prefix("/set/") {
            Some(segment) if !segment.contains('/') => {
                post_only(method)?;
                set::identifier(segment).map(Route::Set)
            }
            _ => Err(Problem::new(404, "path: nothing is served here; GET / says what is")),
        },
    }
}

fn read_only(method: Method) -> Result<(), Problem> {
    match method {
        Method::Get | Method::Head => Ok(()),
        _ => Err(not_allowed("GET, HEAD, OPTIONS")),
    }
}

fn read_or_post(method: Method) -> Result<(), Problem> {
    match method {
        Method::Get | Method::Head | Method::Post => Ok(()),
        _ => Err(not_allowed("GET, HEAD, POST, OPTIONS")),
    }
}

fn post_only(method: Method) -> Result<(), Problem> {
    match method {
        Method::Post => Ok(()),
        _ => Err(not_allowed("POST, OPTIONS")),
    }
}

fn not_allowed(allow: &'static str) -> Problem {
    Problem::method_not_allowed(format!("method: this path takes {allow}"), allow)
}

impl Route {
    /// What the request asks for: `post` says whether its method is POST, `query` is what follows
    /// the `?`, still percent-encoded, and `body` is all of the body.
    pub fn answer(
        &self,
        post: bool,
        query: &str,
        body: &[u8],
        limits: &Limits,
    ) -> Result<Answer, Problem> {
        match self {
            Route::Page => Ok(Answer::Page),
            Route::Health => Ok(Answer::Health),
            Route::Metrics => Ok(Answer::Metrics),
            Route::Get if post => get::from_body(query, body).map(Answer::Select),
            Route::Get => get::from_query(query).map(Answer::Select),
            Route::Set(id) => {
                let values = set::from_body(body, limits)?;
                Ok(Answer::Append { id: id.clone(), values })
            }
            Route::Bloom if post => bloom::from_body(body).map(Answer::Compare),
            Route::Bloom => bloom::from_query(query).map(Answer::Compare),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::NewValue;

    const READ_ONLY: &str = "GET, HEAD, OPTIONS";
    const READ_OR_POST: &str = "GET, HEAD, POST, OPTIONS";
    const POST_ONLY: &str = "POST, OPTIONS";

    fn set(id: &str) -> Result<Route, (u16, &'static str)> {
        Ok(Route::Set(Id::new(id).expect("the tests' identifiers follow the rules")))
    }

    #[test]
    fn a_request_line_names_a_route() {
        use Method::{Get, Head, Options, Other, Post};
        let long = format!("/set/{}", "%61".repeat(512));
        let too_long = format!("/set/{}", "a".repeat(513));
        let a512 = "a".repeat(512);
        for (method, path, expected) in [
            (Get, "/", Ok(Route::Page)),
            (Head, "/", Ok(Route::Page)),
            (Post, "/", Err((405, READ_ONLY))),
            (Get, "/healthz", Ok(Route::Health)),
            (Other, "/healthz", Err((405, READ_ONLY))),
            (Head, "/metrics", Ok(Route::Metrics)),
            (Options, "/metrics", Err((405, READ_ONLY))),
            (Get, "/get", Ok(Route::Get)),
            (Head, "/get", Ok(Route::Get)),
            (Post, "/get", Ok(Route::Get)),
            (Other, "/get", Err((405, READ_OR_POST))),
            (Post, "/bloom", Ok(Route::Bloom)),
            (Head, "/bloom", Ok(Route::Bloom)),
            (Other, "/bloom", Err((405, READ_OR_POST))),
            (Post, "/set/a", set("a")),
            (Get, "/set/a", Err((405, POST_ONLY))),
            (Head, "/set/a", Err((405, POST_ONLY))),
            (Get, "/set/%zz", Err((405, POST_ONLY))),
            (Post, "/set/a+b%20c%2Fd%2f%C3%A4", set("a+b c/d/ä")),
            (Post, "/set/...", set("...")),
            (Post, &long, set(&a512)),
            (Post, &too_long, Err((400, ""))),
            (Post, "/set/", Err((400, ""))),
            (Post, "/set/%zz", Err((400, ""))),
            (Post, "/set/%C3", Err((400, ""))),
            (Post, "/set/%00", Err((400, ""))),
            (Post, "/set/.", Err((400, ""))),
            (Post, "/set/%2e%2E", Err((400, ""))),
            (Post, "/set", Err((404, ""))),
            (Post, "/set/a/b", Err((404, ""))),
            (Post, "/set/a/", Err((404, ""))),
            (Get, "/get/", Err((404, ""))),
            (Get, "//", Err((404, ""))),
            (Get, "/GET", Err((404, ""))),
            (Other, "/nowhere", Err((404, ""))),
        ] {
            let found = find(method, path).map_err(|problem| (problem.status, problem.allow));
            assert_eq!(found, expected, "{method:?} {path}");
        }
    }

    #[test]
    fn a_route_answers_with_what_is_asked_for() {
        let limits = Limits { value_bytes_max: 10 };
        let id = Id::new("a").expect("`a` follows the rules");
        let value = || NewValue::new("x");
        let compare = || {
            Answer::Compare(vec![CompareItem { id: Some(id.clone()), filter: None, count: None }])
        };
        for (route, post, query, body, expected) in [
            (Route::Page, false, "id=%", "", Ok(Answer::Page)),
            (Route::Health, false, "", "", Ok(Answer::Health)),
            (Route::Metrics, false, "", "", Ok(Answer::Metrics)),
            (
                Route::Set(id.clone()),
                true,
                "id=%",
                r#"{"value":"x"}"#,
                Ok(Answer::Append { id: id.clone(), values: NewValues::One(value()) }),
            ),
            (
                Route::Set(id.clone()),
                true,
                "",
                r#"{"values":["x"]}"#,
                Ok(Answer::Append { id: id.clone(), values: NewValues::List(vec![value()]) }),
            ),
            (Route::Set(id.clone()), true, "", r#"{"value":"12345678901"}"#, Err(413)),
            (Route::Get, true, "id=a", "", Err(400)),
            (Route::Get, false, "", r#"{"items":"a"}"#, Err(400)),
            (Route::Bloom, true, "id=a", "", Err(400)),
            (Route::Bloom, true, "id=b", r#"{"items":{"id":"a"}}"#, Ok(compare())),
            (Route::Bloom, false, "id=a", r#"{"items":{"id":"b"}}"#, Ok(compare())),
        ] {
            let answer = route.answer(post, query, body.as_bytes(), &limits);
            assert_eq!(answer.map_err(|problem| problem.status), expected, "{route:?} {query}");
        }
        for (post, query, body) in [(false, "id=a", ""), (true, "", r#"{"items":"a"}"#)] {
            let answer = Route::Get.answer(post, query, body.as_bytes(), &limits);
            let Ok(Answer::Select(selection)) = answer else { panic!("{answer:?}") };
            assert_eq!(selection.items[0].id, id);
        }
    }
}
