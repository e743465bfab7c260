//! Owns the fold: making a segment out of the oldest events that none holds, a few at a time, inside
//! transactions that its caller opens. Called by `upkeep`. What it wrote counts once it is finished
//! and committed; before that it can be dropped at any moment, and only leaves garbage.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rusqlite::Connection;

use super::bloom::Bloom;
use super::segment::{Segment, SegmentWriter};
use super::unfolded::{Entry, Unfolded};
use crate::event::Seq;
use crate::id::StorageKey;
use crate::store::StoreError;

#[derive(Debug)]
pub(super) struct Fold {
    writer: SegmentWriter,
    stage: Stage,
}

/// What is still to be written, the next one on top: sorting all of it at once would keep the appends
/// of one commit for a millisecond.
#[derive(Debug)]
enum Stage {
    Postings(BinaryHeap<Reverse<(StorageKey, Seq)>>),
    Digests(BinaryHeap<Reverse<(u64, Seq)>>),
}

impl Fold {
    /// Of the segment's events, which are all unfolded.
    pub(super) fn new(segment: Segment, unfolded: &Unfolded) -> Fold {
        let postings = in_order(segment, unfolded, |entry| entry.storage);
        Fold { writer: SegmentWriter::new(segment), stage: Stage::Postings(postings) }
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
                Stage::Postings(postings) => match postings.pop() {
                    Some(Reverse((storage, seq))) => {
                        let hash = &entry(unfolded, seq).hash;
                        self.writer.posting(conn, storage, seq, hash)?;
                        true
                    }
                    None => {
                        let digests = in_order(self.segment(), unfolded, |entry| entry.digest);
                        self.stage = Stage::Digests(digests);
                        true
                    }
                },
                Stage::Digests(digests) => match digests.pop() {
                    Some(Reverse((digest, seq))) => {
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

    pub(super) fn finish(self, conn: &Connection) -> Result<(Segment, Bloom), StoreError> {
        self.writer.finish(conn)
    }
}

/// A segment's events by what an index has them by.
fn in_order<T: Ord>(
    segment: Segment,
    unfolded: &Unfolded,
    by: impl Fn(&Entry) -> T,
) -> BinaryHeap<Reverse<(T, Seq)>> {
    (segment.first..=segment.last).map(|seq| Reverse((by(entry(unfolded, seq)), seq))).collect()
}

fn entry(unfolded: &Unfolded, seq: Seq) -> &Entry {
    unfolded.get(seq).expect("a fold is of unfolded events")
}
