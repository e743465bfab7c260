//! Owns every message between the threads, on one page. The hub sends to the writer and to the
//! readers and counts what it sends: its credits bound the queues, so that no send waits. Every
//! request is answered exactly once, and its answer gives the credit back.
//!
//! ```text
//!           ToWriter                      FromWriter
//!   hub ───────────────▶ writer ────▶ syncer ────────▶ hub
//!           ToReader                      FromReader
//!   hub ───────────────▶ readers ────────────────────▶ hub
//!           ToCheckpointer                ToWriter::Checkpointed
//!   writer ────────────▶ checkpointer ───────────────▶ writer
//! ```
//!
//! The writer's notices go by way of the syncer (`ToSyncer`), which hands them on in order once what
//! they say was committed is durable.

use std::sync::Arc;
use std::time::Duration;

use crate::compare::Comparing;
use crate::config;
use crate::event::{NewValue, NewValues, Placed, Seq};
use crate::gather::Gathering;
use crate::held::Held;
use crate::hot::Encoded;
use crate::id::Id;
use crate::plan::{Prepared, Preparing, ReadPlan};
use crate::problem::Problem;
use crate::route::{Answer, Route};
use crate::store::{Found, Source, StoreError, StoreGauges};

/// A place in the subscriber index. Used again only after `Left` named it.
pub type Slot = u32;

/// Names one exchange of one connection; an answer that comes after the connection went names
/// nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    pub connection: u32,
    pub exchange: u32,
}

#[derive(Debug)]
pub enum ToWriter {
    Append(Append),
    /// Answered by `Joined`.
    Subscribe {
        slot: Slot,
        ids: Arc<[Id]>,
    },
    /// Answered by `Left`; follows the slot's `Subscribe`.
    Unsubscribe {
        slot: Slot,
    },
    /// Answered by `Pong`.
    Ping {
        token: Token,
    },
    /// From the checkpointer: how much of the write-ahead log is copied.
    Checkpointed(Result<u64, StoreError>),
    /// Nothing comes after this.
    Stop,
}

/// Values to append, committed together.
#[derive(Debug)]
pub struct Append {
    pub token: Token,
    pub id: Id,
    pub values: NewValues,
}

impl Append {
    /// What it holds in memory until it is answered, near enough.
    pub fn bytes(&self) -> usize {
        // Each value has an allocation of its own, and is given a place.
        const EACH: usize = size_of::<NewValue>() + size_of::<Placed>() + 32;
        self.values.iter().map(|value| value.text.len() + EACH).sum()
    }
}

#[derive(Debug)]
pub enum FromWriter {
    /// A commit is durable: the acknowledgements and the events in one.
    Committed(Commit),
    /// A commit failed; nothing of it is visible.
    Failed {
        appends: Vec<Append>,
        error: StoreError,
    },
    /// The published index holds the slot. Every event up to `last` was noticed before; every later
    /// one is noticed after.
    Joined {
        slot: Slot,
        last: Seq,
    },
    /// No published index holds the slot any more.
    Left {
        slot: Slot,
    },
    Pong {
        token: Token,
    },
    /// What the store says of itself where no commit does: there is nothing more to do, or the
    /// write-ahead log started over.
    Gauges(StoreGauges),
}

#[derive(Debug)]
pub struct Commit {
    /// In commit order: the new ones among `placed` rise by 1 from one to the next.
    pub appended: Vec<Appended>,
    /// The newest event there is.
    pub last: Seq,
    pub took: Duration,
    pub store: StoreGauges,
}

#[derive(Debug)]
pub struct Appended {
    pub append: Append,
    /// For each value of the append.
    pub placed: Box<[Placed]>,
}

#[derive(Debug)]
pub enum ToReader {
    /// A body too large to be parsed on the loop. Answered by `Parsed`.
    Parse { token: Token, route: Route, query: String, body: Vec<u8> },
    /// The first page of a JSON reply, at `to`. Answered by `Opened`.
    Open {
        token: Token,
        plan: Arc<ReadPlan>,
        to: Seq,
        /// No page is wanted where the entity tag would be made of one of these.
        unless: Vec<Seq>,
        /// Where the reply ends, if that was counted before.
        end: Option<Seq>,
    },
    /// The one storage of the plan whole, for the hot cache, at `to`; of a large one the first page, as
    /// above. Answered by `Filled`.
    Fill { token: Token, plan: Arc<ReadPlan>, to: Seq, unless: Vec<Seq> },
    /// A further page of it. Answered by `Paged`.
    Page { token: Token, page: NextPage },
    /// A slice of what a filtered read needs before its first page. Answered by `Prepared`.
    Prepare { asker: Asker, preparing: Box<Preparing> },
    /// Events of a stream, as frames. Answered by `Followed`; of a large selection by `Gathered`, until
    /// its events were found.
    Follow { slot: Slot, reading: Reading, from: From, to: Seq, gathering: Option<Box<Gathering>> },
}

/// Where a request waits while the readers have enough: what is soon done waits for nothing that
/// takes long, and no kind of what takes long for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// The first page of a few storages, which ends before an event that is longer than a page.
    First,
    /// What follows a first page.
    Page,
    /// What filters need.
    Scan,
    /// What large selections need, in slices, one begun selection before the next: what they hold
    /// meanwhile is held for few of them.
    Large,
    /// Bodies.
    Parse,
}

impl Lane {
    pub const COUNT: usize = 5;

    /// Of the first page of so many storages.
    fn of_first(storages: usize, filters: bool) -> Lane {
        match filters {
            _ if storages > config::PAGE_ITEMS_MAX => Lane::Large,
            true => Lane::Scan,
            false => Lane::First,
        }
    }
}

impl ToReader {
    pub fn lane(&self) -> Lane {
        match self {
            ToReader::Parse { .. } => Lane::Parse,
            ToReader::Fill { .. } => Lane::First,
            ToReader::Open { plan, .. } => Lane::of_first(plan.items.len(), plan.has_filters()),
            ToReader::Page { page: NextPage::Read { .. }, .. } => Lane::Page,
            ToReader::Page { page: NextPage::Compare(_), .. } => Lane::Scan,
            ToReader::Prepare { preparing, .. } if preparing.plan().needs_scans() => Lane::Scan,
            ToReader::Prepare { .. } => Lane::Large,
            ToReader::Follow { reading, .. } if reading.is_large() => Lane::Large,
            ToReader::Follow { reading, from: From::Plan | From::Live(_), .. } => {
                if reading.has_filters() { Lane::Scan } else { Lane::First }
            }
            ToReader::Follow { from: From::Opening(_) | From::Behind(_), .. } => Lane::Page,
        }
    }

    /// Whether it goes on with what was begun.
    pub fn is_begun(&self) -> bool {
        match self {
            ToReader::Prepare { preparing, .. } => preparing.is_begun(),
            ToReader::Follow { gathering, .. } => gathering.is_some(),
            ToReader::Page { .. } => true,
            ToReader::Parse { .. } | ToReader::Open { .. } | ToReader::Fill { .. } => false,
        }
    }
}

/// A page that is made when the one before it has left.
#[derive(Debug)]
pub enum NextPage {
    Read { plan: Arc<ReadPlan>, position: Position },
    Compare(Box<Comparing>),
}

/// Who waits for a preparation.
#[derive(Clone, Copy, Debug)]
pub enum Asker {
    Reply(Token),
    Stream(Slot),
}

/// What a stream reads.
#[derive(Clone, Debug)]
pub enum Reading {
    /// Its history, as its plan says.
    Opening(Arc<ReadPlan>),
    /// What came since, of its storages: all that an idle stream keeps.
    Following(Arc<[Id]>),
}

impl Reading {
    pub fn storages(&self) -> usize {
        match self {
            Reading::Opening(plan) => plan.items.len(),
            Reading::Following(ids) => ids.len(),
        }
    }

    pub fn is_large(&self) -> bool {
        self.storages() > config::PAGE_ITEMS_MAX
    }

    /// The storage at this place, past `floor` at least.
    pub fn source(&self, place: usize, floor: Seq) -> Source<'_> {
        match self {
            Reading::Opening(plan) => {
                let item = &plan.items[place];
                Source { id: &item.id, after: item.after.max(floor) }
            }
            Reading::Following(ids) => Source { id: &ids[place], after: floor },
        }
    }

    pub fn leaves_out(&self, found: &Found) -> bool {
        match self {
            Reading::Opening(plan) => plan.items[found.source].leaves_out(&found.hash),
            Reading::Following(_) => false,
        }
    }

    fn has_filters(&self) -> bool {
        matches!(self, Reading::Opening(plan) if plan.has_filters())
    }
}

/// Where a page of a stream starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// As the plan says. When the page reaches `to`, `synced` follows.
    Plan,
    /// Past this, on the way to `synced`.
    Opening(Seq),
    /// Past this, of all its storages, after `synced`: the first page for what it could not take.
    Live(Seq),
    /// The same, where that was more than a page.
    Behind(Seq),
}

impl From {
    /// Everything up to here was sent.
    pub fn floor(&self) -> Seq {
        match self {
            From::Plan => 0,
            From::Opening(cursor) | From::Live(cursor) | From::Behind(cursor) => *cursor,
        }
    }
}

/// How far a JSON reply was written: opaque to the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The item that is being written, and the last of its events that was.
    pub item: usize,
    pub after: Seq,
    /// Whether the item's head, and an event of it, were written.
    pub begun: bool,
    pub comma: bool,
    /// The events of the reply: `floor < seq <= to`.
    pub floor: Seq,
    pub to: Seq,
    /// The counts are those at `visible`.
    pub visible: Seq,
    /// What the reply ends with.
    pub cursor: Seq,
    pub more: bool,
}

/// The first page of a JSON reply.
#[derive(Debug)]
pub struct FirstPage {
    /// The last `seq` among all events of the storages: what the entity tag is made of.
    pub last: Seq,
    pub body: Vec<u8>,
    /// Where the next page starts; `None` when this is all.
    pub next: Option<NextPage>,
}

/// What came of a storage that was read for the hot cache.
#[derive(Debug)]
pub enum Filling {
    Whole(Encoded),
    /// It is larger than an entry may be: the first page of the reply.
    Large(FirstPage),
}

/// An answer, and the lane of what was asked.
#[derive(Debug)]
pub struct FromReader {
    pub lane: Lane,
    pub answer: Read,
}

#[derive(Debug)]
pub enum Read {
    Parsed {
        token: Token,
        /// Of the query, too.
        body_bytes: usize,
        answer: Result<Answer, Problem>,
    },
    Opened {
        token: Token,
        page: FirstPage,
    },
    Filled {
        token: Token,
        id: Id,
        filling: Result<Filling, StoreError>,
    },
    Paged {
        token: Token,
        body: Vec<u8>,
        next: Option<NextPage>,
    },
    /// Everything the stream selects is in `frames` up to `cursor`; `synced` says whether the event
    /// of that name ends them.
    Followed {
        slot: Slot,
        frames: Vec<u8>,
        cursor: Seq,
        synced: bool,
    },
    /// A slice of a page of many storages was looked for; `rest` is to be asked next.
    Gathered {
        slot: Slot,
        rest: Box<ToReader>,
    },
    Prepared {
        asker: Asker,
        prepared: Result<Prepared, StoreError>,
    },
    Failed {
        token: Token,
        error: StoreError,
    },
    FollowFailed {
        slot: Slot,
        error: StoreError,
    },
}

impl FromReader {
    /// What is to be sent of it.
    pub fn bytes(&self) -> usize {
        match &self.answer {
            Read::Opened { page, .. } => page.body.len(),
            Read::Paged { body, .. } => body.len(),
            Read::Followed { frames, .. } => frames.len(),
            Read::Filled { filling: Ok(Filling::Whole(events)), .. } => events.bytes(),
            Read::Filled { filling: Ok(Filling::Large(page)), .. } => page.body.len(),
            _ => 0,
        }
    }

    /// Whether the store failed.
    pub fn is_failure(&self) -> bool {
        matches!(
            &self.answer,
            Read::Failed { .. }
                | Read::FollowFailed { .. }
                | Read::Filled { filling: Err(_), .. }
                | Read::Prepared { prepared: Err(_), .. }
        )
    }
}

/// Notices of one step of the writer, to be told once what they say is committed is durable.
#[derive(Debug)]
pub struct ToSyncer {
    pub notices: Vec<FromWriter>,
    /// Dropped when they are told.
    pub untold: Held,
}

#[derive(Debug)]
pub enum ToCheckpointer {
    /// Answered by `Checkpointed`.
    Run,
    /// The file of the write-ahead log is to be so long. Answered only by an error, as by `Run`.
    Lengthen { bytes: u64 },
}
