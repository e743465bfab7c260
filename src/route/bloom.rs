//! Owns what `/bloom` asks for: the sets of events that a query or a body compares with the
//! server's. Called by the router. Finds no difference: the readers do.

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use serde::de::MapAccess;

use super::items::{
    self, FilterShape, FilterText, IdentifierShape, Items, ItemsShape, Listed, MISPLACED, Undecoded,
};
use super::json::{self, Fault, Object, Path, Shape};
use super::{parameter, percent};
use crate::config::COMPARE_ITEMS_MAX;
use crate::filter::Filter;
use crate::id::Id;
use crate::problem::Problem;
use crate::selection::CompareItem;

impl Listed for CompareItem {
    const ITEMS_MAX: usize = COMPARE_ITEMS_MAX;
    const TOO_MANY: &str = "a request compares at most 64 items";
    const TWICE: &str =
        "this identifier, or the whole server, stands twice, with another filter or count";

    fn id(&self) -> Option<&Id> {
        self.id.as_ref()
    }

    fn set_filter(&mut self, filter: Filter) -> Result<(), String> {
        let count = self.count.expect("an item is not taken with a filter and without a count");
        if count != filter.count() {
            return Err(format!("its head has the count {}, not {count}", filter.count()));
        }
        self.filter = Some(filter);
        Ok(())
    }
}

const NEEDED: &str = "names nothing to compare; 1 to 64 items are needed";
const _: () = assert!(COMPARE_ITEMS_MAX == 64, "the sentences above say so");

/// `POST /bloom`.
pub(super) fn from_body(body: &[u8]) -> Result<Vec<CompareItem>, Problem> {
    finish(json::read(Path::Body, body, Body)?)
}

/// `GET /bloom`: one item, or `items` as JSON. Parameters that it does not know are ignored.
pub(super) fn from_query(query: &str) -> Result<Vec<CompareItem>, Problem> {
    let parameters = Parameters::read(query)?;
    let mut items = Items::new();
    match &parameters.items {
        None => items.add(&Path::Name("id"), parameters.item()?)?,
        Some(document) => {
            parameters.refuse_beside_items()?;
            let shape = ItemsShape(&mut items, ItemShape);
            json::read(Path::Name("items"), document.as_bytes(), shape)?;
        }
    }
    finish(items)
}

fn finish(items: Items<CompareItem>) -> Result<Vec<CompareItem>, Problem> {
    if items.is_empty() {
        return Err(Path::Name("items").bad_request(NEEDED));
    }
    items.decode()
}

/// An item whose filter does not stand without a count, whose place is given.
fn item(
    count_path: &Path<'_>,
    id: Option<Id>,
    filter: Option<FilterText>,
    count: Option<u64>,
) -> Result<Undecoded<CompareItem>, Problem> {
    if filter.is_some() && count.is_none() {
        return Err(count_path.bad_request("is needed beside bloomFilter"));
    }
    Ok(Undecoded { item: CompareItem { id, filter: None, count }, filter })
}

/// The parameters that count, decoded.
#[derive(Default)]
struct Parameters<'q> {
    id: Option<Cow<'q, str>>,
    filter: Option<Cow<'q, str>>,
    count: Option<Cow<'q, str>>,
    items: Option<Cow<'q, str>>,
}

impl<'q> Parameters<'q> {
    fn read(query: &'q str) -> Result<Parameters<'q>, Problem> {
        let mut parameters = Parameters::default();
        for (name, value) in percent::parameters(query) {
            let Ok(name) = percent::decode_query(name) else { continue };
            let place = match &*name {
                "id" => &mut parameters.id,
                "bloomFilter" => &mut parameters.filter,
                "count" => &mut parameters.count,
                "items" => &mut parameters.items,
                _ => continue,
            };
            parameter::put_once(place, &name, parameter::decode(&name, value)?)?;
        }
        Ok(parameters)
    }

    fn item(&self) -> Result<Undecoded<CompareItem>, Problem> {
        let id = self.id.as_deref().map(|id| items::identifier(&Path::Name("id"), id));
        let path = Path::Name("count");
        let count = self.count.as_deref().map(|text| {
            parameter::natural(text)
                .ok_or_else(|| path.bad_request(format_args!("expected {COUNT}")))
        });
        let filter = FilterText::of(&Path::Name("bloomFilter"), self.filter.as_deref());
        item(&path, id.transpose()?, filter, count.transpose()?)
    }

    fn refuse_beside_items(&self) -> Result<(), Problem> {
        let Parameters { id, filter, count, items: _ } = self;
        for (name, value) in [("id", id), ("bloomFilter", filter), ("count", count)] {
            if value.is_some() {
                return Err(Path::Name(name).bad_request("cannot be combined with items"));
            }
        }
        Ok(())
    }
}

struct Body;

#[derive(Clone, Copy)]
enum BodyKey {
    Items,
    /// What a query may say of its one item, a body says inside `items`.
    Misplaced(&'static str),
}

const BODY_KEYS: [(&str, BodyKey); 4] = [
    ("items", BodyKey::Items),
    ("id", BodyKey::Misplaced("id")),
    ("bloomFilter", BodyKey::Misplaced("bloomFilter")),
    ("count", BodyKey::Misplaced("count")),
];

impl<'de> Shape<'de> for Body {
    type Value = Items<CompareItem>;

    fn expected(&self) -> String {
        "an object with items".to_owned()
    }

    fn object<A: MapAccess<'de>>(
        self,
        mut object: Object<'_, A>,
    ) -> Result<Items<CompareItem>, Fault<A::Error>> {
        let mut items = Items::new();
        while let Some(key) = object.next_key(&BODY_KEYS)? {
            match key {
                BodyKey::Items => object.value(ItemsShape(&mut items, ItemShape))?,
                BodyKey::Misplaced(name) => {
                    return Err(Path::Name(name).bad_request(MISPLACED).into());
                }
            }
        }
        Ok(items)
    }
}

/// `{"id": "a", "bloomFilter": "F", "count": 1200}`, of which nothing must be there.
#[derive(Clone, Copy)]
struct ItemShape;

#[derive(Clone, Copy)]
enum Key {
    Id,
    BloomFilter,
    Count,
}

const KEYS: [(&str, Key); 3] =
    [("id", Key::Id), ("bloomFilter", Key::BloomFilter), ("count", Key::Count)];

impl<'de> Shape<'de> for ItemShape {
    type Value = Undecoded<CompareItem>;

    fn expected(&self) -> String {
        "an object".to_owned()
    }

    fn object<A: MapAccess<'de>>(
        self,
        mut object: Object<'_, A>,
    ) -> Result<Undecoded<CompareItem>, Fault<A::Error>> {
        let (mut id, mut filter, mut count) = (None, None, None);
        while let Some(key) = object.next_key(&KEYS)? {
            match key {
                Key::Id => id = Some(object.value(IdentifierShape)?),
                Key::BloomFilter => filter = Some(object.value(FilterShape)?),
                Key::Count => count = Some(object.value(CountShape)?),
            }
        }
        Ok(item(&Path::Key(&object.path, "count"), id, filter, count)?)
    }
}

const COUNT: &str = "an integer from 0";

struct CountShape;

impl Shape<'_> for CountShape {
    type Value = u64;

    fn expected(&self) -> String {
        COUNT.to_owned()
    }

    fn natural(self, _: &Path<'_>, number: u64) -> Result<u64, Problem> {
        Ok(number)
    }
}
