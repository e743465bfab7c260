//! Owns the walk over storages' events in one segment or in the tail, and the merge of many walks
//! into one by `seq`. Called by the reader. A walk through a segment keeps a few blocks' events.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::ops::ControlFlow;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::block::{Entries, Malformed, Place, find_group, posting_key};
use super::error::corrupt;
use super::segment::Segment;
use crate::event::{Hash, Seq};
use crate::id::StorageKey;
use crate::store::{Direction, Found, StoreError};

/// What a walk is over: a storage's events with `after < seq <= to`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) source: usize,
    pub(super) storage: StorageKey,
    pub(super) after: Seq,
    pub(super) to: Seq,
}

/// A walk over one source's events in one direction.
pub(super) trait Cursor {
    fn source(&self) -> usize;
    fn head(&self) -> Option<(Seq, Hash)>;
    fn advance(&mut self) -> Result<(), StoreError>;
}

/// Visits what all cursors walk over, in the direction they walk.
pub(super) fn merge<C: Cursor>(
    cursors: &mut [C],
    direction: Direction,
    visit: &mut dyn FnMut(Found) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, StoreError> {
    let rank = |seq: Seq| match direction {
        Direction::OldestFirst => Reverse(seq),
        Direction::NewestFirst => Reverse(!seq),
    };
    let heads = cursors.iter().enumerate();
    let mut heap: BinaryHeap<(Reverse<Seq>, usize)> =
        heads.filter_map(|(at, cursor)| Some((rank(cursor.head()?.0), at))).collect();
    while let Some((_, at)) = heap.pop() {
        let cursor = &mut cursors[at];
        // As long as this one leads, the heap is left alone.
        while let Some((seq, hash)) = cursor.head() {
            if heap.peek().is_some_and(|(next, _)| *next > rank(seq)) {
                heap.push((rank(seq), at));
                break;
            }
            if visit(Found { source: cursor.source(), seq, hash }).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            cursor.advance()?;
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// The block that holds the storage's last event at or before `seq`, if any block does.
pub(super) fn floor_block<T>(
    conn: &Connection,
    segment: &Segment,
    storage: StorageKey,
    seq: Seq,
    read: impl FnOnce(i64, &[u8]) -> Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT block, data FROM posting WHERE segment = ?1 AND key <= ?2 \
         ORDER BY key DESC LIMIT 1",
    )?;
    let key = posting_key(storage, seq);
    let read = statement
        .query_row(params![segment.number, key], |row| {
            Ok(number_and_block(row).and_then(|(number, block)| read(number, block)))
        })
        .optional()?;
    read.transpose()
}

fn number_and_block<'a>(row: &'a Row<'_>) -> Result<(i64, &'a [u8]), StoreError> {
    Ok((row.get(0)?, row.get_ref(1)?.as_blob().map_err(|_| Malformed)?))
}

/// A walk through a segment.
pub(super) struct SegmentCursor<'a> {
    conn: &'a Connection,
    segment: Segment,
    wanted: Wanted,
    direction: Direction,
    /// How many blocks one query reads.
    blocks_read: usize,
    /// The events read and not visited.
    events: VecDeque<(Seq, Hash)>,
    /// The number of the block after which, in walking direction, the storage may go on.
    goes_on_after: Option<i64>,
}

impl<'a> SegmentCursor<'a> {
    pub(super) fn open(
        conn: &'a Connection,
        segment: Segment,
        wanted: Wanted,
        direction: Direction,
        blocks_read: usize,
    ) -> Result<SegmentCursor<'a>, StoreError> {
        let mut cursor = SegmentCursor {
            conn,
            segment,
            wanted,
            direction,
            blocks_read,
            events: VecDeque::new(),
            goes_on_after: None,
        };
        let start = match direction {
            Direction::OldestFirst => wanted.after.max(segment.first - 1) + 1,
            Direction::NewestFirst => wanted.to.min(segment.last),
        };
        let storage = wanted.storage;
        let found = floor_block(conn, &segment, storage, start, |number, block| {
            cursor.take(number, block)
        })?;
        if found.is_none() && direction == Direction::OldestFirst {
            cursor.goes_on_after = Some(segment.block_numbers().start - 1);
        }
        cursor.refill()?;
        Ok(cursor)
    }

    /// Takes the wanted events of a block, and notes whether the storage may go on.
    fn take(&mut self, number: i64, block: &[u8]) -> Result<(), StoreError> {
        let goes_on = match find_group(block, self.wanted.storage)? {
            Place::Here { group, ends } => {
                let reaches_end = self.take_entries(group.entries);
                match self.direction {
                    Direction::OldestFirst => !ends && !reaches_end,
                    Direction::NewestFirst => group.before > 0 && !reaches_end,
                }
            }
            Place::Passed => false,
            Place::Beyond => self.direction == Direction::OldestFirst,
        };
        self.goes_on_after = goes_on.then_some(number);
        Ok(())
    }

    /// Returns whether an event past the end of what is wanted was met.
    fn take_entries(&mut self, entries: Entries<'_>) -> bool {
        let Wanted { after, to, .. } = self.wanted;
        let first = self.segment.first;
        let events = entries.iter().map(|(offset, hash)| (first + Seq::from(offset), hash));
        let within = |(seq, _): &(Seq, Hash)| after < *seq && *seq <= to;
        let (head, tail) = (entries.iter().next(), entries.iter().next_back());
        match self.direction {
            Direction::OldestFirst => {
                self.events.extend(events.filter(within));
                tail.is_some_and(|(offset, _)| first + Seq::from(offset) >= to)
            }
            Direction::NewestFirst => {
                self.events.extend(events.rev().filter(within));
                head.is_some_and(|(offset, _)| first + Seq::from(offset) <= after + 1)
            }
        }
    }

    fn refill(&mut self) -> Result<(), StoreError> {
        while self.events.is_empty()
            && let Some(number) = self.goes_on_after.take()
        {
            let numbers = self.segment.block_numbers();
            let (sql, start, end) = match self.direction {
                Direction::OldestFirst => (
                    "SELECT block, data FROM posting WHERE block >= ?1 AND block < ?2 \
                     ORDER BY block LIMIT ?3",
                    number + 1,
                    numbers.end,
                ),
                Direction::NewestFirst => (
                    "SELECT block, data FROM posting WHERE block >= ?1 AND block < ?2 \
                     ORDER BY block DESC LIMIT ?3",
                    numbers.start,
                    number,
                ),
            };
            let mut statement = self.conn.prepare_cached(sql)?;
            let mut rows = statement.query(params![start, end, self.blocks_read as i64])?;
            while let Some(row) = rows.next()? {
                let (number, block) = number_and_block(row)?;
                self.take(number, block)?;
                if self.goes_on_after.is_none() {
                    break;
                }
            }
        }
        Ok(())
    }
}

impl Cursor for SegmentCursor<'_> {
    fn source(&self) -> usize {
        self.wanted.source
    }

    fn head(&self) -> Option<(Seq, Hash)> {
        self.events.front().copied()
    }

    fn advance(&mut self) -> Result<(), StoreError> {
        self.events.pop_front();
        self.refill()
    }
}

/// A walk through a storage's events in the tail.
pub(super) struct TailCursor<'a> {
    source: usize,
    events: std::collections::vec_deque::Iter<'a, (Seq, Hash)>,
    direction: Direction,
    head: Option<(Seq, Hash)>,
}

impl<'a> TailCursor<'a> {
    pub(super) fn open(
        events: &'a VecDeque<(Seq, Hash)>,
        wanted: Wanted,
        direction: Direction,
    ) -> TailCursor<'a> {
        let start = events.partition_point(|(seq, _)| *seq <= wanted.after);
        let end = events.partition_point(|(seq, _)| *seq <= wanted.to).max(start);
        let events = events.range(start..end);
        let mut cursor = TailCursor { source: wanted.source, events, direction, head: None };
        cursor.step();
        cursor
    }

    fn step(&mut self) {
        let event = match self.direction {
            Direction::OldestFirst => self.events.next(),
            Direction::NewestFirst => self.events.next_back(),
        };
        self.head = event.copied();
    }
}

impl Cursor for TailCursor<'_> {
    fn source(&self) -> usize {
        self.source
    }

    fn head(&self) -> Option<(Seq, Hash)> {
        self.head
    }

    fn advance(&mut self) -> Result<(), StoreError> {
        self.step();
        Ok(())
    }
}

/// How many of the storage's events up to `to` a segment holds, and the last of them.
pub(super) fn count(
    conn: &Connection,
    segment: &Segment,
    storage: StorageKey,
    to: Seq,
) -> Result<(u64, Option<Seq>), StoreError> {
    let counted = floor_block(conn, segment, storage, to.min(segment.last), |_, block| {
        let Place::Here { group, .. } = find_group(block, storage)? else { return Ok((0, None)) };
        let seqs = group.entries.iter().map(|(offset, _)| segment.first + Seq::from(offset));
        let (mut here, mut last) = (0, None);
        for seq in seqs.take_while(|seq| *seq <= to) {
            here += 1;
            last = Some(seq);
        }
        if last.is_none() && group.before > 0 {
            return Err(corrupt("a storage's postings are out of order"));
        }
        Ok((u64::from(group.before) + here, last))
    })?;
    Ok(counted.unwrap_or((0, None)))
}
