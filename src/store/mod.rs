//! Owns the seam between rill and whatever keeps its log: "append this batch, tell me its `seq`s"
//! and "what comes after `seq`". The writer calls `WriteLog`, each reader its own `ReadLog`, the
//! syncer `SyncLog`, the checkpointer `Checkpoint`; `sqlite` is the one that serves. Nothing here
//! knows of threads, clients or JSON.

use std::fmt;
use std::ops::ControlFlow;

use crate::event::{Hash, NewValue, Placed, Seq};
use crate::id::Id;

pub mod backup;
pub mod sqlite;

/// Values for one storage, to be committed together.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    pub id: &'a Id,
    pub values: &'a [NewValue],
}

/// What the metrics say of the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreGauges {
    pub last: Seq,
    /// Events that the indexes do not hold yet.
    pub unfolded: u64,
    pub segments: u64,
    pub wal_bytes: u64,
}

/// Whether a slice of upkeep left more to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upkeep {
    Done,
    /// What pays only where nothing was appended for long.
    AtRest,
    More,
}

/// The one writer's side of the log.
pub trait WriteLog: Send {
    /// The newest event's `seq`, 0 in an empty store.
    fn last(&self) -> Seq;

    /// Begins the transaction that appends what it is given.
    fn begin(&mut self) -> Result<Box<dyn Transaction + '_>, StoreError>;

    /// A little of the indexing that what was committed owes, in a transaction that the next append
    /// commits with its own; `upkeep` and `restart_log` commit it alone. False where nothing is owed
    /// before that.
    fn index_ahead(&mut self) -> Result<bool, StoreError>;

    /// One slice, of a few milliseconds, of the work that nobody waits for: indexing the log. After
    /// `index_ahead` the slice is its commit. What pays at rest only, it leaves unless that is so.
    fn upkeep(&mut self, at_rest: bool) -> Result<Upkeep, StoreError>;

    /// Whether a `Checkpoint::run` is wanted. True once until `restart_log` was called.
    fn checkpoint_due(&mut self) -> bool;

    /// How long `Checkpoint::lengthen` is to make the file of the write-ahead log, each length once.
    fn lengthening_due(&mut self) -> Option<u64>;

    /// Between two commits, after `Checkpoint::run` copied so much of the write-ahead log: copies the
    /// rest, so that the log starts over; where that would take long, another run is due instead.
    fn restart_log(&mut self, copied_bytes: u64) -> Result<(), StoreError>;

    /// Whether a run is under way for what was committed during the last: much that is committed
    /// now makes others wait for the restart.
    fn is_restarting(&self) -> bool;

    fn gauges(&self) -> StoreGauges;

    /// Closes the database, in one file if nobody else reads it.
    fn close(self: Box<Self>) -> Result<(), StoreError>;
}

/// What is to be stored together. Dropped before its commit, it leaves nothing behind; after an
/// error, too, all that can be done with it is that.
pub trait Transaction {
    /// Appends all batches: for every value of every batch, where it will stand. A value that its
    /// storage holds already, or that stands earlier in the transaction for the same storage, keeps
    /// its first `seq`.
    fn append(&mut self, batches: &[Batch<'_>]) -> Result<Vec<Box<[Placed]>>, StoreError>;

    /// Returns once views that begin see all of it, and the next call of `SyncLog::sync` makes it
    /// durable. After an error nothing of it is visible; all of it may be after the next start, unless
    /// the error is `Full`.
    fn commit(self: Box<Self>) -> Result<(), StoreError>;
}

/// Makes commits durable, on whatever thread, while others are made.
pub trait SyncLog: Send + Sync {
    /// Returns once all is durable that was committed before the call. Every error is fatal.
    fn sync(&self) -> Result<(), StoreError>;
}

/// Copies the write-ahead log into the database, on a thread of its own, and sees to its file.
pub trait Checkpoint: Send {
    /// How much of the log is copied then; commits may have made it longer meanwhile.
    fn run(&mut self) -> Result<u64, StoreError>;

    /// Makes the file of the log so long, ahead of what commits write to it, where there is room: a sync
    /// of a commit that makes it longer by itself takes longer. Every error is fatal.
    fn lengthen(&mut self, bytes: u64) -> Result<(), StoreError>;
}

/// What a storage holds up to a `seq`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    pub count: u64,
    /// The last event's `seq`, 0 where there is none.
    pub last: Seq,
}

/// A storage to be read, from past `after`.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    pub id: &'a Id,
    pub after: Seq,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    OldestFirst,
    NewestFirst,
}

/// An event found, before its value is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which of the sources it belongs to.
    pub source: usize,
    pub seq: Seq,
    pub hash: Hash,
}

/// One reader's side of the log. Every call between `begin` and `end` sees the same state, which
/// holds every event that was committed before `begin`.
pub trait ReadLog: Send {
    fn begin(&mut self) -> Result<(), StoreError>;

    /// Ends the view; called after errors too, and safe to call twice.
    fn end(&mut self);

    /// What the storage holds at or below `to`.
    fn survey(&self, id: &Id, to: Seq) -> Result<Survey, StoreError>;

    /// Visits the events of all sources with `after < seq <= to` in `seq` order over all of them,
    /// until the visitor breaks. Sources name different storages. Memory does not grow with the
    /// number of events, only with that of the sources.
    fn find(
        &self,
        sources: &[Source<'_>],
        to: Seq,
        direction: Direction,
        visit: &mut dyn FnMut(Found) -> ControlFlow<()>,
    ) -> Result<(), StoreError>;

    /// Visits every event with `after < seq <= to`, whatever its storage, in `seq` order, until the
    /// visitor breaks: its `seq`, its storage's identifier, its hash.
    fn scan(
        &self,
        after: Seq,
        to: Seq,
        direction: Direction,
        visit: &mut dyn FnMut(Seq, &str, Hash) -> ControlFlow<()>,
    ) -> Result<(), StoreError>;

    /// Visits the values at `seqs`, which rise and all exist, in that order, until the visitor
    /// breaks or one is longer than `bytes_max`, which costs nothing then; with each, its place in
    /// `seqs`. Returns how many went before that.
    fn values(
        &self,
        seqs: &[Seq],
        bytes_max: usize,
        visit: &mut dyn FnMut(usize, &str) -> ControlFlow<()>,
    ) -> Result<usize, StoreError>;
}

/// What can go wrong once a store is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// The disk is full; nothing was stored, and reads go on.
    Full(String),
    /// The store failed, and whether something was stored is not known; the next try may not fail.
    Failed(String),
    /// What the disk holds is no longer known (a failed sync). The process must end: reopening in
    /// it would read what the kernel only pretends to have written.
    Fatal(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Full(why) => write!(f, "the disk is full: {why}"),
            StoreError::Failed(why) => write!(f, "the store failed: {why}"),
            StoreError::Fatal(why) => write!(f, "the store can no longer be trusted: {why}"),
        }
    }
}

impl std::error::Error for StoreError {}
