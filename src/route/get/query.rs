//! Owns the query forms of a selection. Called by its parent. Parameters that it does not know are
//! ignored, whatever they contain.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::item::{self, ItemShape};
use super::{Draft, LAST_MIN, LIMIT_MIN, NEEDED, a_count, count};
use crate::problem::Problem;
use crate::route::items::{self, FilterText, Items, ItemsShape, Undecoded};
use crate::route::json::{self, Path};
use crate::route::{parameter, percent};
use crate::selection::{Item, Selection};

/// `GET /get`.
pub(in crate::route) fn from_query(query: &str) -> Result<Selection, Problem> {
    let parameters = Parameters::read(query)?;
    let draft = Draft {
        after: parameters
            .after
            .as_ref()
            .map_or(Ok(None), |text| item::cursor(&Path::Name("after"), text))?,
        limit: parse_count("limit", parameters.limit.as_deref(), LIMIT_MIN)?,
        last: parse_count("last", parameters.last.as_deref(), LAST_MIN)?,
        items: items(&parameters)?,
    };
    draft.select(non_empty(parameters.last_event_id))
}

/// What a reconnecting stream adds to its URL; the last one counts, as it was added last.
pub(super) fn last_event_id(query: &str) -> Result<Option<String>, Problem> {
    let mut found = None;
    for (name, value) in percent::parameters(query) {
        let Ok(name) = percent::decode_query(name) else { continue };
        if let Some(Name::LastEventId) = Name::of(&name) {
            found = Some(parameter::decode(&name, value)?);
        }
    }
    Ok(non_empty(found))
}

fn non_empty(text: Option<Cow<'_, str>>) -> Option<String> {
    text.filter(|text| !text.is_empty()).map(Cow::into_owned)
}

fn parse_count(name: &str, text: Option<&str>, min: u32) -> Result<Option<u32>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let path = Path::Name(name);
    let Some(number) = parameter::natural(text) else {
        return Err(path.bad_request(format_args!("expected {}", a_count(min))));
    };
    count(&path, number, min).map(Some)
}

/// A parameter that counts.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Name {
    Id,
    BloomFilter,
    After,
    Limit,
    Last,
    LastEventId,
    /// `items` and `items[]`.
    Items,
    /// `items[0][id]`.
    Indexed(u64, Field),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Field {
    Id,
    BloomFilter,
    After,
}

impl Name {
    fn of(text: &str) -> Option<Name> {
        match text {
            "id" => Some(Name::Id),
            "bloomFilter" => Some(Name::BloomFilter),
            "after" => Some(Name::After),
            "limit" => Some(Name::Limit),
            "last" => Some(Name::Last),
            "lastEventId" => Some(Name::LastEventId),
            "items" | "items[]" => Some(Name::Items),
            _ => Name::indexed(text),
        }
    }

    fn indexed(text: &str) -> Option<Name> {
        let (index, field) = text.strip_prefix("items[")?.strip_suffix(']')?.split_once("][")?;
        let field = match field {
            "id" => Field::Id,
            "bloomFilter" => Field::BloomFilter,
            "after" => Field::After,
            _ => return None,
        };
        if !index.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        Some(Name::Indexed(index.parse().ok()?, field))
    }
}

/// The parameters that count, decoded.
#[derive(Default)]
struct Parameters<'q> {
    id: Option<Cow<'q, str>>,
    filter: Option<Cow<'q, str>>,
    after: Option<Cow<'q, str>>,
    limit: Option<Cow<'q, str>>,
    last: Option<Cow<'q, str>>,
    last_event_id: Option<Cow<'q, str>>,
    items: Vec<Cow<'q, str>>,
    /// By index, which need not be without gaps.
    indexed: BTreeMap<u64, Indexed<'q>>,
}

#[derive(Default)]
struct Indexed<'q> {
    id: Option<Cow<'q, str>>,
    filter: Option<Cow<'q, str>>,
    after: Option<Cow<'q, str>>,
}

impl<'q> Parameters<'q> {
    fn read(query: &'q str) -> Result<Parameters<'q>, Problem> {
        let mut parameters = Parameters::default();
        for (name, value) in percent::parameters(query) {
            let Ok(text) = percent::decode_query(name) else { continue };
            let Some(name) = Name::of(&text) else { continue };
            let value = parameter::decode(&text, value)?;
            let once = match name {
                Name::Items => {
                    parameters.items.push(value);
                    continue;
                }
                Name::LastEventId => {
                    parameters.last_event_id = Some(value);
                    continue;
                }
                Name::Id => &mut parameters.id,
                Name::BloomFilter => &mut parameters.filter,
                Name::After => &mut parameters.after,
                Name::Limit => &mut parameters.limit,
                Name::Last => &mut parameters.last,
                Name::Indexed(index, field) => {
                    parameters.indexed.entry(index).or_default().field(field)
                }
            };
            parameter::put_once(once, &text, value)?;
        }
        Ok(parameters)
    }
}

impl<'q> Indexed<'q> {
    fn field(&mut self, field: Field) -> &mut Option<Cow<'q, str>> {
        match field {
            Field::Id => &mut self.id,
            Field::BloomFilter => &mut self.filter,
            Field::After => &mut self.after,
        }
    }

    fn item(&self, path: &Path<'_>) -> Result<Undecoded<Item>, Problem> {
        let id_path = Path::Key(path, "id");
        let id = self.id.as_deref().ok_or_else(|| id_path.bad_request("is missing"))?;
        let after = self.after.as_deref().unwrap_or_default();
        let item = Item {
            id: items::identifier(&id_path, id)?,
            after: item::cursor(&Path::Key(path, "after"), after)?,
            filter: None,
        };
        let filter_path = Path::Key(path, "bloomFilter");
        Ok(Undecoded { item, filter: FilterText::of(&filter_path, self.filter.as_deref()) })
    }
}

/// The storages, in the one form that the query chose.
fn items(parameters: &Parameters<'_>) -> Result<Items<Item>, Problem> {
    let refuse = |name, what: &str| Err(Path::Name(name).bad_request(what));
    let Parameters { id, filter, items, indexed, .. } = parameters;
    match (id, items.is_empty(), indexed.is_empty()) {
        (Some(id), true, true) => single(id, filter.as_deref()),
        (Some(_), ..) => refuse("id", "cannot be combined with items"),
        (None, true, true) => refuse("id", "is needed for one storage, or items for 1 to 10000"),
        (None, ..) if filter.is_some() => {
            refuse("bloomFilter", "stands inside an item, not beside items")
        }
        (None, false, true) => listed(items),
        (None, true, false) => by_index(indexed),
        (None, false, false) => refuse("items", "cannot be combined with items[0][id]"),
    }
}

fn single(id: &str, filter: Option<&str>) -> Result<Items<Item>, Problem> {
    let path = Path::Name("id");
    let item = Item { id: items::identifier(&path, id)?, after: None, filter: None };
    let filter = FilterText::of(&Path::Name("bloomFilter"), filter);
    let mut items = Items::new();
    items.add(&path, Undecoded { item, filter })?;
    Ok(items)
}

/// Identifiers, or JSON.
fn listed(values: &[Cow<'_, str>]) -> Result<Items<Item>, Problem> {
    let mut items = Items::new();
    let name = Path::Name("items");
    for (index, value) in values.iter().enumerate() {
        let path = if values.len() == 1 { name } else { Path::Index(&name, index) };
        if value.starts_with(['[', '{']) {
            json::read(path, value.as_bytes(), ItemsShape(&mut items, ItemShape))?;
        } else {
            let item = Item { id: items::identifier(&path, value)?, after: None, filter: None };
            items.add(&path, Undecoded { item, filter: None })?;
        }
    }
    if items.is_empty() {
        return Err(name.bad_request(NEEDED));
    }
    Ok(items)
}

fn by_index(indexed: &BTreeMap<u64, Indexed<'_>>) -> Result<Items<Item>, Problem> {
    let mut items = Items::new();
    for (&index, fields) in indexed {
        let name = format!("items[{index}]");
        let path = Path::Name(&name);
        items.add(&path, fields.item(&path)?)?;
    }
    Ok(items)
}
