//! Owns what `/get` asks for: the selection that a query or a body describes. Called by the router.
//! Which cursor a stream goes by, and whether a cursor is valid, is decided later; here it must
//! only be well-formed.

mod item;
mod query;
#[cfg(test)]
mod tests;

use serde::de::MapAccess;

use self::item::{CursorShape, ItemShape};
use super::items::{Items, ItemsShape, MISPLACED};
use super::json::{self, Fault, Object, Path, Shape};
use crate::config::{SELECTION_STORAGES_MAX, WINDOW_EVENTS_MAX};
use crate::event::Cursor;
use crate::problem::Problem;
use crate::selection::{Item, Selection, Window};

pub(super) use query::from_query;

/// `POST /get`: the body is the selection. Of the query only `lastEventId` counts, which a
/// reconnecting stream adds.
pub(super) fn from_body(query: &str, body: &[u8]) -> Result<Selection, Problem> {
    let last_event_id = query::last_event_id(query)?;
    let draft = json::read(Path::Body, body, Body)?;
    if draft.items.is_empty() {
        return Err(Path::Name("items").bad_request(NEEDED));
    }
    draft.select(last_event_id)
}

const NEEDED: &str = "names no storage; 1 to 10000 are needed";
const _: () = assert!(SELECTION_STORAGES_MAX == 10_000, "the sentence above says so");

/// What was asked for, before it is known to fit together.
struct Draft {
    items: Items<Item>,
    after: Option<Cursor>,
    limit: Option<u32>,
    last: Option<u32>,
}

impl Draft {
    fn select(self, last_event_id: Option<String>) -> Result<Selection, Problem> {
        let window = match (self.limit, self.last) {
            (None, None) => Window::All,
            (Some(limit), None) => Window::Oldest(limit),
            (None, Some(last)) => Window::Newest(last),
            (Some(_), Some(_)) => {
                return Err(Path::Name("last").bad_request("cannot be combined with limit"));
            }
        };
        let after =
            self.after.is_some() || self.items.list().iter().any(|item| item.after.is_some());
        if after && self.last.is_some() {
            return Err(Path::Name("last").bad_request("cannot be combined with after"));
        }
        Ok(Selection { items: self.items.decode()?, after: self.after, window, last_event_id })
    }
}

/// A number of events, wherever it was written.
fn count(path: &Path<'_>, number: u64, min: u32) -> Result<u32, Problem> {
    match u32::try_from(number) {
        Ok(count) if (min..=WINDOW_EVENTS_MAX).contains(&count) => Ok(count),
        _ => Err(path.bad_request(format_args!("expected {}", a_count(min)))),
    }
}

fn a_count(min: u32) -> String {
    format!("an integer from {min} to {WINDOW_EVENTS_MAX}")
}

const LIMIT_MIN: u32 = 1;
const LAST_MIN: u32 = 0;

struct Body;

#[derive(Clone, Copy)]
enum Key {
    Items,
    After,
    Limit,
    Last,
    /// What a query may say of its one storage, a body says inside `items`.
    Misplaced(&'static str),
}

const KEYS: [(&str, Key); 6] = [
    ("items", Key::Items),
    ("after", Key::After),
    ("limit", Key::Limit),
    ("last", Key::Last),
    ("id", Key::Misplaced("id")),
    ("bloomFilter", Key::Misplaced("bloomFilter")),
];

impl<'de> Shape<'de> for Body {
    type Value = Draft;

    fn expected(&self) -> String {
        "an object with items".to_owned()
    }

    fn object<A: MapAccess<'de>>(
        self,
        mut object: Object<'_, A>,
    ) -> Result<Draft, Fault<A::Error>> {
        let mut items = Items::new();
        let (mut after, mut limit, mut last) = (None, None, None);
        while let Some(key) = object.next_key(&KEYS)? {
            match key {
                Key::Items => object.value(ItemsShape(&mut items, ItemShape))?,
                Key::After => after = object.value(CursorShape)?,
                Key::Limit => limit = Some(object.value(CountShape { min: LIMIT_MIN })?),
                Key::Last => last = Some(object.value(CountShape { min: LAST_MIN })?),
                Key::Misplaced(name) => {
                    return Err(Path::Name(name).bad_request(MISPLACED).into());
                }
            }
        }
        Ok(Draft { items, after, limit, last })
    }
}

struct CountShape {
    min: u32,
}

impl Shape<'_> for CountShape {
    type Value = u32;

    fn expected(&self) -> String {
        a_count(self.min)
    }

    fn natural(self, path: &Path<'_>, number: u64) -> Result<u32, Problem> {
        count(path, number, self.min)
    }
}
