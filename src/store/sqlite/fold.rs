//! Owns the fold: making a segment out of the oldest events that none holds, a few at a time, inside
//! transactions that its caller opens. Called by `upkeep`. What it wrote counts once it is finished
//! and committed; before that it can be dropped at any moment, and only leaves garbage.

use std::vec;

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

/// What is still to be written, in order.
#[derive(Debug)]
enum Stage {
    Postings(vec::IntoIter<(StorageKey, Seq)>),
    Digests(vec::IntoIter<(u64, Seq)>),
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
            match &mut self.stage {
                Stage::Postings(postings) => match postings.next() {
                    Some((storage, seq)) => {
                        let hash = &entry(unfolded, seq).hash;
                        self.writer.posting(conn, storage, seq, hash)?;
                    }
                    None => {
                        let digests = in_order(self.segment(), unfolded, |entry| entry.digest);
                        self.stage = Stage::Digests(digests);
                    }
                },
                Stage::Digests(digests) => match digests.next() {
                    Some((digest, seq)) => self.writer.digest(conn, digest, seq)?,
                    None => break,
                },
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
) -> vec::IntoIter<(T, Seq)> {
    let events = (segment.first..=segment.last).map(|seq| (by(entry(unfolded, seq)), seq));
    let mut in_order: Vec<_> = events.collect();
    in_order.sort_unstable();
    in_order.into_iter()
}

fn entry(unfolded: &Unfolded, seq: Seq) -> &Entry {
    unfolded.get(seq).expect("a fold is of unfolded events")
}
