//! Owns what an item of a selection may say. Called by its parent and by `query`. Does not ask
//! whether a cursor is valid; how items come together is `items`' business.

use serde::de::MapAccess;

use crate::config::SELECTION_STORAGES_MAX;
use crate::event::Cursor;
use crate::filter::Filter;
use crate::id::Id;
use crate::problem::Problem;
use crate::route::items::{self, FilterShape, IdentifierShape, Listed, Undecoded};
use crate::route::json::{Fault, Object, Path, Shape};
use crate::selection::Item;

impl Listed for Item {
    const ITEMS_MAX: usize = SELECTION_STORAGES_MAX;
    const TOO_MANY: &str = "a request names at most 10000 storages";
    const TWICE: &str = "this identifier stands twice, with another filter or cursor";

    fn id(&self) -> Option<&Id> {
        Some(&self.id)
    }

    fn set_filter(&mut self, filter: Filter) -> Result<(), String> {
        self.filter = Some(filter);
        Ok(())
    }
}

const _: () = assert!(SELECTION_STORAGES_MAX == 10_000, "the sentence above says so");

/// A cursor, wherever it was written; an empty one is absent.
pub(super) fn cursor(path: &Path<'_>, text: &str) -> Result<Option<Cursor>, Problem> {
    if text.is_empty() {
        return Ok(None);
    }
    let cursor = text.parse().map_err(|_| path.bad_request(format_args!("expected {CURSOR}")))?;
    Ok(Some(cursor))
}

const CURSOR: &str = "a cursor of the form SEQ or SEQ.EPOCH";

/// `"a"` or `{"id": "a", "bloomFilter": "F", "after": "17.9f3a2c1d"}`.
#[derive(Clone, Copy)]
pub(super) struct ItemShape;

#[derive(Clone, Copy)]
enum Key {
    Id,
    BloomFilter,
    After,
}

const KEYS: [(&str, Key); 3] =
    [("id", Key::Id), ("bloomFilter", Key::BloomFilter), ("after", Key::After)];

impl<'de> Shape<'de> for ItemShape {
    type Value = Undecoded<Item>;

    fn expected(&self) -> String {
        "an identifier or an object with an id".to_owned()
    }

    fn string(self, path: &Path<'_>, text: &str) -> Result<Undecoded<Item>, Problem> {
        let item = Item { id: items::identifier(path, text)?, after: None, filter: None };
        Ok(Undecoded { item, filter: None })
    }

    fn object<A: MapAccess<'de>>(
        self,
        mut object: Object<'_, A>,
    ) -> Result<Undecoded<Item>, Fault<A::Error>> {
        let (mut id, mut filter, mut after) = (None, None, None);
        while let Some(key) = object.next_key(&KEYS)? {
            match key {
                Key::Id => id = Some(object.value(IdentifierShape)?),
                Key::BloomFilter => filter = Some(object.value(FilterShape)?),
                Key::After => after = object.value(CursorShape)?,
            }
        }
        match id {
            Some(id) => Ok(Undecoded { item: Item { id, after, filter: None }, filter }),
            None => Err(Path::Key(&object.path, "id").bad_request("is missing").into()),
        }
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
