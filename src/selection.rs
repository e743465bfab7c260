//! Owns what a request reads, or compares. `route` builds it from a query or a body, the hub
//! resolves its cursors, the readers answer it. Plain data; says nothing of JSON or streams.

use crate::event::Cursor;
use crate::filter::Filter;
use crate::id::Id;

/// Storages, each with an optional filter, and where to start.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    /// In request order, no identifier twice, 1 to `SELECTION_STORAGES_MAX`.
    pub items: Vec<Item>,
    pub after: Option<Cursor>,
    pub window: Window,
    /// `lastEventId` of the query: a stream's cursor, kept as text because on a stream a malformed
    /// one is a reset, not an error.
    pub last_event_id: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    pub id: Id,
    /// Only events past this, where it is larger than the selection's own.
    pub after: Option<Cursor>,
    /// Leaves out the events that it contains.
    pub filter: Option<Filter>,
}

/// One of the sets of events that a client compares with the server's. A request has 1 to
/// `COMPARE_ITEMS_MAX` of them, none twice, and is answered in its order.
#[derive(Clone, Debug, PartialEq)]
pub struct CompareItem {
    /// The storage; without one it is the whole server.
    pub id: Option<Id>,
    /// What the client holds.
    pub filter: Option<Filter>,
    /// Beside a filter it is there, and is the filter's own.
    pub count: Option<u64>,
}

/// Which of the selected events are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    All,
    /// The so many oldest over all items.
    Oldest(u32),
    /// The so many newest over all items.
    Newest(u32),
}
