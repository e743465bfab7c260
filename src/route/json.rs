//! Owns how a document of a client's is read: a shape says what may stand at a place, and reading
//! stops at the first thing that may not, with a problem that names the place. Called by `bloom`,
//! `get`, `items` and `set`. Builds no tree: what a shape does not keep is never held, so that hostile
//! input costs no more memory than its own length.

use std::cell::Cell;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::config::DOCUMENT_VALUES_MAX;
use crate::problem::Problem;

/// Where something stands in a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Path<'a> {
    Body,
    /// A parameter of the query, or a key of the body.
    Name(&'a str),
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl Path<'_> {
    pub(super) fn bad_request(&self, what: impl fmt::Display) -> Problem {
        Problem::bad_request(format!("{self}: {what}"))
    }

    fn mismatch(&self, expected: &str, got: &str) -> Problem {
        self.bad_request(format_args!("expected {expected}, got {got}"))
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Body => f.write_str("body"),
            Path::Name(name) | Path::Key(Path::Body, name) => f.write_str(name),
            Path::Key(parent, name) => write!(f, "{parent}.{name}"),
            Path::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// What may stand at a place, and what becomes of it. What a shape has no method for is refused.
pub(super) trait Shape<'de>: Sized {
    type Value;

    /// For the sentence "expected …, got …".
    fn expected(&self) -> String;

    fn string(self, path: &Path<'_>, text: &str) -> Result<Self::Value, Problem> {
        let _ = text;
        Err(path.mismatch(&self.expected(), "a string"))
    }

    /// An integer from 0; one above `u64::MAX` is given as that.
    fn natural(self, path: &Path<'_>, number: u64) -> Result<Self::Value, Problem> {
        let _ = number;
        Err(path.mismatch(&self.expected(), "a number"))
    }

    fn array<A: SeqAccess<'de>>(self, array: Array<'_, A>) -> Result<Self::Value, Fault<A::Error>> {
        Err(array.path.mismatch(&self.expected(), "an array").into())
    }

    fn object<A: MapAccess<'de>>(
        self,
        object: Object<'_, A>,
    ) -> Result<Self::Value, Fault<A::Error>> {
        Err(object.path.mismatch(&self.expected(), "an object").into())
    }
}

/// Why reading stopped.
#[derive(Debug)]
pub(super) enum Fault<E> {
    /// A shape refused what it was given.
    Refused(Problem),
    /// The parser's own error, or its way back from a refusal further in.
    Parser(E),
}

impl<E> From<Problem> for Fault<E> {
    fn from(problem: Problem) -> Fault<E> {
        Fault::Refused(problem)
    }
}

/// Reads one document, all of it.
pub(super) fn read<'de, S: Shape<'de>>(
    path: Path<'_>,
    document: &'de [u8],
    shape: S,
) -> Result<S::Value, Problem> {
    let text = std::str::from_utf8(document).map_err(|error| {
        path.bad_request(format_args!("is not UTF-8 from byte {}", error.valid_up_to()))
    })?;
    if text.is_empty() {
        return Err(path.mismatch(&shape.expected(), "nothing"));
    }
    if text.starts_with('\u{feff}') {
        return Err(path.bad_request("invalid JSON: begins with a byte order mark"));
    }
    let reading = Reading { document: path, values: Cell::new(0), refusal: Cell::new(None) };
    let mut parser = serde_json::Deserializer::from_str(text);
    let place = Place { path, reading: &reading, shape };
    place.deserialize(&mut parser).and_then(|value| parser.end().map(|()| value)).map_err(|error| {
        let refusal = reading.refusal.take();
        refusal.unwrap_or_else(|| path.bad_request(format_args!("invalid JSON: {error}")))
    })
}

/// One document, while it is read.
struct Reading<'a> {
    document: Path<'a>,
    /// So many were begun.
    values: Cell<usize>,
    /// serde's errors carry a text only, so a refusal goes past them.
    refusal: Cell<Option<Problem>>,
}

impl Reading<'_> {
    fn refuse<T, E: de::Error>(&self, problem: Problem) -> Result<T, E> {
        self.refusal.set(Some(problem));
        Err(E::custom("refused"))
    }

    fn settle<T, E: de::Error>(&self, result: Result<T, Fault<E>>) -> Result<T, E> {
        match result {
            Ok(value) => Ok(value),
            Err(Fault::Refused(problem)) => self.refuse(problem),
            Err(Fault::Parser(error)) => Err(error),
        }
    }

    /// Another value begins. Many small ones take long to read, whatever becomes of them.
    fn count<E: de::Error>(&self) -> Result<(), E> {
        if self.values.get() == DOCUMENT_VALUES_MAX {
            let what = format_args!("has more than {DOCUMENT_VALUES_MAX} values");
            return self.refuse(self.document.bad_request(what));
        }
        self.values.set(self.values.get() + 1);
        Ok(())
    }
}

/// A shape at its place.
struct Place<'a, S> {
    path: Path<'a>,
    reading: &'a Reading<'a>,
    shape: S,
}

impl<'de, S: Shape<'de>> Place<'_, S> {
    fn unexpected<E: de::Error>(self, got: &str) -> Result<S::Value, E> {
        self.reading.refuse(self.path.mismatch(&self.shape.expected(), got))
    }
}

impl<'de, S: Shape<'de>> DeserializeSeed<'de> for Place<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.reading.count()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de, S: Shape<'de>> Visitor<'de> for Place<'_, S> {
    type Value = S::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shape.expected())
    }

    fn visit_unit<E: de::Error>(self) -> Result<S::Value, E> {
        self.unexpected("null")
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<S::Value, E> {
        self.unexpected("a boolean")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<S::Value, E> {
        let Place { path, reading, shape } = self;
        reading.settle(shape.natural(&path, number).map_err(Fault::from))
    }

    /// serde_json calls this for negative integers only.
    fn visit_i64<E: de::Error>(self, _: i64) -> Result<S::Value, E> {
        self.unexpected("a negative number")
    }

    /// Integers too come here when they are above `u64::MAX`.
    fn visit_f64<E: de::Error>(self, number: f64) -> Result<S::Value, E> {
        if number >= u64::MAX as f64 {
            return self.visit_u64(u64::MAX);
        }
        self.unexpected("a number that is not written as an integer from 0")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<S::Value, E> {
        let Place { path, reading, shape } = self;
        reading.settle(shape.string(&path, text).map_err(Fault::from))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<S::Value, A::Error> {
        let Place { path, reading, shape } = self;
        reading.settle(shape.array(Array { path, reading, access, index: 0 }))
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<S::Value, A::Error> {
        let Place { path, reading, shape } = self;
        reading.settle(shape.object(Object { path, reading, access, seen: 0, key: "" }))
    }
}

/// An array, element by element.
pub(super) struct Array<'a, A> {
    pub(super) path: Path<'a>,
    reading: &'a Reading<'a>,
    access: A,
    index: usize,
}

impl<'de, A: SeqAccess<'de>> Array<'_, A> {
    pub(super) fn next<S: Shape<'de>>(
        &mut self,
        shape: S,
    ) -> Result<Option<S::Value>, Fault<A::Error>> {
        let path = Path::Index(&self.path, self.index);
        let place = Place { path, reading: self.reading, shape };
        self.index += 1;
        self.access.next_element_seed(place).map_err(Fault::Parser)
    }
}

/// An object, key by key.
pub(super) struct Object<'a, A> {
    pub(super) path: Path<'a>,
    reading: &'a Reading<'a>,
    access: A,
    /// A bit for each known key that was read.
    seen: u32,
    key: &'static str,
}

impl<'de, A: MapAccess<'de>> Object<'_, A> {
    /// The next key that is known; its `value` must be read before the next. Skips all others.
    pub(super) fn next_key<K: Copy>(
        &mut self,
        known: &[(&'static str, K)],
    ) -> Result<Option<K>, Fault<A::Error>> {
        while let Some(found) = self.access.next_key_seed(Known(known)).map_err(Fault::Parser)? {
            let Some(place) = found else {
                self.access.next_value_seed(Skip(self.reading)).map_err(Fault::Parser)?;
                continue;
            };
            let (name, key) = known[place];
            if self.seen & 1 << place != 0 {
                return Err(Path::Key(&self.path, name).bad_request("stands twice").into());
            }
            self.seen |= 1 << place;
            self.key = name;
            return Ok(Some(key));
        }
        Ok(None)
    }

    pub(super) fn value<S: Shape<'de>>(&mut self, shape: S) -> Result<S::Value, Fault<A::Error>> {
        let path = Path::Key(&self.path, self.key);
        let place = Place { path, reading: self.reading, shape };
        self.access.next_value_seed(place).map_err(Fault::Parser)
    }
}

/// A key, as its place among the known ones.
struct Known<'a, K>(&'a [(&'static str, K)]);

impl<'de, K> DeserializeSeed<'de> for Known<'_, K> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<Option<usize>, D::Error> {
        key.deserialize_str(self)
    }
}

impl<K> Visitor<'_> for Known<'_, K> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Option<usize>, E> {
        Ok(self.0.iter().position(|(name, _)| *name == text))
    }
}

/// Reads past a value and keeps nothing. serde's `IgnoredAny` does not look into what it ignores:
/// it takes lone surrogates and nesting of any depth, which are refused everywhere in a document.
struct Skip<'a>(&'a Reading<'a>);

impl<'de> DeserializeSeed<'de> for Skip<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.0.count()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Skip<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        while array.next_element_seed(Skip(self.0))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        while object.next_key_seed(Known::<()>(&[]))?.is_some() {
            object.next_value_seed(Skip(self.0))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
