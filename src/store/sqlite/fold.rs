//! Owns the fold: making a segment out of the oldest events that none holds, a few at a time, inside
//! transactions that its caller opens. Called by `upkeep`. What it wrote counts once it is finished
//! and committed; before that it can be dropped at any moment, and only leaves garbage.

use rusqlite::Connection;

use super::bloom::Bloom;
use super::segment::{Segment, SegmentWriter};
use super::unfolded::Unfolded;
use crate::event::Seq;
use crate::id::StorageKey;
use crate::store::StoreError;

#[derive(Debug)]
pub(super) struct Fold {
    writer: SegmentWriter,
    stage: Stage,
}

/// What is still to be written, the next one last.
#[derive(Debug)]
enum Stage {
    Postings(Vec<(StorageKey, Seq)>),
    Digests(Vec<(u64, Seq)>),
}

impl Fold {
    /// Of the segment's events, which are all unfolded.
    pub(super) fn new(segment: Segment, unfolded: &Unfolded) -> Fold {
        let mut order: Vec<_> = (segment.first..=segment.last)
            .map(|seq| (unfolded.get(seq).expect("a fold is of unfolded events").storage, seq))
            .collect();
        order.sort_unstable_by(|a, b| b.cmp(a));
        Fold { writer: SegmentWriter::new(segment), stage: Stage::Postings(order) }
    }

    pub(super) fn segment(&self) -> Segment {
        self.writer.segment()
    }

    /// Writes up to `units` events, each of which is two: a posting and a digest. Returns how many
    /// are left of `units`: none until the fold has nothing left to write.
    pub(super) fn work(
        &mut self,
        conn: &Connection,
        unfolded: &Unfolded,
        mut units: usize,
    ) -> Result<usize, StoreError> {
        while units > 0 {
            let more = match &mut self.stage {
                Stage::Postings(order) => match order.pop() {
                    Some((storage, seq)) => {
                        let entry = unfolded.get(seq).expect("a fold is of unfolded events");
                        self.writer.posting(conn, storage, seq, &entry.hash)?;
                        true
                    }
                    None => {
                        self.stage = Stage::Digests(self.digests(unfolded));
                        true
                    }
                },
                Stage::Digests(order) => match order.pop() {
                    Some((digest, seq)) => {
                        self.writer.digest(conn, digest, seq)?;
                        true
                    }
                    None => false,
                },
            };
            if !more {
                break;
            }
            units -= 1;
        }
        Ok(units)
    }

    fn digests(&self, unfolded: &Unfolded) -> Vec<(u64, Seq)> {
        let Segment { first, last, .. } = self.segment();
        let mut order: Vec<_> = (first..=last)
            .map(|seq| (unfolded.get(seq).expect("a fold is of unfolded events").digest, seq))
            .collect();
        order.sort_unstable_by(|a, b| b.cmp(a));
        order
    }

    pub(super) fn finish(self, conn: &Connection) -> Result<(Segment, Bloom), StoreError> {
        self.writer.finish(conn)
    }
}
