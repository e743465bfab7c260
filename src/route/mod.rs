//! Owns the router: which request asks for what. `Request → Answer`, where an answer is plain data;
//! the hub turns it into effects. Knows nothing of sockets, threads or streams.

use crate::event::NewValue;
use crate::id::Id;
use crate::selection::Selection;

/// What a path names.
#[derive(Clone, Debug, PartialEq)]
pub enum Route {
    Page,
    Health,
    Metrics,
    Get,
    Set(Id),
    Bloom,
}

/// What a request asks for.
#[derive(Debug, PartialEq)]
pub enum Answer {
    Select(Selection),
    Append { id: Id, values: Vec<NewValue>, many: bool },
    Health,
    Metrics,
    Page,
}
