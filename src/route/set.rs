//! Owns what `POST /set/:id` asks for: the identifier in the path, and the values in the body.
//! Called by the router. Whether a value is there already is the store's to say.

use serde::de::{MapAccess, SeqAccess};

use super::json::{self, Array, Fault, Object, Path, Shape};
use super::{Limits, percent};
use crate::config::VALUES_MAX;
use crate::event::{NewValue, NewValues};
use crate::id::Id;
use crate::problem::Problem;

/// The identifier that a path segment encodes.
pub(super) fn identifier(segment: &str) -> Result<Id, Problem> {
    let path = Path::Name("identifier");
    let text = percent::decode_segment(segment).map_err(|error| path.bad_request(error))?;
    Id::new(&text).map_err(|error| path.bad_request(error))
}

/// The values to append.
pub(super) fn from_body(body: &[u8], limits: &Limits) -> Result<NewValues, Problem> {
    json::read(Path::Body, body, Body { value: Value { bytes_max: limits.value_bytes_max } })
}

/// `{"value": …}` or `{"values": […]}`.
struct Body {
    value: Value,
}

#[derive(Clone, Copy)]
enum Key {
    Value,
    Values,
}

const KEYS: [(&str, Key); 2] = [("value", Key::Value), ("values", Key::Values)];

impl<'de> Shape<'de> for Body {
    type Value = NewValues;

    fn expected(&self) -> String {
        r#"{"value": "…"} or {"values": ["…", …]}"#.to_owned()
    }

    fn object<A: MapAccess<'de>>(
        self,
        mut object: Object<'_, A>,
    ) -> Result<Self::Value, Fault<A::Error>> {
        let mut read = None;
        while let Some(key) = object.next_key(&KEYS)? {
            if read.is_some() {
                return Err(object.path.bad_request("has both value and values").into());
            }
            read = Some(match key {
                Key::Value => NewValues::One(object.value(self.value)?),
                Key::Values => NewValues::List(object.value(Values { value: self.value })?),
            });
        }
        read.ok_or_else(|| {
            let what = format_args!("expected {}, got neither key", self.expected()).to_string();
            object.path.bad_request(what).into()
        })
    }
}

struct Values {
    value: Value,
}

impl<'de> Shape<'de> for Values {
    type Value = Vec<NewValue>;

    fn expected(&self) -> String {
        format!("an array of 1 to {VALUES_MAX} strings")
    }

    fn array<A: SeqAccess<'de>>(
        self,
        mut array: Array<'_, A>,
    ) -> Result<Vec<NewValue>, Fault<A::Error>> {
        let mut values = Vec::new();
        while let Some(value) = array.next(self.value)? {
            if values.len() == VALUES_MAX {
                let what = format!("expected {}, got more", self.expected());
                return Err(array.path.bad_request(what).into());
            }
            values.push(value);
        }
        if values.is_empty() {
            let what = format!("expected {}, got none", self.expected());
            return Err(array.path.bad_request(what).into());
        }
        Ok(values)
    }
}

#[derive(Clone, Copy)]
struct Value {
    bytes_max: usize,
}

impl Shape<'_> for Value {
    type Value = NewValue;

    fn expected(&self) -> String {
        "a string".to_owned()
    }

    fn string(self, path: &Path<'_>, text: &str) -> Result<NewValue, Problem> {
        if text.len() > self.bytes_max {
            let (bytes, bytes_max) = (text.len(), self.bytes_max);
            let detail = format!("{path}: a value has at most {bytes_max} bytes, not {bytes}");
            return Err(Problem::new(413, detail));
        }
        Ok(NewValue::new(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expected: Result<(&[&str], bool), (u16, &str)>) {
        let result = from_body(body.as_bytes(), &Limits { value_bytes_max: 4 });
        let expected = expected.map(|(values, is_list)| {
            let mut values = values.iter().map(|value| NewValue::new(*value));
            match is_list {
                true => NewValues::List(values.collect()),
                false => NewValues::One(values.next().expect("a value that is no list is one")),
            }
        });
        let result = result.map_err(|problem| (problem.status, problem.detail));
        let expected = expected.map_err(|(status, detail)| (status, detail.to_owned()));
        assert_eq!(result, expected, "{}", &body[..body.len().min(200)]);
    }

    #[test]
    fn a_body_holds_one_value_or_many() {
        let either = r#"body: expected {"value": "…"} or {"values": ["…", …]}, got "#;
        let got = |what: &str| format!("{either}{what}");
        check(r#"{"value":"a"}"#, Ok((&["a"], false)));
        check(r#"{"value":"","x":{"value":1}}"#, Ok((&[""], false)));
        check(r#"{"value":"\u0000ä"}"#, Ok((&["\0ä"], false)));
        check(r#"{"value":"😀"}"#, Ok((&["😀"], false)));
        check(r#"{"values":["a"]}"#, Ok((&["a"], true)));
        check(r#"{"values":["a","","a"]}"#, Ok((&["a", "", "a"], true)));
        for (body, detail) in [
            ("", got("nothing")),
            ("{}", got("neither key")),
            (r#"{"Value":"a"}"#, got("neither key")),
            (r#""a""#, got("a string")),
            (r#"["a"]"#, got("an array")),
        ] {
            check(body, Err((400, &detail)));
        }
    }

    #[test]
    fn a_body_that_holds_neither_is_refused() {
        for (body, detail) in [
            (r#"{"value":"a","values":["a"]}"#, "body: has both value and values"),
            (r#"{"values":["a"],"value":null}"#, "body: has both value and values"),
            (r#"{"value":"a","value":"a"}"#, "value: stands twice"),
            (r#"{"values":["a"],"values":["a"]}"#, "values: stands twice"),
            (r#"{"value":null}"#, "value: expected a string, got null"),
            (r#"{"value":["a"]}"#, "value: expected a string, got an array"),
            (r#"{"values":["a",{}]}"#, "values[1]: expected a string, got an object"),
            (r#"{"values":"a"}"#, "values: expected an array of 1 to 10000 strings, got a string"),
            (r#"{"values":[]}"#, "values: expected an array of 1 to 10000 strings, got none"),
            (r#"{"value":"a"]"#, "body: invalid JSON: expected `,` or `}` at line 1 column 13"),
        ] {
            check(body, Err((400, detail)));
        }
    }

    #[test]
    fn values_have_limits() {
        let body = |count: usize, rest: &str| {
            format!(r#"{{"values":[{}{rest}"#, vec![r#""a""#; count].join(","))
        };
        check(r#"{"value":"1234"}"#, Ok((&["1234"], false)));
        check(r#"{"value":"12345"}"#, Err((413, "value: a value has at most 4 bytes, not 5")));
        check(r#"{"value":"😀\n"}"#, Err((413, "value: a value has at most 4 bytes, not 5")));
        check(
            r#"{"values":["a","b","c","12345"]}"#,
            Err((413, "values[3]: a value has at most 4 bytes, not 5")),
        );
        check(&body(10_000, "]}"), Ok((&["a"; 10_000], true)));
        let more = "values: expected an array of 1 to 10000 strings, got more";
        check(&body(10_001, "]}"), Err((400, more)));
        // Parsing stops at the limit: what follows is not even JSON.
        check(&body(10_001, "?"), Err((400, more)));
    }
}
