//! What is a document and what is not, whatever is asked of it.

use super::*;

/// An object whose `known` is a text, which is what reading it gives.
struct Document;

impl<'de> Shape<'de> for Document {
    type Value = Option<String>;

    fn expected(&self) -> String {
        "an object".to_owned()
    }

    fn object<A: MapAccess<'de>>(
        self,
        mut object: Object<'_, A>,
    ) -> Result<Option<String>, Fault<A::Error>> {
        let mut known = None;
        while let Some(()) = object.next_key(&[("known", ())])? {
            known = Some(object.value(Text)?);
        }
        Ok(known)
    }
}

struct Text;

impl Shape<'_> for Text {
    type Value = String;

    fn expected(&self) -> String {
        "a string".to_owned()
    }

    fn string(self, _: &Path<'_>, text: &str) -> Result<String, Problem> {
        Ok(text.to_owned())
    }
}

fn check(document: &[u8], expected: Result<Option<&str>, &str>) {
    let result = read(Path::Body, document, Document).map_err(|problem| problem.detail);
    let seen = String::from_utf8_lossy(&document[..document.len().min(200)]);
    match expected {
        Ok(value) => assert_eq!(result, Ok(value.map(str::to_owned)), "{seen}"),
        // How the parser's own sentences go on is its affair.
        Err(detail) => {
            let found = result.expect_err(&seen);
            assert!(found.starts_with(detail), "{seen}: {found}");
        }
    }
}

#[test]
fn a_document_is_one_object_in_utf_8() {
    let deep = |levels: usize| {
        format!(r#"{{"x":{}{},"known":"k"}}"#, "[".repeat(levels), "]".repeat(levels))
    };
    let invalid = "body: invalid JSON: ";
    for (document, expected) in [
        (r#"{}"#, Ok(None)),
        (r#"{"known":"k"}"#, Ok(Some("k"))),
        ("\r\n\t {\"known\" : \"k\" } \n", Ok(Some("k"))),
        (r#"{"known":"a\u0000\n\"\\\/\u00e4\ud83d\ude00"}"#, Ok(Some("a\0\n\"\\/ä😀"))),
        (r#"{"\u006bnown":"k"}"#, Ok(Some("k"))),
        (r#"{"Known":1,"x":null,"y":[1,-2,3.5,true,{"known":2}],"x":"","":{}}"#, Ok(None)),
        (&deep(100), Ok(Some("k"))),
        (&deep(200), Err("body: invalid JSON: recursion limit exceeded")),
        (&"[".repeat(1 << 20), Err("body: expected an object, got an array")),
        (&r#"{"x":"#.repeat(1 << 20), Err("body: invalid JSON: recursion limit exceeded")),
        ("", Err("body: expected an object, got nothing")),
        (" ", Err(invalid)),
        ("null", Err("body: expected an object, got null")),
        ("true", Err("body: expected an object, got a boolean")),
        ("17", Err("body: expected an object, got a number")),
        ("-17", Err("body: expected an object, got a negative number")),
        ("1.5", Err("body: expected an object, got a number that is not")),
        (r#""known""#, Err("body: expected an object, got a string")),
        (r#"["known"]"#, Err("body: expected an object, got an array")),
        ("\u{feff}{}", Err("body: invalid JSON: begins with a byte order mark")),
        (r#"{"known":null}"#, Err("known: expected a string, got null")),
        (r#"{"known":"k","known":"k"}"#, Err("known: stands twice")),
        (r#"{"known":"k","\u006bnown":"k"}"#, Err("known: stands twice")),
        (r#"{"known":"\ud800"}"#, Err(invalid)),
        (r#"{"known":"\ud800\u0041"}"#, Err(invalid)),
        (r#"{"known":"\udc00"}"#, Err(invalid)),
        (r#"{"x":"\ud800"}"#, Err(invalid)),
        (r#"{"x":[{"\udc00":1}]}"#, Err(invalid)),
        (r#"{"\ud800":1}"#, Err(invalid)),
        (r#"{"known":"k"} {}"#, Err("body: invalid JSON: trailing characters at line 1 column 15")),
        (r#"{"known":"k"}x"#, Err("body: invalid JSON: trailing characters at line 1 column 14")),
        (r#"{"known":"k",}"#, Err("body: invalid JSON: trailing comma at line 1 column 14")),
        (r#"{"known":"k""#, Err("body: invalid JSON: EOF while parsing an object")),
        (r#"{"known":"k"#, Err("body: invalid JSON: EOF while parsing a string")),
        ("{\"known\":\"\n\"}", Err("body: invalid JSON: control character")),
        ("{\"known\":\"\0\"}", Err("body: invalid JSON: control character")),
        (r#"{"known":"\x"}"#, Err("body: invalid JSON: invalid escape")),
        (r#"{"known":"\u00g0"}"#, Err("body: invalid JSON: invalid escape")),
        (r#"{'known':'k'}"#, Err(invalid)),
        (r#"{known:1}"#, Err(invalid)),
        (r#"{"x":01}"#, Err(invalid)),
        (r#"{"x":+1}"#, Err(invalid)),
        (r#"{"x":NaN}"#, Err(invalid)),
        (r#"{"x":1 /**/}"#, Err(invalid)),
        (r#"{1:1}"#, Err(invalid)),
    ] {
        check(document.as_bytes(), expected);
    }
    check(b"{\"known\":\"\xff\"}", Err("body: is not UTF-8 from byte 10"));
    check(b"{\"x\":\"\xed\xa0\x80\"}", Err("body: is not UTF-8 from byte 6"));
    check(b"\xff\xfe{\0}\0", Err("body: is not UTF-8 from byte 0"));
}

#[test]
fn a_document_has_so_many_values() {
    // The object, its text, and what it ignores.
    let ignored = |unit: &str, units: usize| {
        format!(r#"{{"known":"k","x":[{}]}}"#, vec![unit; units].join(","))
    };
    let most = DOCUMENT_VALUES_MAX - 3;
    for (unit, values) in [("0", 1), ("[]", 1), (r#"{"a":"b"}"#, 2), (r#""a""#, 1), ("1e9", 1)] {
        check(ignored(unit, most / values).as_bytes(), Ok(Some("k")));
        let more = ignored(unit, most / values + 1);
        check(more.as_bytes(), Err("body: has more than 100000 values"));
    }
    let beside = format!(r#"{{"known":"k"{}}}"#, r#","b":0"#.repeat(DOCUMENT_VALUES_MAX - 1));
    check(beside.as_bytes(), Err("body: has more than 100000 values"));
    // What follows is not even JSON.
    let more = format!("{}?", ignored("0", most + 1));
    check(more.as_bytes(), Err("body: has more than 100000 values"));
}

#[test]
fn a_path_reads_as_a_client_would_write_it() {
    let items = Path::Key(&Path::Body, "items");
    let item = Path::Index(&items, 2);
    for (path, expected) in [
        (Path::Body, "body"),
        (Path::Name("after"), "after"),
        (items, "items"),
        (item, "items[2]"),
        (Path::Key(&item, "bloomFilter"), "items[2].bloomFilter"),
        (Path::Index(&Path::Index(&Path::Name("items"), 0), 1), "items[0][1]"),
    ] {
        assert_eq!(path.to_string(), expected);
    }
}
