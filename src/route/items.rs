//! Owns the items of a selection: what each may say, in JSON, and how they come together. Called by
//! `get`, for bodies and for queries. Does not look into filters or ask whether a cursor is valid.

use std::collections::HashMap;

use serde::de::{MapAccess, SeqAccess};

use super::json::{Array, Fault, Object, Path, Shape};
use crate::config::{SELECTION_FILTERS_MAX, SELECTION_STORAGES_MAX};
use crate::event::Cursor;
use crate::id::Id;
use crate::problem::Problem;
use crate::selection::Item;

/// Items, each identifier once.
#[derive(Default)]
pub(super) struct Items {
    list: Vec<Item>,
    /// Where each identifier stands in `list`.
    places: HashMap<Id, usize>,
    filters: usize,
}

impl Items {
    /// An item that was named twice counts once.
    pub(super) fn add(&mut self, path: &Path<'_>, item: Item) -> Result<(), Problem> {
        if let Some(&place) = self.places.get(&item.id) {
            if self.list[place] == item {
                return Ok(());
            }
            let what = "this identifier stands twice, with another filter or cursor";
            return Err(path.bad_request(what));
        }
        if self.list.len() == SELECTION_STORAGES_MAX {
            let what = format!("a request names at most {SELECTION_STORAGES_MAX} storages");
            return Err(path.bad_request(what));
        }
        if item.filter.is_some() {
            if self.filters == SELECTION_FILTERS_MAX {
                let what = format!("a request has at most {SELECTION_FILTERS_MAX} filters");
                return Err(path.bad_request(what));
            }
            self.filters += 1;
        }
        self.places.insert(item.id.clone(), self.list.len());
        self.list.push(item);
        Ok(())
    }

    pub(super) fn into_list(self) -> Vec<Item> {
        self.list
    }
}

/// An identifier, wherever it was written.
pub(super) fn identifier(path: &Path<'_>, text: &str) -> Result<Id, Problem> {
    Id::new(text).map_err(|error| path.bad_request(error))
}

/// A cursor, wherever it was written; an empty one is absent.
pub(super) fn cursor(path: &Path<'_>, text: &str) -> Result<Option<Cursor>, Problem> {
    if text.is_empty() {
        return Ok(None);
    }
    let cursor = text.parse().map_err(|_| path.bad_request(format_args!("expected {CURSOR}")))?;
    Ok(Some(cursor))
}

const CURSOR: &str = "a cursor of the form SEQ or SEQ.EPOCH";

/// One item or an array of them; they go into the list given.
pub(super) struct ItemsShape<'a>(pub(super) &'a mut Items);

impl<'de> Shape<'de> for ItemsShape<'_> {
    type Value = ();

    fn expected(&self) -> String {
        "an identifier, an object with an id, or an array of those".to_owned()
    }

    fn string(self, path: &Path<'_>, text: &str) -> Result<(), Problem> {
        self.0.add(path, ItemShape.string(path, text)?)
    }

    fn object<A: MapAccess<'de>>(self, object: Object<'_, A>) -> Result<(), Fault<A::Error>> {
        let path = object.path;
        let item = ItemShape.object(object)?;
        Ok(self.0.add(&path, item)?)
    }

    fn array<A: SeqAccess<'de>>(self, mut array: Array<'_, A>) -> Result<(), Fault<A::Error>> {
        let mut index = 0;
        while let Some(item) = array.next(ItemShape)? {
            self.0.add(&Path::Index(&array.path, index), item)?;
            index += 1;
        }
        Ok(())
    }
}

/// `"a"` or `{"id": "a", "bloomFilter": "F", "after": "17.9f3a2c1d"}`.
struct ItemShape;

#[derive(Clone, Copy)]
enum Key {
    Id,
    BloomFilter,
    After,
}

const KEYS: [(&str, Key); 3] =
    [("id", Key::Id), ("bloomFilter", Key::BloomFilter), ("after", Key::After)];

impl<'de> Shape<'de> for ItemShape {
    type Value = Item;

    fn expected(&self) -> String {
        "an identifier or an object with an id".to_owned()
    }

    fn string(self, path: &Path<'_>, text: &str) -> Result<Item, Problem> {
        Ok(Item { id: identifier(path, text)?, after: None, filter: None })
    }

    fn object<A: MapAccess<'de>>(self, mut object: Object<'_, A>) -> Result<Item, Fault<A::Error>> {
        let (mut id, mut filter, mut after) = (None, None, None);
        while let Some(key) = object.next_key(&KEYS)? {
            match key {
                Key::Id => id = Some(object.value(IdentifierShape)?),
                Key::BloomFilter => filter = Some(object.value(FilterShape)?),
                Key::After => after = object.value(CursorShape)?,
            }
        }
        match id {
            Some(id) => Ok(Item { id, after, filter }),
            None => Err(Path::Key(&object.path, "id").bad_request("is missing").into()),
        }
    }
}

struct IdentifierShape;

impl Shape<'_> for IdentifierShape {
    type Value = Id;

    fn expected(&self) -> String {
        "a string".to_owned()
    }

    fn string(self, path: &Path<'_>, text: &str) -> Result<Id, Problem> {
        identifier(path, text)
    }
}

struct FilterShape;

impl Shape<'_> for FilterShape {
    type Value = String;

    fn expected(&self) -> String {
        "a string".to_owned()
    }

    fn string(self, _: &Path<'_>, text: &str) -> Result<String, Problem> {
        Ok(text.to_owned())
    }
}

/// A cursor; a bare SEQ may be a number.
pub(super) struct CursorShape;

impl Shape<'_> for CursorShape {
    type Value = Option<Cursor>;

    fn expected(&self) -> String {
        CURSOR.to_owned()
    }

    fn string(self, path: &Path<'_>, text: &str) -> Result<Option<Cursor>, Problem> {
        cursor(path, text)
    }

    fn natural(self, _: &Path<'_>, seq: u64) -> Result<Option<Cursor>, Problem> {
        Ok(Some(Cursor { seq, epoch: None }))
    }
}
