//! Owns how the items of a request come together: each identifier once, so many, and the filters
//! decoded last. Called by `get` and `bloom`, for bodies and for queries; what else an item may say
//! is theirs.

use std::collections::{BTreeMap, HashMap};

use serde::de::{MapAccess, SeqAccess};

use super::json::{Array, Fault, Object, Path, Shape};
use crate::config::SELECTION_FILTERS_MAX;
use crate::filter::Filter;
use crate::id::Id;
use crate::problem::Problem;

/// What is wrong with a key of a body that belongs into an item.
pub(super) const MISPLACED: &str = r#"stands inside items in a body: {"items": {"id": "…"}}"#;

/// An item, which comes without its filter and is given it once the whole request was read.
pub(super) trait Listed: PartialEq {
    const ITEMS_MAX: usize;
    /// What is wrong with one item more.
    const TOO_MANY: &str;
    /// What is wrong with an item whose identifier another one has.
    const TWICE: &str;

    /// None where the item is about no one storage.
    fn id(&self) -> Option<&Id>;

    /// The error is what is wrong with this filter in this item.
    fn set_filter(&mut self, filter: Filter) -> Result<(), String>;
}

/// An item, and the text of its filter.
pub(super) struct Undecoded<T> {
    pub(super) item: T,
    pub(super) filter: Option<FilterText>,
}

/// A filter as it was sent, and where, for the error that decoding it may give.
pub(super) struct FilterText {
    path: String,
    text: String,
}

impl FilterText {
    /// The parameter of a query, if it is there.
    pub(super) fn of(path: &Path<'_>, text: Option<&str>) -> Option<FilterText> {
        text.map(|text| FilterText { path: path.to_string(), text: text.to_owned() })
    }
}

/// So many are looked through one by one.
const FEW_ITEMS: usize = 4;

/// Items, each identifier once.
pub(super) struct Items<T> {
    list: Vec<T>,
    /// Where each identifier stands in `list`, where that holds more than a few.
    places: HashMap<Option<Id>, usize>,
    /// By the same place: not every item has one.
    filters: BTreeMap<usize, FilterText>,
}

impl<T: Listed> Items<T> {
    pub(super) fn new() -> Items<T> {
        Items { list: Vec::new(), places: HashMap::new(), filters: BTreeMap::new() }
    }

    /// An item that was named twice counts once.
    pub(super) fn add(&mut self, path: &Path<'_>, added: Undecoded<T>) -> Result<(), Problem> {
        let Undecoded { item, filter } = added;
        let place = self.list.len();
        if let Some(first) = self.place_of(item.id()) {
            let first_filter = self.filters.get(&first).map(|filter| &filter.text);
            if self.list[first] == item
                && first_filter == filter.as_ref().map(|filter| &filter.text)
            {
                return Ok(());
            }
            return Err(path.bad_request(T::TWICE));
        }
        if place == T::ITEMS_MAX {
            return Err(path.bad_request(T::TOO_MANY));
        }
        if let Some(filter) = filter {
            if self.filters.len() == SELECTION_FILTERS_MAX {
                let what = format_args!("a request has at most {SELECTION_FILTERS_MAX} filters");
                return Err(path.bad_request(what));
            }
            self.filters.insert(place, filter);
        }
        self.list.push(item);
        let unplaced = match place + 1 {
            ..=FEW_ITEMS => place..place,
            count if count == FEW_ITEMS + 1 => 0..count,
            count => place..count,
        };
        for place in unplaced {
            self.places.insert(self.list[place].id().cloned(), place);
        }
        Ok(())
    }

    fn place_of(&self, id: Option<&Id>) -> Option<usize> {
        if self.list.len() <= FEW_ITEMS {
            return self.list.iter().position(|item| item.id() == id);
        }
        self.places.get(&id.cloned()).copied()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The items, still without their filters.
    pub(super) fn list(&self) -> &[T] {
        &self.list
    }

    /// The items with their filters. Decoding costs more than all other checks together, so it
    /// stands after them.
    pub(super) fn decode(mut self) -> Result<Vec<T>, Problem> {
        for (place, FilterText { path, text }) in self.filters {
            let path = Path::Name(&path);
            let filter = Filter::decode(&text).map_err(|error| path.bad_request(error))?;
            self.list[place].set_filter(filter).map_err(|what| path.bad_request(what))?;
        }
        Ok(self.list)
    }
}

/// An identifier, wherever it was written.
pub(super) fn identifier(path: &Path<'_>, text: &str) -> Result<Id, Problem> {
    Id::new(text).map_err(|error| path.bad_request(error))
}

/// One item or an array of them, each of the shape given; they go into the list given.
pub(super) struct ItemsShape<'a, T, S>(pub(super) &'a mut Items<T>, pub(super) S);

impl<'de, T, S> Shape<'de> for ItemsShape<'_, T, S>
where
    T: Listed,
    S: Shape<'de, Value = Undecoded<T>> + Copy,
{
    type Value = ();

    fn expected(&self) -> String {
        format!("{}, or an array of those", self.1.expected())
    }

    fn string(self, path: &Path<'_>, text: &str) -> Result<(), Problem> {
        self.0.add(path, self.1.string(path, text)?)
    }

    fn object<A: MapAccess<'de>>(self, object: Object<'_, A>) -> Result<(), Fault<A::Error>> {
        let path = object.path;
        let item = self.1.object(object)?;
        Ok(self.0.add(&path, item)?)
    }

    fn array<A: SeqAccess<'de>>(self, mut array: Array<'_, A>) -> Result<(), Fault<A::Error>> {
        let mut index = 0;
        while let Some(item) = array.next(self.1)? {
            self.0.add(&Path::Index(&array.path, index), item)?;
            index += 1;
        }
        Ok(())
    }
}

pub(super) struct IdentifierShape;

impl Shape<'_> for IdentifierShape {
    type Value = Id;

    fn expected(&self) -> String {
        "a string".to_owned()
    }

    fn string(self, path: &Path<'_>, text: &str) -> Result<Id, Problem> {
        identifier(path, text)
    }
}

pub(super) struct FilterShape;

impl Shape<'_> for FilterShape {
    type Value = FilterText;

    fn expected(&self) -> String {
        "a string".to_owned()
    }

    fn string(self, path: &Path<'_>, text: &str) -> Result<FilterText, Problem> {
        Ok(FilterText { path: path.to_string(), text: text.to_owned() })
    }
}
