//! Owns the reading side of the log: one connection and the tail that trails the log with it. Called
//! by a reader thread through `ReadLog`. A view is one SQLite transaction, from `begin` to `end`.

use std::ops::ControlFlow;

use rusqlite::{Connection, params};

use super::cursor::{SegmentCursor, TailCursor, Wanted, count, merge};
use super::error::corrupt;
use super::for_each_in_log;
use super::segment::{Segment, last_change, list, sql};
use super::tail::Tail;
use super::values;
use crate::event::{Hash, Seq};
use crate::id::Id;
use crate::store::{Direction, Found, ReadLog, Source, StoreError, Survey};

/// Blocks that one query reads for all walks of a `find` together.
const BLOCKS_READ: usize = 4;
const MALFORMED: &str = "an event of the log is malformed";

pub(super) struct Reader {
    conn: Connection,
    segments: Vec<Segment>,
    /// The change that `segments` were read at.
    change: i64,
    tail: Tail,
}

impl Reader {
    pub(super) fn new(conn: Connection) -> Result<Reader, StoreError> {
        values::prepare(&conn)?;
        Ok(Reader { conn, segments: Vec::new(), change: 0, tail: Tail::after(0) })
    }

    /// Reads what was committed since the last view.
    fn catch_up(&mut self) -> Result<(), StoreError> {
        let change = last_change(&self.conn)?;
        if change != self.change {
            self.segments = list(&self.conn)?;
            self.tail.forget(self.segments.last().map_or(0, |segment| segment.last));
            self.change = change;
        }
        let tail = &mut self.tail;
        for_each_in_log(&self.conn, tail.last(), |storage, hash| tail.push(storage, hash))
    }

    /// Segment by segment, as each holds earlier events than the next, and the tail the latest.
    fn walk(
        &self,
        wanted: &[Wanted],
        after: Seq,
        to: Seq,
        direction: Direction,
        visit: &mut dyn FnMut(Found) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let overlaps = |segment: &&Segment| after < segment.last && segment.first <= to;
        let segments = self.segments.iter().filter(overlaps);
        match direction {
            Direction::OldestFirst => {
                for &segment in segments {
                    if self.find_in_segment(segment, wanted, direction, visit)?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                self.find_in_tail(wanted, direction, visit)
            }
            Direction::NewestFirst => {
                if self.find_in_tail(wanted, direction, visit)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                for &segment in segments.rev() {
                    if self.find_in_segment(segment, wanted, direction, visit)?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                Ok(ControlFlow::Continue(()))
            }
        }
    }

    fn find_in_segment(
        &self,
        segment: Segment,
        wanted: &[Wanted],
        direction: Direction,
        visit: &mut dyn FnMut(Found) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let blocks_read = (BLOCKS_READ / wanted.len().max(1)).max(1);
        let mut cursors = Vec::new();
        for &wanted in wanted.iter().filter(|wanted| wanted.after < segment.last) {
            let cursor = SegmentCursor::open(&self.conn, segment, wanted, direction, blocks_read)?;
            cursors.push(cursor);
        }
        merge(&mut cursors, direction, visit)
    }

    fn find_in_tail(
        &self,
        wanted: &[Wanted],
        direction: Direction,
        visit: &mut dyn FnMut(Found) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let walks = wanted.iter().filter_map(|&wanted| {
            Some(TailCursor::open(self.tail.events(wanted.storage)?, wanted, direction))
        });
        merge(&mut walks.collect::<Vec<_>>(), direction, visit)
    }
}

impl ReadLog for Reader {
    fn begin(&mut self) -> Result<(), StoreError> {
        self.end();
        self.conn.prepare_cached("BEGIN")?.execute([])?;
        self.catch_up()
    }

    fn end(&mut self) {
        if self.conn.is_autocommit() {
            return;
        }
        let ended = self.conn.prepare_cached("ROLLBACK").and_then(|mut end| end.execute([]));
        if let Err(error) = ended {
            log::error!("a read transaction could not be ended: {error}");
        }
    }

    fn survey(&self, id: &Id, to: Seq) -> Result<Survey, StoreError> {
        let storage = id.key();
        let mut survey = Survey::default();
        for segment in self.segments.iter().take_while(|segment| segment.first <= to) {
            let (events, last) = count(&self.conn, segment, storage, to)?;
            survey.count += events;
            survey.last = last.unwrap_or(survey.last);
        }
        if let Some(events) = self.tail.events(storage) {
            let events_to = events.partition_point(|(seq, _)| *seq <= to);
            survey.count += events_to as u64;
            survey.last = events_to.checked_sub(1).map_or(survey.last, |at| events[at].0);
        }
        Ok(survey)
    }

    fn find(
        &self,
        sources: &[Source<'_>],
        to: Seq,
        direction: Direction,
        visit: &mut dyn FnMut(Found) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let mut wanted = wanted(sources, to);
        // In the order of the index, so that seeks are near each other.
        wanted.sort_unstable_by_key(|wanted| wanted.storage);
        let Some(after) = wanted.iter().map(|wanted| wanted.after).min() else { return Ok(()) };
        self.walk(&wanted, after, to, direction, visit).map(drop)
    }

    fn scan(
        &self,
        after: Seq,
        to: Seq,
        direction: Direction,
        visit: &mut dyn FnMut(Seq, &str, Hash) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let mut statement = self.conn.prepare_cached(match direction {
            Direction::OldestFirst => {
                "SELECT seq, id, hash FROM log WHERE seq > ?1 AND seq <= ?2 ORDER BY seq"
            }
            Direction::NewestFirst => {
                "SELECT seq, id, hash FROM log WHERE seq > ?1 AND seq <= ?2 ORDER BY seq DESC"
            }
        })?;
        let mut rows = statement.query(params![sql(after), sql(to)])?;
        while let Some(row) = rows.next()? {
            let id = row.get_ref(1)?.as_str().map_err(|_| corrupt(MALFORMED))?;
            let hash = row.get_ref(2)?.as_blob().ok().and_then(|hash| hash.try_into().ok());
            let hash = Hash(hash.ok_or_else(|| corrupt(MALFORMED))?);
            if visit(row.get::<_, i64>(0)? as Seq, id, hash).is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn values(
        &self,
        seqs: &[Seq],
        bytes_max: usize,
        visit: &mut dyn FnMut(usize, &str) -> ControlFlow<()>,
    ) -> Result<usize, StoreError> {
        values::visit(&self.conn, seqs, bytes_max, visit)
    }
}

/// The sources that may have events up to `to`.
fn wanted(sources: &[Source<'_>], to: Seq) -> Vec<Wanted> {
    let live = sources.iter().enumerate().filter(|(_, source)| source.after < to);
    live.map(|(at, source)| Wanted {
        source: at,
        storage: source.id.key(),
        after: source.after,
        to,
    })
    .collect()
}
