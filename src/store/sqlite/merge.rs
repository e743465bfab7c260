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
const BLOCKS_READ: i64 = 2;

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
    /// The blocks between two numbers, in order.
    const BLOCKS: &str;

    /// Reads a block of the segment.
    fn read(segment: &Segment, block: &[u8], into: &mut VecDeque<Self>) -> Result<(), Malformed>;
}

impl Item for Posting {
    const BLOCKS: &str =
        "SELECT block, data FROM posting WHERE block > ?1 AND block < ?2 ORDER BY block LIMIT ?3";

    fn read(
        segment: &Segment,
        mut block: &[u8],
        into: &mut VecDeque<Posting>,
    ) -> Result<(), Malformed> {
        while !block.is_empty() {
            let (group, rest) = first_group(block)?;
            into.extend(
                group
                    .entries
                    .iter()
                    .map(|(offset, hash)| (group.storage, segment.first + Seq::from(offset), hash)),
            );
            block = rest;
        }
        Ok(())
    }
}

impl Item for Digest {
    const BLOCKS: &str =
        "SELECT block, data FROM digest WHERE block > ?1 AND block < ?2 ORDER BY block LIMIT ?3";

    fn read(segment: &Segment, block: &[u8], into: &mut VecDeque<Digest>) -> Result<(), Malformed> {
        let digests = digests(block)?;
        into.extend(digests.map(|(digest, offset)| (digest, segment.first + Seq::from(offset))));
        Ok(())
    }
}

#[derive(Debug)]
struct Input<T: Item> {
    segment: Segment,
    items: VecDeque<T>,
    /// The last block that was read; none where there is no further one.
    after: Option<i64>,
}

impl<T: Item> Input<T> {
    fn new(segment: &Segment) -> Input<T> {
        let before_all = segment.block_numbers().start - 1;
        Input { segment: *segment, items: VecDeque::new(), after: Some(before_all) }
    }

    fn refill(&mut self, conn: &Connection) -> Result<(), StoreError> {
        if !self.items.is_empty() {
            return Ok(());
        }
        let Some(after) = self.after.take() else { return Ok(()) };
        let mut statement = conn.prepare_cached(T::BLOCKS)?;
        let end = self.segment.block_numbers().end;
        let mut rows = statement.query(params![after, end, BLOCKS_READ])?;
        while let Some(row) = rows.next()? {
            let block = row.get_ref(1)?.as_blob().map_err(|_| Malformed)?;
            T::read(&self.segment, block, &mut self.items)?;
            self.after = Some(row.get(0)?);
        }
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
