//! The writer over a log that keeps nothing: what is committed together, and in which order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;
use crate::event::{NewValue, NewValues, Placed, Seq};
use crate::id::Id;
use crate::message::Token;
use crate::store::{StoreGauges, Transaction};

/// When a writer that has just begun does upkeep first.
const IDLE: Duration = Duration::from_millis(config::UPKEEP_IDLE);
/// What follows a commit that leaves upkeep to do.
const WITHIN_IDLE: Wait = Wait::Within(IDLE);

fn within(milliseconds: u64) -> Wait {
    Wait::Within(Duration::from_millis(milliseconds))
}

#[derive(Default)]
struct Log {
    /// Once until it is restarted.
    checkpoint_due: bool,
    shared: Arc<Shared>,
}

/// What a test sets and sees of the log, which is the writer's.
#[derive(Default)]
struct Shared {
    is_restarting: AtomicBool,
    /// Slices of upkeep that are left to do.
    upkeep_slices: AtomicU64,
    /// And of what is done at rest only.
    rest_slices: AtomicU64,
    /// Whether something is owed to the indexes.
    is_owed: AtomicBool,
    /// A commit takes a millisecond for each of the bytes.
    now_milliseconds: AtomicU64,
}

impl Shared {
    fn now(&self) -> Duration {
        IDLE + Duration::from_millis(self.now_milliseconds.load(Ordering::Relaxed))
    }
}

impl WriteLog for Log {
    fn last(&self) -> Seq {
        0
    }

    fn begin(&mut self) -> Result<Box<dyn Transaction + '_>, StoreError> {
        Ok(Box::new(Open(&self.shared)))
    }

    fn index_ahead(&mut self) -> Result<bool, StoreError> {
        Ok(self.shared.is_owed.swap(false, Ordering::Relaxed))
    }

    fn upkeep(&mut self, at_rest: bool) -> Result<Upkeep, StoreError> {
        let left = |slices: &AtomicU64| slices.load(Ordering::Relaxed);
        let Shared { upkeep_slices, rest_slices, .. } = &*self.shared;
        if left(upkeep_slices) > 0 {
            upkeep_slices.fetch_sub(1, Ordering::Relaxed);
        } else if at_rest && left(rest_slices) > 0 {
            rest_slices.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(match (left(upkeep_slices), left(rest_slices)) {
            (0, 0) => Upkeep::Done,
            (0, _) => Upkeep::AtRest,
            _ => Upkeep::More,
        })
    }

    fn checkpoint_due(&mut self) -> bool {
        std::mem::take(&mut self.checkpoint_due)
    }

    fn lengthening_due(&mut self) -> Option<u64> {
        None
    }

    fn restart_log(&mut self, _: u64) -> Result<(), StoreError> {
        self.checkpoint_due = true;
        Ok(())
    }

    fn is_restarting(&self) -> bool {
        self.shared.is_restarting.load(Ordering::Relaxed)
    }

    fn gauges(&self) -> StoreGauges {
        StoreGauges { wal_bytes: u64::from(!self.checkpoint_due), ..StoreGauges::default() }
    }

    fn close(self: Box<Self>) -> Result<(), StoreError> {
        Ok(())
    }
}

struct Open<'a>(&'a Shared);

impl Transaction for Open<'_> {
    fn append(&mut self, batches: &[Batch<'_>]) -> Result<Vec<Box<[Placed]>>, StoreError> {
        let texts = batches.iter().flat_map(|batch| batch.values).map(|value| value.text.len());
        self.0.now_milliseconds.fetch_add(texts.sum::<usize>() as u64, Ordering::Relaxed);
        let placed = Placed { seq: 1, new: false };
        Ok(batches.iter().map(|batch| vec![placed; batch.values.len()].into()).collect())
    }

    fn commit(self: Box<Self>) -> Result<(), StoreError> {
        Ok(())
    }
}

fn nothing(_: &mut Vec<ToWriter>) {}

#[test]
fn a_checkpoint_is_due_again_whether_the_last_succeeded_or_not() {
    let mut writer = Writer::new(Box::new(Log { checkpoint_due: true, ..Log::default() }));
    let mut step = |message: Option<ToWriter>| {
        let mut batch: Vec<ToWriter> = message.into_iter().collect();
        let clock = || IDLE;
        let step = writer.step(&mut batch, &mut nothing, &mut Vec::new(), &clock);
        step.expect("no error is fatal").checkpoint
    };
    assert!(step(None));
    assert!(!step(None), "one at a time");
    for result in [Ok(0), Err(StoreError::Failed("for now".to_owned())), Ok(0)] {
        assert!(step(Some(ToWriter::Checkpointed(result))));
    }
}

#[test]
fn a_log_that_started_over_is_told_of_without_a_commit() {
    let mut writer = Writer::new(Box::<Log>::default());
    let mut told = |message: Option<ToWriter>| {
        let mut notices = Vec::new();
        let mut batch = message.into_iter().collect();
        let step = writer.step(&mut batch, &mut nothing, &mut notices, &|| IDLE);
        step.expect("no error is fatal");
        let [FromWriter::Gauges(StoreGauges { wal_bytes, .. })] = notices[..] else {
            panic!("one says it: {notices:?}");
        };
        wal_bytes
    };
    assert_eq!(told(None), 1);
    assert_eq!(told(Some(ToWriter::Checkpointed(Ok(0)))), 0);
}

#[test]
fn large_subscriptions_join_one_by_one_and_appends_are_looked_at_between_them() {
    const FEEDS: u32 = 3;
    let mut writer = Writer::new(Box::<Log>::default());
    let id = |n: usize| Id::new(&n.to_string()).unwrap();
    let ids: Arc<[Id]> = (0..config::PUBLISH_STORAGES).map(id).collect();
    let subscribe = |slot| ToWriter::Subscribe { slot, ids: Arc::clone(&ids) };
    let mut batch: Vec<ToWriter> = (0..FEEDS).map(subscribe).collect();
    batch.push(ToWriter::Unsubscribe { slot: 0 });
    let mut step = |batch: &mut Vec<ToWriter>| {
        let mut notices = Vec::new();
        let step = writer.step(batch, &mut nothing, &mut notices, &|| IDLE);
        notices.retain(|notice| !matches!(notice, FromWriter::Gauges(_)));
        (step.expect("no error is fatal").wait, notices)
    };
    for slot in 0..FEEDS {
        let (wait, notices) = step(&mut batch);
        assert_eq!(wait, Wait::Not);
        let [FromWriter::Joined { slot: joined, .. }] = notices[..] else {
            panic!("one joins: {notices:?}");
        };
        assert_eq!(joined, slot);
    }
    let (wait, notices) = step(&mut batch);
    assert!(matches!(notices[..], [FromWriter::Left { slot: 0 }]), "{notices:?}");
    assert_eq!(wait, Wait::Long);
}

/// An append over a connection, of a value with so many bytes.
fn append(connection: u32, bytes: usize) -> ToWriter {
    let token = Token { connection, exchange: 0 };
    let id = Id::new("a").unwrap();
    let values = NewValues::One(NewValue::new("x".repeat(bytes)));
    ToWriter::Append(Append { token, id, values })
}

/// The connections whose appends one step commits, and how long the writer waits then.
fn commit(writer: &mut Writer, batch: Vec<ToWriter>, shared: &Shared) -> (Vec<u32>, Wait) {
    let (connections, wait, left) = commit_with(writer, batch, &mut nothing, shared);
    assert!(left.is_empty(), "a step takes all of its batch");
    (connections, wait)
}

/// The same where something comes late, with what the step leaves of it.
fn commit_with(
    writer: &mut Writer,
    mut batch: Vec<ToWriter>,
    late: &mut dyn FnMut(&mut Vec<ToWriter>),
    shared: &Shared,
) -> (Vec<u32>, Wait, Vec<ToWriter>) {
    let mut notices = Vec::new();
    let step = writer.step(&mut batch, late, &mut notices, &|| shared.now());
    let mut committed = notices.into_iter().filter_map(|notice| match notice {
        FromWriter::Committed(commit) => Some(commit.appended),
        _ => None,
    });
    let appended = committed.next().unwrap_or_default();
    assert!(committed.next().is_none(), "a step makes one transaction");
    let connections = appended.iter().map(|a| a.append.token.connection).collect();
    (connections, step.expect("no error is fatal").wait, batch)
}

const SMALL: usize = 1;
const SHARE: usize = config::COMMIT_LARGE_BYTES;

#[test]
fn small_appends_go_before_large_ones_that_go_in_shares() {
    let mut writer = Writer::new(Box::<Log>::default());
    let large =
        vec![append(1, 2 * SHARE), append(2, SHARE / 2), append(3, 1 << 17), append(4, SHARE)];
    let first = large.into_iter().chain([append(5, SMALL)]).collect();
    let steps: [(Vec<ToWriter>, Vec<u32>, Wait); 4] = [
        (first, vec![5], Wait::Not),
        (vec![append(6, SMALL)], vec![6, 1], Wait::Not),
        (vec![], vec![2, 3], Wait::Not),
        (vec![], vec![4], WITHIN_IDLE),
    ];
    for (messages, connections, wait) in steps {
        assert_eq!(commit(&mut writer, messages, &Shared::default()), (connections, wait));
    }
}

#[test]
fn small_appends_that_waited_have_as_long_as_they_waited() {
    let log = Log::default();
    let shared = Arc::clone(&log.shared);
    let mut writer = Writer::new(Box::new(log));
    let both = vec![append(1, 2 * SHARE), append(2, SHARE)];
    assert_eq!(commit(&mut writer, both, &shared), (vec![1], Wait::Not));
    let took = shared.now_milliseconds.load(Ordering::Relaxed);
    let until_turn = |tenths, spent| within(2 * took - took * tenths / 10 - spent);
    // When, in parts of that.
    let steps: [(u64, Vec<ToWriter>, Vec<u32>, Wait); 9] = [
        (10, vec![append(3, SMALL)], vec![3], until_turn(10, 1)),
        (12, vec![], vec![], until_turn(12, 0)),
        (15, vec![append(4, SMALL)], vec![4], until_turn(15, 1)),
        (19, vec![append(5, SHARE)], vec![], until_turn(19, 0)),
        (20, vec![append(6, SMALL)], vec![6, 2], Wait::Not),
        // None has waited.
        (31, vec![append(7, SHARE)], vec![5], Wait::Not),
        // Long after.
        (90, vec![append(8, SMALL)], vec![8], Wait::Not),
        (90, vec![], vec![7], WITHIN_IDLE),
        // The end.
        (96, vec![append(9, SMALL), append(10, SHARE), ToWriter::Stop], vec![9, 10], WITHIN_IDLE),
    ];
    for (tenths, messages, connections, wait) in steps {
        shared.now_milliseconds.store(took * tenths / 10, Ordering::Relaxed);
        let seen = commit(&mut writer, messages, &shared);
        assert_eq!(seen, (connections, wait), "at {tenths}");
    }
}

#[test]
fn large_appends_wait_while_the_log_restarts() {
    let log = Log::default();
    let shared = Arc::clone(&log.shared);
    let mut writer = Writer::new(Box::new(log));
    let steps: [(bool, Vec<ToWriter>, Vec<u32>, Wait); 5] = [
        (true, vec![append(1, SHARE), append(2, SMALL)], vec![2], Wait::Long),
        (true, vec![append(3, SMALL)], vec![3], Wait::Long),
        (false, vec![ToWriter::Checkpointed(Ok(0))], vec![1], WITHIN_IDLE),
        (true, vec![append(4, SHARE)], vec![], Wait::Long),
        (true, vec![ToWriter::Stop], vec![4], WITHIN_IDLE),
    ];
    for (is_restarting, messages, connections, wait) in steps {
        shared.is_restarting.store(is_restarting, Ordering::Relaxed);
        assert_eq!(commit(&mut writer, messages, &shared), (connections, wait));
    }
    // Subscriptions do not wait with them.
    let subscribe = |slot| ToWriter::Subscribe { slot, ids: [Id::new("a").unwrap()].into() };
    let published = writer.published();
    let held = published.load();
    let messages = vec![append(5, SHARE), subscribe(0)];
    assert_eq!(commit(&mut writer, messages, &shared), (vec![], Wait::Long));
    assert_eq!(commit(&mut writer, vec![subscribe(1)], &shared), (vec![], Wait::MOMENT));
    drop(held);
    shared.is_restarting.store(false, Ordering::Relaxed);
    assert_eq!(commit(&mut writer, vec![], &shared), (vec![5], WITHIN_IDLE));
}

/// When, what is appended, how long the writer may wait then, and how many slices are left.
type UpkeepStep = (u64, Option<u32>, Wait, u64);

/// Of so many slices of upkeep, the last of them at rest only. A commit of a byte takes a millisecond.
fn check_upkeep(slices: u64, rest_slices: u64, steps: &[UpkeepStep]) {
    let log = Log::default();
    let shared = Arc::clone(&log.shared);
    let mut writer = Writer::new(Box::new(log));
    shared.upkeep_slices.store(slices - rest_slices, Ordering::Relaxed);
    shared.rest_slices.store(rest_slices, Ordering::Relaxed);
    for &(milliseconds, connection, wait, slices) in steps {
        shared.now_milliseconds.store(milliseconds, Ordering::Relaxed);
        let messages = connection.map(|connection| append(connection, SMALL));
        let seen = commit(&mut writer, messages.into_iter().collect(), &shared);
        let left = [&shared.upkeep_slices, &shared.rest_slices].map(|s| s.load(Ordering::Relaxed));
        let connections = connection.into_iter().collect();
        let expected = ((connections, wait), slices);
        assert_eq!((seen, left.iter().sum()), expected, "at {milliseconds}");
    }
}

#[test]
fn upkeep_leaves_appends_that_follow_each_other_alone() {
    const MOMENT: u64 = config::UPKEEP_IDLE;
    let steps = [
        (0, None, Wait::Not, 4),
        (0, Some(1), WITHIN_IDLE, 4),
        (MOMENT, None, within(1), 4),
        (MOMENT, Some(2), WITHIN_IDLE, 4),
        (2 * MOMENT + 1, None, Wait::Not, 3),
        (2 * MOMENT + 1, None, Wait::Not, 2),
        (2 * MOMENT + 2, Some(3), WITHIN_IDLE, 2),
        (2 * MOMENT + 3, None, WITHIN_IDLE, 2),
        (9 * MOMENT, None, Wait::Not, 1),
        (9 * MOMENT, None, Wait::Long, 0),
        (9 * MOMENT, None, Wait::Long, 0),
    ];
    check_upkeep(5, 0, &steps);
}

#[test]
fn what_pays_at_rest_only_waits_for_a_rest() {
    const REST: u64 = config::UPKEEP_REST;
    let steps = [
        (0, Some(1), WITHIN_IDLE, 4),
        (REST, None, within(1), 3),
        (REST, None, within(1), 3),
        (REST + 1, None, Wait::Not, 2),
        (REST + 1, Some(2), WITHIN_IDLE, 2),
        (2 * REST + 1, None, within(1), 2),
        (2 * REST + 2, None, Wait::Not, 1),
        (2 * REST + 2, None, Wait::Long, 0),
        (9 * REST, None, Wait::Long, 0),
    ];
    check_upkeep(4, 3, &steps);
}

#[test]
fn upkeep_waits_for_what_was_not_told() {
    const MOMENT: u64 = config::UPKEEP_IDLE;
    let log = Log::default();
    let shared = Arc::clone(&log.shared);
    let mut writer = Writer::new(Box::new(log));
    shared.upkeep_slices.store(2, Ordering::Relaxed);
    assert_eq!(commit(&mut writer, vec![append(1, 0)], &shared), (vec![1], WITHIN_IDLE));
    let untold = writer.hand_over(Vec::new());
    for milliseconds in [MOMENT, 9 * MOMENT] {
        shared.now_milliseconds.store(milliseconds, Ordering::Relaxed);
        assert_eq!(commit(&mut writer, vec![], &shared), (vec![], Wait::MOMENT));
        assert_eq!(writer.wait_for_upkeep(shared.now()), Wait::MOMENT);
    }
    drop(untold);
    assert_eq!(writer.wait_for_upkeep(shared.now()), WITHIN_IDLE);
    shared.now_milliseconds.store(10 * MOMENT - 1, Ordering::Relaxed);
    assert_eq!(
        commit(&mut writer, vec![], &shared),
        (vec![], within(1)),
        "who was told is awaited"
    );
    shared.now_milliseconds.store(10 * MOMENT, Ordering::Relaxed);
    for wait in [Wait::Not, Wait::Long] {
        assert_eq!(commit(&mut writer, vec![], &shared), (vec![], wait));
    }
}

#[test]
fn what_was_indexed_ahead_is_not_left_open() {
    let shared = Arc::new(Shared::default());
    let mut writer = Writer::new(Box::new(Log { shared: shared.clone(), ..Log::default() }));
    assert_eq!(commit(&mut writer, vec![], &shared), (vec![], Wait::Long), "nothing is to be done");
    shared.is_owed.store(true, Ordering::Relaxed);
    assert_eq!([(); 2].map(|()| writer.index_ahead()), [Ok(true), Ok(false)]);
    assert_eq!(writer.wait_for_upkeep(Duration::ZERO), WITHIN_IDLE);
    shared.upkeep_slices.store(2, Ordering::Relaxed);
    for wait in [Wait::Not, Wait::Long] {
        assert_eq!(commit(&mut writer, vec![], &shared), (vec![], wait), "upkeep commits it");
    }
}

#[test]
fn small_appends_that_come_while_others_are_written_are_committed_with_them() {
    let shared = Shared::default();
    // What comes late, who is committed, and how much is left.
    let subscribe = || ToWriter::Subscribe { slot: 0, ids: [Id::new("a").unwrap()].into() };
    let steps: [(Vec<ToWriter>, Vec<u32>, usize); 5] = [
        (vec![append(1, SMALL), append(2, SMALL)], vec![0, 1, 2], 0),
        (vec![append(1, SMALL), subscribe(), append(2, SMALL)], vec![0, 1], 2),
        (vec![append(1, SHARE)], vec![0], 1),
        (vec![ToWriter::Checkpointed(Ok(0)), append(1, SMALL)], vec![0], 2),
        (vec![append(1, SMALL), ToWriter::Stop], vec![0, 1], 1),
    ];
    for (mut messages, connections, left) in steps {
        let mut writer = Writer::new(Box::<Log>::default());
        let mut looks = 0;
        let mut late = |batch: &mut Vec<ToWriter>| {
            looks += 1;
            batch.append(&mut messages);
        };
        let first = vec![append(0, SMALL)];
        let (committed, _, rest) = commit_with(&mut writer, first, &mut late, &shared);
        assert_eq!((committed, rest.len(), looks), (connections, left, 1));
        // What is left is taken as if it came now.
        let (_, _, rest) = commit_with(&mut writer, rest, &mut nothing, &shared);
        assert!(rest.is_empty());
    }
}

#[test]
fn small_appends_that_come_beside_a_large_one_have_the_turn_after_it() {
    let log = Log::default();
    let shared = Arc::clone(&log.shared);
    let mut writer = Writer::new(Box::new(log));
    let large = vec![append(1, SHARE), append(2, SHARE)];
    let mut messages = vec![append(3, SMALL)];
    let mut late = |batch: &mut Vec<ToWriter>| batch.append(&mut messages);
    let (committed, ..) = commit_with(&mut writer, large, &mut late, &shared);
    assert_eq!(committed, [1]);
    assert_eq!(commit(&mut writer, messages, &shared), (vec![3], within(SHARE as u64 - 1)));
}

#[test]
fn a_transaction_has_room_for_so_much_and_those_that_come_late_have_what_is_left() {
    let (to_writer, inbox) = crossbeam_channel::unbounded();
    let send = |count: usize| (0..count).for_each(|_| to_writer.send(append(0, SMALL)).unwrap());
    let mut batch = vec![ToWriter::Ping { token: Token { connection: 0, exchange: 0 } }];
    let mut room = Room::of_a_transaction(&batch);
    send(10);
    assert!(gather(&inbox, Wait::Long, &mut room, &mut batch), "what is there is not kept waiting");
    assert_eq!(batch.len(), 11);
    send(config::COMMIT_APPENDS_MAX);
    let mut late = Vec::new();
    assert!(gather(&inbox, Wait::Not, &mut room, &mut late));
    assert_eq!(late.len(), config::COMMIT_APPENDS_MAX - 11);
    assert!(gather(&inbox, Wait::Long, &mut room, &mut late), "there is no room to wait for");
    assert_eq!((late.len(), inbox.len()), (config::COMMIT_APPENDS_MAX - 11, 11));
}
