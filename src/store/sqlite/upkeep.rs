//! Owns what is done to the indexes and when: folds, merges, and deleting the blocks of segments that
//! are no more. Called by the writer, inside its transactions; changes the writer's memory only
//! through `Change`s that are applied once the transaction is committed. After a failed transaction
//! all work in progress is abandoned: its blocks are garbage, and it is started again.

use std::collections::VecDeque;

use rusqlite::{Connection, params};

use super::Tuning;
use super::bloom::{Bloom, Probe};
use super::fold::Fold;
use super::merge::Merge;
use super::segment::{Segment, load_filter};
use super::unfolded::Unfolded;
use crate::event::Seq;
use crate::store::{StoreError, Upkeep};

/// Units of a fold or a merge that an appended event pays for. An event is two units of each, so a
/// fold ends when half as many events as it holds were appended, and a merge before the next one of
/// its level is due.
const UNITS_PER_EVENT: usize = 4;
/// Garbage rows deleted for so many appended events. An event leaves a seventieth of a row a level, and a
/// tenth where its blocks are former ones, which are smaller.
const EVENTS_PER_GARBAGE_ROW: usize = 2;
/// What deleting a row is counted as in a slice of its own.
const UNITS_PER_GARBAGE_ROW: usize = 32;

/// A segment as the writer knows it. The largest ones may go without a filter in memory.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) segment: Segment,
    pub(super) filter: Option<Bloom>,
}

impl Live {
    pub(super) fn may_contain(&self, probe: &Probe) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.may_contain(probe))
    }
}

/// What a transaction did.
#[derive(Debug)]
enum Change {
    Folded(Live),
    Merged(Live),
    Swept(i64),
}

#[derive(Debug)]
pub(super) struct Indexes {
    /// In `seq` order.
    live: Vec<Live>,
    fold: Option<Fold>,
    /// At most one that makes a level, so that a large one does not hold up the small ones, and at most one
    /// that a segment is of.
    merges: Vec<Merge>,
    /// Numbers whose blocks belong to no segment.
    garbage: VecDeque<i64>,
    /// What the transaction under way did: true once it is committed.
    pending: Vec<Change>,
    /// Appended events whose share of the work was not done yet.
    owed_events: usize,
    next_number: i64,
}

impl Indexes {
    pub(super) fn load(conn: &Connection, tuning: &Tuning) -> Result<Indexes, StoreError> {
        let segments = super::segment::list(conn)?;
        let numbers = numbers_with_blocks(conn)?;
        let live_numbers = segments.iter().map(|segment| segment.number);
        let next_number = live_numbers.chain(numbers.iter().copied()).max().unwrap_or(0) + 1;
        let is_live = |number| segments.iter().any(|segment| segment.number == number);
        let garbage = numbers.into_iter().filter(|&number| !is_live(number)).collect();
        let live = segments.iter().map(|&segment| Live { segment, filter: None }).collect();
        let mut indexes = Indexes {
            live,
            fold: None,
            merges: Vec::new(),
            garbage,
            pending: Vec::new(),
            owed_events: 0,
            next_number,
        };
        indexes.load_filters(conn, tuning)?;
        Ok(indexes)
    }

    /// Of the smallest segments first, as far as the memory for them goes.
    fn load_filters(&mut self, conn: &Connection, tuning: &Tuning) -> Result<(), StoreError> {
        let mut by_size: Vec<&mut Live> = self.live.iter_mut().collect();
        by_size.sort_by_key(|live| live.segment.events());
        let mut bytes = 0;
        for live in by_size {
            bytes += Bloom::bytes_for_keys(live.segment.events());
            if bytes > tuning.filters_bytes_max {
                break;
            }
            live.filter = Some(load_filter(conn, &live.segment)?);
        }
        Ok(())
    }

    /// How far the segments reach.
    pub(super) fn mark(&self) -> Seq {
        self.live.last().map_or(0, |live| live.segment.last)
    }

    pub(super) fn live(&self) -> &[Live] {
        &self.live
    }

    /// The work that appended events pay for, where much of it was not done between commits. Their own
    /// may be still, so they pay for those before them, and of what others left no more than as much
    /// again.
    pub(super) fn ride_along(
        &mut self,
        conn: &Connection,
        unfolded: &Unfolded,
        tuning: &Tuning,
        events: usize,
    ) -> Result<(), StoreError> {
        // What a transaction folded is not folded again in it.
        let is_due = self.owed_events >= tuning.index_share_events && self.pending.is_empty();
        let due =
            if is_due { self.take_owed(2 * events.max(tuning.index_share_events)) } else { 0 };
        self.owed_events += events;
        if due > 0 { self.work_off(conn, unfolded, tuning, due) } else { Ok(()) }
    }

    /// Whether there is some of that work to be done before the next commit.
    pub(super) fn is_owed(&self, unfolded: &Unfolded, tuning: &Tuning) -> bool {
        self.owed_events >= tuning.index_ahead_events
            && self.pending.is_empty()
            && self.has_work(unfolded, tuning, tuning.fold_events)
    }

    /// The events that are worked off next. Their work is no longer owed even where it fails: what the
    /// next events pay for is enough.
    pub(super) fn take_owed(&mut self, events_max: usize) -> usize {
        let events = self.owed_events.min(events_max);
        self.owed_events -= events;
        events
    }

    /// The work for so many appended events.
    pub(super) fn work_off(
        &mut self,
        conn: &Connection,
        unfolded: &Unfolded,
        tuning: &Tuning,
        events: usize,
    ) -> Result<(), StoreError> {
        assert!(self.pending.is_empty(), "what a transaction folded is not folded again in it");
        let units = events * UNITS_PER_EVENT;
        self.start_fold(unfolded, tuning, tuning.fold_events);
        self.advance_fold(conn, unfolded, units)?;
        self.start_merges(conn, tuning)?;
        for at in (0..self.merges.len()).rev() {
            self.advance_merge(conn, at, units)?;
        }
        self.sweep(conn, events.div_ceil(EVENTS_PER_GARBAGE_ROW))
    }

    /// One slice of whatever is most urgent.
    pub(super) fn slice(
        &mut self,
        conn: &Connection,
        unfolded: &Unfolded,
        tuning: &Tuning,
    ) -> Result<(), StoreError> {
        self.start_fold(unfolded, tuning, tuning.idle_fold_events);
        if self.fold.is_some() {
            return self.advance_fold(conn, unfolded, tuning.slice_units);
        }
        self.start_merges(conn, tuning)?;
        if self.merges.is_empty()
            && self.garbage.is_empty()
            && let Some((segments, level)) = self.mergeable_at_rest(tuning)
        {
            self.start_merge(conn, segments, level)?;
        }
        let lowest = (0..self.merges.len()).min_by_key(|&at| self.merges[at].segment().level);
        match lowest {
            Some(at) => self.advance_merge(conn, at, tuning.slice_units),
            None => self.sweep(conn, (tuning.slice_units / UNITS_PER_GARBAGE_ROW).max(1)),
        }
    }

    /// What `slice` would find to do.
    pub(super) fn upkeep(&self, unfolded: &Unfolded, tuning: &Tuning) -> Upkeep {
        if self.has_work(unfolded, tuning, tuning.idle_fold_events) {
            return Upkeep::More;
        }
        if self.mergeable_at_rest(tuning).is_some() { Upkeep::AtRest } else { Upkeep::Done }
    }

    /// Where so many events are folded.
    fn has_work(&self, unfolded: &Unfolded, tuning: &Tuning, fold_events_min: usize) -> bool {
        self.fold.is_some()
            || !self.merges.is_empty()
            || !self.garbage.is_empty()
            || unfolded.len() >= fold_events_min
            || self.mergeable(tuning).is_some()
    }

    /// A whole fold, because too much is unfolded to go on.
    pub(super) fn fold_now(
        &mut self,
        conn: &Connection,
        unfolded: &Unfolded,
        tuning: &Tuning,
    ) -> Result<(), StoreError> {
        self.start_fold(unfolded, tuning, 1);
        self.advance_fold(conn, unfolded, usize::MAX)
    }

    fn start_fold(&mut self, unfolded: &Unfolded, tuning: &Tuning, events_min: usize) {
        if self.fold.is_some() || unfolded.len() < events_min {
            return;
        }
        let events = unfolded.len().min(tuning.fold_events);
        let first = unfolded.first();
        let last = first + events as Seq - 1;
        let segment = Segment { number: self.take_number(), level: 0, first, last };
        self.fold = Some(Fold::new(segment, unfolded));
    }

    fn advance_fold(
        &mut self,
        conn: &Connection,
        unfolded: &Unfolded,
        units: usize,
    ) -> Result<(), StoreError> {
        let Some(fold) = &mut self.fold else { return Ok(()) };
        if fold.work(conn, unfolded, units)? == 0 {
            return Ok(());
        }
        let fold = self.fold.take().expect("it was there to be worked on");
        let number = fold.segment().number;
        let finished = fold.finish(conn).inspect_err(|_| self.garbage.push_back(number))?;
        self.pending.push(Change::Folded(live(finished)));
        Ok(())
    }

    fn start_merges(&mut self, conn: &Connection, tuning: &Tuning) -> Result<(), StoreError> {
        while let Some(segments) = self.mergeable(tuning) {
            let level = segments[0].level + 1;
            self.start_merge(conn, segments, level)?;
        }
        Ok(())
    }

    fn start_merge(
        &mut self,
        conn: &Connection,
        segments: Vec<Segment>,
        level: u32,
    ) -> Result<(), StoreError> {
        let (first, last) = (segments[0].first, segments[segments.len() - 1].last);
        let merged = Segment { number: self.take_number(), level, first, last };
        self.merges.push(Merge::begin(conn, segments, merged)?);
        Ok(())
    }

    /// The oldest run of segments that are of one level and not too large to be one, on a level
    /// where no merge is under way, without what another merge is of.
    fn mergeable(&self, tuning: &Tuning) -> Option<Vec<Segment>> {
        self.live.windows(tuning.fan_out).find_map(|run| {
            let level = run[0].segment.level;
            let events: usize = run.iter().map(|live| live.segment.events()).sum();
            let fits = run.iter().all(|live| live.segment.level == level)
                && events <= tuning.segment_events_max;
            let busy = self.merges.iter().map(Merge::segment).any(|merged| {
                merged.level == level + 1
                    || merged.first <= run[run.len() - 1].segment.last
                        && run[0].segment.first <= merged.last
            });
            (fits && !busy).then(|| run.iter().map(|live| live.segment).collect())
        })
    }

    /// All segments from the oldest one on that holds no more than those after it together, and the level
    /// that they make: the oldest one's, or that of so many events. It is not above the level before it, as
    /// a run of that would never be complete then.
    fn mergeable_at_rest(&self, tuning: &Tuning) -> Option<(Vec<Segment>, u32)> {
        let mut found = None;
        let mut newer_events = 0;
        for (at, live) in self.live.iter().enumerate().rev() {
            let events = newer_events + live.segment.events();
            if events > tuning.rest_merge_events_max {
                break;
            }
            let folds = events / tuning.fold_events;
            let level = live.segment.level.max(folds.checked_ilog(tuning.fan_out).unwrap_or(0));
            let before =
                at.checked_sub(1).map_or(u32::MAX, |before| self.live[before].segment.level);
            if newer_events >= live.segment.events() && level <= before {
                found = Some((at, level));
            }
            newer_events = events;
        }
        let (at, level) = found?;
        Some((self.live[at..].iter().map(|live| live.segment).collect(), level))
    }

    fn advance_merge(
        &mut self,
        conn: &Connection,
        at: usize,
        units: usize,
    ) -> Result<(), StoreError> {
        if self.merges[at].work(conn, units)? == 0 {
            return Ok(());
        }
        let merge = self.merges.swap_remove(at);
        let number = merge.segment().number;
        let finished = merge.finish(conn).inspect_err(|_| self.garbage.push_back(number))?;
        self.pending.push(Change::Merged(live(finished)));
        Ok(())
    }

    /// Deletes about so many rows of garbage.
    fn sweep(&mut self, conn: &Connection, rows: usize) -> Result<(), StoreError> {
        let Some(&number) = self.garbage.front() else { return Ok(()) };
        for sql in [
            "DELETE FROM posting WHERE block >= ?1 << 32 AND block < min((?1 + 1) << 32, \
             ifnull((SELECT min(block) FROM posting WHERE block >= ?1 << 32), 0) + ?2)",
            "DELETE FROM digest WHERE block >= ?1 << 32 AND block < min((?1 + 1) << 32, \
             ifnull((SELECT min(block) FROM digest WHERE block >= ?1 << 32), 0) + ?2)",
            "DELETE FROM filter WHERE segment = ?1 AND part <= ifnull( \
             (SELECT part FROM filter WHERE segment = ?1 ORDER BY part LIMIT 1 OFFSET ?2), \
             9223372036854775807)",
        ] {
            if conn.prepare_cached(sql)?.execute(params![number, rows as i64])? > 0 {
                return Ok(());
            }
        }
        self.pending.push(Change::Swept(number));
        Ok(())
    }

    fn take_number(&mut self) -> i64 {
        self.next_number += 1;
        self.next_number - 1
    }

    /// The transaction is committed: what it did is true.
    pub(super) fn settle(&mut self, unfolded: &mut Unfolded, tuning: &Tuning) {
        for change in std::mem::take(&mut self.pending) {
            match change {
                Change::Folded(live) => {
                    unfolded.forget(live.segment.last);
                    self.live.push(live);
                }
                Change::Merged(merged) => self.replace(merged),
                Change::Swept(number) => self.garbage.retain(|&garbage| garbage != number),
            }
        }
        self.drop_filters(tuning.filters_bytes_max);
    }

    fn replace(&mut self, merged: Live) {
        let Segment { first, last, .. } = merged.segment;
        let start = self.live.partition_point(|live| live.segment.first < first);
        let end = self.live.partition_point(|live| live.segment.last <= last);
        assert!(
            self.live[start].segment.first == first && self.live[end - 1].segment.last == last,
            "a merge takes the place of what it was made of, which no other merge was"
        );
        let inputs = self.live.splice(start..end, [merged]);
        self.garbage.extend(inputs.map(|input| input.segment.number));
    }

    /// Of the largest segments first: they are fewest, so that the fewest look-ups need the disk.
    fn drop_filters(&mut self, bytes_max: usize) {
        let size = |live: &Live| live.filter.as_ref().map_or(0, Bloom::bytes);
        while self.live.iter().map(size).sum::<usize>() > bytes_max {
            let largest = self.live.iter_mut().max_by_key(|live| size(live));
            largest.expect("what takes memory is there").filter = None;
        }
    }

    /// The transaction failed: whatever was under way may have lost blocks.
    pub(super) fn abandon(&mut self) {
        let folds = self.fold.take().map(|fold| fold.segment().number);
        let merges = self.merges.drain(..).map(|merge| merge.segment().number);
        let finished = self.pending.drain(..).filter_map(|change| match change {
            Change::Folded(live) | Change::Merged(live) => Some(live.segment.number),
            Change::Swept(_) => None,
        });
        self.garbage.extend(folds.into_iter().chain(merges).chain(finished));
    }
}

fn live((segment, filter): (Segment, Bloom)) -> Live {
    Live { segment, filter: Some(filter) }
}

/// The numbers that blocks carry, of segments and of garbage, with one seek each.
fn numbers_with_blocks(conn: &Connection) -> Result<Vec<i64>, StoreError> {
    let mut numbers = Vec::new();
    for sql in [
        "SELECT min(segment) FROM posting WHERE segment > ?1",
        "SELECT min(segment) FROM digest WHERE segment > ?1",
        "SELECT min(segment) FROM filter WHERE segment > ?1",
    ] {
        let mut statement = conn.prepare(sql)?;
        let mut next = |after: i64| statement.query_row([after], |row| row.get(0));
        let mut last: Option<i64> = next(0)?;
        while let Some(number) = last {
            numbers.push(number);
            last = next(number)?;
        }
    }
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::super::{
        file,
        tests::{Folder, tiny},
    };
    use super::*;

    #[test]
    fn at_rest_what_outweighs_the_segment_before_it_is_merged_with_it() {
        let tuning = tiny();
        assert_eq!(
            (tuning.fold_events, tuning.fan_out, tuning.rest_merge_events_max),
            (40, 3, 300)
        );
        let folder = Folder::new();
        let (conn, _lock) = file::open(&folder.file("db")).unwrap();
        // Level and events of each, then the first of those to be merged and the level that they make.
        let cases: [(&[(u32, Seq)], _); 12] = [
            (&[], None),
            (&[(0, 40)], None),
            (&[(0, 40), (0, 39)], None),
            (&[(0, 40), (0, 40)], Some((0, 0))),
            (&[(0, 40), (0, 39), (0, 1)], Some((0, 0))),
            (&[(1, 100), (0, 40), (0, 40)], Some((1, 0))),
            (&[(0, 100), (0, 40), (0, 40), (0, 20)], Some((0, 1))),
            (&[(2, 10), (1, 10)], Some((0, 2))),
            // Too many together.
            (&[(2, 151), (2, 150)], None),
            (&[(2, 200), (2, 101), (0, 60), (0, 10), (0, 10)], Some((3, 0))),
            // What it makes is of a level above the one before it, and of none.
            (&[(0, 250), (0, 60), (0, 60)], None),
            (&[(1, 250), (0, 60), (0, 60)], Some((1, 1))),
        ];
        for (segments, expected) in cases {
            let mut indexes = Indexes::load(&conn, &tuning).unwrap();
            for &(level, events) in segments {
                let first = indexes.mark() + 1;
                let (number, last) = (indexes.take_number(), first + events - 1);
                let segment = Segment { number, level, first, last };
                indexes.live.push(Live { segment, filter: None });
            }
            let expected = expected.map(|(at, level)| {
                (indexes.live[at..].iter().map(|live| live.segment).collect(), level)
            });
            assert_eq!(indexes.mergeable_at_rest(&tuning), expected, "{segments:?}");
        }
    }

    #[test]
    fn a_commit_pays_no_more_of_what_others_left_than_its_own() {
        let tuning = Tuning::default();
        let (share, left) = (tuning.index_share_events, 100 * tuning.index_share_events);
        for (left, events, paid) in [
            (left, 1, 2 * share),
            (left, share, 2 * share),
            (left, 3 * share, 6 * share),
            (share, 3 * share, share),
            (share - 1, 3 * share, 0),
        ] {
            let folder = Folder::new();
            let (conn, _lock) = file::open(&folder.file("db")).unwrap();
            let mut indexes = Indexes::load(&conn, &tuning).unwrap();
            indexes.owed_events = left;
            indexes.ride_along(&conn, &Unfolded::after(0), &tuning, events).unwrap();
            let seen = left + events - indexes.owed_events;
            assert_eq!(seen, paid, "with {events} events and {left} left");
        }
    }
}
