//! Owns the merge: making one segment out of consecutive ones, a few events at a time, inside
//! transactions that its caller opens. Called by `upkeep`. Reads the blocks of its inputs in order
//! and keeps a few of each in memory, however large they are. Until it is finished and committed it
//! can be dropped at any moment, and only leaves garbage.

use std::collections::VecDeque;

use rusqlite::{Connection, params};

use super::block::{Malformed, digests, first_group};
use super::bloom::Bloom;
use super::segment::{Segment, SegmentWriter, delete_row};
use crate::event::{Hash, Seq};
use crate::id::StorageKey;
use crate::store::StoreError;

/// Blocks of an input that one query reads.
const BLOCKS_READ: i64 = 8;

#[derive(Debug)]
pub(super) struct Merge {
    segments: Vec<Segment>,
    writer: SegmentWriter,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Postings(Vec<Input<Posting>>),
    Digests(Vec<Input<Digest>>),
}

impl Merge {
    /// `segments` are consecutive; `merged` is what they become.
    pub(super) fn new(segments: Vec<Segment>, merged: Segment) -> Merge {
        let inputs = segments.iter().map(Input::new).collect();
        Merge { segments, writer: SegmentWriter::new(merged), stage: Stage::Postings(inputs) }
    }

    pub(super) fn segment(&self) -> Segment {
        self.writer.segment()
    }

    /// Writes up to `units` events, each of which is two: a posting and a digest. Returns how many
    /// are left of `units`: none until the merge has nothing left to write.
    pub(super) fn work(
        &mut self,
        conn: &Connection,
        mut units: usize,
    ) -> Result<usize, StoreError> {
        while units > 0 {
            match &mut self.stage {
                Stage::Postings(inputs) => match take_least(conn, inputs)? {
                    Some((storage, seq, hash)) => self.writer.posting(conn, storage, seq, &hash)?,
                    None => {
                        let inputs = self.segments.iter().map(Input::new).collect();
                        self.stage = Stage::Digests(inputs);
                    }
                },
                Stage::Digests(inputs) => match take_least(conn, inputs)? {
                    Some((digest, seq)) => self.writer.digest(conn, digest, seq)?,
                    None => break,
                },
            }
            units -= 1;
        }
        Ok(units)
    }

    /// Puts the merged segment in its inputs' place.
    pub(super) fn finish(self, conn: &Connection) -> Result<(Segment, Bloom), StoreError> {
        let merged = self.writer.finish(conn)?;
        for segment in &self.segments {
            delete_row(conn, segment.number)?;
        }
        Ok(merged)
    }
}

type Posting = (StorageKey, Seq, Hash);
type Digest = (u64, Seq);

/// What blocks of an index are read into; ordered as the index is.
trait Item: Ord + Sized {
    /// Where a block stands in its segment.
    type Key;

    /// Reads the blocks past `after`, and returns where the last of them stands.
    fn read(
        conn: &Connection,
        segment: &Segment,
        after: Option<&Self::Key>,
        into: &mut VecDeque<Self>,
    ) -> Result<Option<Self::Key>, StoreError>;
}

impl Item for Posting {
    type Key = Vec<u8>;

    fn read(
        conn: &Connection,
        segment: &Segment,
        after: Option<&Vec<u8>>,
        into: &mut VecDeque<Posting>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let mut statement = conn.prepare_cached(
            "SELECT key, data FROM posting WHERE segment = ?1 AND key > ?2 ORDER BY key LIMIT ?3",
        )?;
        let after = after.map_or(&[][..], |key| key);
        let mut rows = statement.query(params![segment.number, after, BLOCKS_READ])?;
        let mut last = None;
        while let Some(row) = rows.next()? {
            let mut block = row.get_ref(1)?.as_blob().map_err(|_| Malformed)?;
            while !block.is_empty() {
                let (group, rest) = first_group(block)?;
                into.extend(group.entries.iter().map(|(offset, hash)| {
                    (group.storage, segment.first + Seq::from(offset), hash)
                }));
                block = rest;
            }
            last = Some(row.get(0)?);
        }
        Ok(last)
    }
}

impl Item for Digest {
    type Key = (i64, u32);

    fn read(
        conn: &Connection,
        segment: &Segment,
        after: Option<&(i64, u32)>,
        into: &mut VecDeque<Digest>,
    ) -> Result<Option<(i64, u32)>, StoreError> {
        let mut statement = conn.prepare_cached(
            "SELECT key, offset, data FROM digest \
             WHERE segment = ?1 AND (key, offset) > (?2, ?3) ORDER BY key, offset LIMIT ?4",
        )?;
        let (key, offset) = after.map_or((i64::MIN, -1), |&(key, offset)| (key, i64::from(offset)));
        let mut rows = statement.query(params![segment.number, key, offset, BLOCKS_READ])?;
        let mut last = None;
        while let Some(row) = rows.next()? {
            let block = row.get_ref(2)?.as_blob().map_err(|_| Malformed)?;
            into.extend(
                digests(block)?.map(|(digest, offset)| (digest, segment.first + Seq::from(offset))),
            );
            last = Some((row.get(0)?, row.get(1)?));
        }
        Ok(last)
    }
}

#[derive(Debug)]
struct Input<T: Item> {
    segment: Segment,
    items: VecDeque<T>,
    next: Next<T::Key>,
}

/// What of a segment was not read yet.
#[derive(Debug)]
enum Next<K> {
    All,
    After(K),
    Nothing,
}

impl<T: Item> Input<T> {
    fn new(segment: &Segment) -> Input<T> {
        Input { segment: *segment, items: VecDeque::new(), next: Next::All }
    }

    fn refill(&mut self, conn: &Connection) -> Result<(), StoreError> {
        if !self.items.is_empty() {
            return Ok(());
        }
        let after = match &self.next {
            Next::All => None,
            Next::After(key) => Some(key),
            Next::Nothing => return Ok(()),
        };
        let last = T::read(conn, &self.segment, after, &mut self.items)?;
        self.next = last.map_or(Next::Nothing, Next::After);
        Ok(())
    }
}

fn take_least<T: Item>(
    conn: &Connection,
    inputs: &mut [Input<T>],
) -> Result<Option<T>, StoreError> {
    for input in inputs.iter_mut() {
        input.refill(conn)?;
    }
    let least = inputs
        .iter_mut()
        .filter(|input| !input.items.is_empty())
        .min_by(|a, b| a.items.front().cmp(&b.items.front()));
    Ok(least.and_then(|input| input.items.pop_front()))
}
