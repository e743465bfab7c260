//! Owns the merge: making one segment out of consecutive ones, a few events at a time, inside
//! transactions that its caller opens. Called by `upkeep`. Reads the blocks of its inputs in order
//! and keeps one of each in memory, however large they are. Until it is finished and committed it
//! can be dropped at any moment, and only leaves garbage.

use rusqlite::Connection;

use super::block::{Digests, Index, Malformed, Postings};
use super::bloom::Bloom;
use super::segment::{Segment, SegmentWriter, delete_row};
use crate::event::Seq;
use crate::store::StoreError;

#[derive(Debug)]
pub(super) struct Merge {
    segments: Vec<Segment>,
    writer: SegmentWriter,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Postings(Vec<Input<Postings>>),
    Digests(Vec<Input<Digests>>),
}

impl Merge {
    /// `segments` are consecutive; `merged` is what they become.
    pub(super) fn begin(
        conn: &Connection,
        segments: Vec<Segment>,
        merged: Segment,
    ) -> Result<Merge, StoreError> {
        let stage = Stage::Postings(read_all(conn, &segments)?);
        Ok(Merge { segments, writer: SegmentWriter::new(merged), stage })
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
        let Merge { segments, writer, stage } = self;
        while units > 0 {
            match stage {
                Stage::Postings(inputs) => match least(inputs) {
                    Some(input) => {
                        units -= input.take(conn, units, |storage, seq, hash| {
                            writer.posting(conn, storage, seq, &hash)
                        })?;
                    }
                    None => *stage = Stage::Digests(read_all(conn, segments)?),
                },
                Stage::Digests(inputs) => match least(inputs) {
                    Some(input) => {
                        units -= input.take(conn, units, |digest, seq, ()| {
                            writer.digest(conn, digest, seq)
                        })?;
                    }
                    None => break,
                },
            }
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

/// How an index is read: a segment's first block after another.
trait Read: Index {
    const NEXT_BLOCK: &str;
}

impl Read for Postings {
    const NEXT_BLOCK: &str =
        "SELECT block, data FROM posting WHERE block > ?1 AND block < ?2 ORDER BY block LIMIT 1";
}

impl Read for Digests {
    const NEXT_BLOCK: &str =
        "SELECT block, data FROM digest WHERE block > ?1 AND block < ?2 ORDER BY block LIMIT 1";
}

#[derive(Debug)]
struct Input<I: Read> {
    segment: Segment,
    block_number: i64,
    block: Vec<u8>,
    /// Where in the block the next entry is.
    at: usize,
    /// The key that the next entries have, and where those end; none at the segment's end.
    group: Option<(I::Key, usize)>,
}

impl<I: Read> Input<I> {
    fn read(conn: &Connection, segment: &Segment) -> Result<Input<I>, StoreError> {
        let mut input = Input {
            segment: *segment,
            block_number: segment.block_numbers().start - 1,
            block: Vec::new(),
            at: 0,
            group: None,
        };
        input.next_group(conn)?;
        Ok(input)
    }

    /// Hands over entries of one key, at most so many, and returns how many.
    fn take(
        &mut self,
        conn: &Connection,
        most: usize,
        mut hand_over: impl FnMut(I::Key, Seq, I::Detail) -> Result<(), StoreError>,
    ) -> Result<usize, StoreError> {
        let Some((key, end)) = self.group else { return Ok(0) };
        let entries = self.block[self.at..end].chunks_exact(I::ENTRY_BYTES).take(most);
        let taken = entries.len();
        for entry in entries {
            let (offset, detail) = I::entry(entry);
            hand_over(key, self.segment.first + Seq::from(offset), detail)?;
        }
        self.at += taken * I::ENTRY_BYTES;
        if self.at == end {
            self.next_group(conn)?;
        }
        Ok(taken)
    }

    fn next_group(&mut self, conn: &Connection) -> Result<(), StoreError> {
        if self.at == self.block.len() && !self.next_block(conn)? {
            self.group = None;
            return Ok(());
        }
        let (key, entries) = I::first_group(&self.block[self.at..])?;
        self.group = Some((key, self.at + entries.end));
        self.at += entries.start;
        Ok(())
    }

    /// False where there is none.
    fn next_block(&mut self, conn: &Connection) -> Result<bool, StoreError> {
        let mut statement = conn.prepare_cached(I::NEXT_BLOCK)?;
        let mut rows = statement.query([self.block_number, self.segment.block_numbers().end])?;
        let Some(row) = rows.next()? else { return Ok(false) };
        self.block_number = row.get(0)?;
        self.block.clear();
        self.block.extend_from_slice(row.get_ref(1)?.as_blob().map_err(|_| Malformed)?);
        self.at = 0;
        Ok(true)
    }
}

fn read_all<I: Read>(conn: &Connection, segments: &[Segment]) -> Result<Vec<Input<I>>, StoreError> {
    segments.iter().map(|segment| Input::read(conn, segment)).collect()
}

/// The input whose entries come next. Of those of one key they are the oldest segment's, the first one's.
fn least<I: Read>(inputs: &mut [Input<I>]) -> Option<&mut Input<I>> {
    let going_on = inputs.iter_mut().filter(|input| input.group.is_some());
    going_on.min_by_key(|input| input.group.map(|(key, _)| key))
}
