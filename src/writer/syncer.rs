//! Owns the syncer: what the writer committed while the last sync went on is made durable by the next,
//! all of it at once, and its notices are told after that, in the order in which they came. So commits
//! are written while others are synced, and how many share a sync needs no rule. `step` is that, `run`
//! the loop around it, and `Pace` says where a sync waits for more. Called by `main`.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError};

use crate::config;
use crate::message::{FromWriter, ToSyncer};
use crate::store::{StoreError, SyncLog};

/// Makes durable what was committed, and returns the notices that may be told then. An error is the
/// end: what the disk holds is no longer known.
pub fn step(
    log: &mut dyn SyncLog,
    group: Vec<ToSyncer>,
    clock: &dyn Fn() -> Duration,
) -> Result<Vec<FromWriter>, StoreError> {
    let mut took = Duration::ZERO;
    if appends(&group) > 0 {
        let begin = clock();
        log.sync()?;
        took = clock() - begin;
    }
    let mut notices: Vec<FromWriter> = group.into_iter().flat_map(|told| told.notices).collect();
    for notice in &mut notices {
        if let FromWriter::Committed(commit) = notice {
            commit.took += took;
        }
    }
    Ok(notices)
}

/// The channels of the syncer's thread.
pub struct Channels {
    pub inbox: Receiver<ToSyncer>,
    pub notices: Sender<FromWriter>,
    pub wake: Box<dyn Fn() + Send>,
}

/// The syncer's thread: until the writer is gone, and everything it said is told.
pub fn run(mut log: Box<dyn SyncLog>, channels: Channels) -> Result<(), StoreError> {
    let origin = Instant::now();
    let clock = move || origin.elapsed();
    let mut pace = Pace::default();
    let mut group = Vec::new();
    loop {
        if group.is_empty() {
            let Ok(first) = channels.inbox.recv() else { return Ok(()) };
            group.push(first);
        }
        group.extend(channels.inbox.try_iter());
        if appends(&group) > 0 {
            await_others(&channels.inbox, pace.awaited(), &mut group);
        }
        let synced = appends(&group);
        let begin = clock();
        let notices = step(&mut *log, std::mem::take(&mut group), &clock)?;
        if synced > 0 {
            group.extend(channels.inbox.try_iter());
            pace.synced(synced, clock() - begin, appends(&group));
        }
        tell(&channels, notices);
    }
}

fn appends(group: &[ToSyncer]) -> usize {
    let notices = group.iter().flat_map(|told| &told.notices);
    notices
        .map(|notice| match notice {
            FromWriter::Committed(commit) => commit.appended.len(),
            _ => 0,
        })
        .sum()
}

/// Takes what is on its way, until there are so many appends or so much time has passed.
fn await_others(
    inbox: &Receiver<ToSyncer>,
    (awaited, patience): (usize, Duration),
    group: &mut Vec<ToSyncer>,
) {
    let end = Instant::now() + patience;
    while appends(group) < awaited
        && let Ok(told) = inbox.recv_deadline(end)
    {
        group.push(told);
    }
}

/// The loop takes notices only when it is awake: it is woken before a full queue is waited for.
fn tell(channels: &Channels, notices: Vec<FromWriter>) {
    for notice in notices {
        if let Err(TrySendError::Full(notice)) = channels.notices.try_send(notice) {
            (channels.wake)();
            let _ = channels.notices.send(notice);
        }
    }
    (channels.wake)();
}

/// What a sync waits for. Whoever was answered appends again a moment later, which is a moment after
/// the next sync has begun: where syncs are long, groups would form that have every other one only.
#[derive(Debug, Default)]
struct Pace {
    /// Appends on their way round: the most that were synced and came meanwhile, slowly forgotten.
    circulating: usize,
    /// What a sync takes: as many take longer as do not. One beside a checkpoint says nothing of the
    /// others.
    sync: Duration,
}

impl Pace {
    fn synced(&mut self, appends: usize, took: Duration, came: usize) {
        let forgotten = self.circulating.div_ceil(config::PACE_SYNCS as usize);
        self.circulating = (appends + came).max(self.circulating - forgotten);
        let step = self.sync / config::PACE_SYNCS + Duration::from_micros(1);
        if took > self.sync {
            self.sync += step;
        } else {
            self.sync = self.sync.saturating_sub(step);
        }
    }

    /// How many appends the next sync waits for, and for how long.
    fn awaited(&self) -> (usize, Duration) {
        let is_long = self.sync >= Duration::from_millis(config::SYNC_LONG);
        let awaited = if is_long { self.circulating } else { 0 };
        (awaited, self.sync / config::SYNC_PATIENCE_PART)
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::bounded;

    use super::*;
    use crate::event::Seq;
    use crate::held::Counter;
    use crate::id::Id;
    use crate::message::{Append, Appended, Commit, Token};
    use crate::store::StoreGauges;

    /// A log that says when it begins to sync, and goes on when it is told how that ends.
    struct Log {
        begins: Sender<()>,
        ends: Receiver<Result<(), StoreError>>,
    }

    impl SyncLog for Log {
        fn sync(&mut self) -> Result<(), StoreError> {
            self.begins.send(()).unwrap();
            self.ends.recv().unwrap()
        }
    }

    fn told(notices: Vec<FromWriter>) -> ToSyncer {
        ToSyncer { notices, untold: Counter::default().hold(1) }
    }

    fn commit(last: Seq) -> FromWriter {
        let token = Token { connection: 0, exchange: 0 };
        let append = Append { token, id: Id::new("a").unwrap(), values: Vec::new() };
        let appended = vec![Appended { append, placed: Box::default() }];
        let (took, store) = (Duration::ZERO, StoreGauges::default());
        FromWriter::Committed(Commit { appended, last, took, store })
    }

    fn seq(notice: &FromWriter) -> Seq {
        match notice {
            FromWriter::Committed(Commit { last, .. }) | FromWriter::Joined { last, .. } => *last,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn commits_are_told_after_a_sync_that_began_after_them_and_share_it() {
        let (to_syncer, inbox) = bounded(config::UNSYNCED_MAX);
        let (notices, from_syncer) = bounded(config::NOTICES_MAX);
        let (begins, begun) = bounded(0);
        let (ends, ended) = bounded(0);
        let channels = Channels { inbox, notices, wake: Box::new(|| {}) };
        let syncer = std::thread::spawn(|| run(Box::new(Log { begins, ends: ended }), channels));
        let told_by_now = || from_syncer.try_iter().map(|notice| seq(&notice)).collect::<Vec<_>>();

        to_syncer.send(told(vec![FromWriter::Joined { slot: 0, last: 1 }])).unwrap();
        assert_eq!(
            seq(&from_syncer.recv().unwrap()),
            1,
            "nothing was committed: nothing is synced"
        );
        to_syncer.send(told(vec![commit(2), FromWriter::Joined { slot: 1, last: 3 }])).unwrap();
        begun.recv().unwrap();
        (4..8).for_each(|last| to_syncer.send(told(vec![commit(last)])).unwrap());
        assert!(told_by_now().is_empty());
        ends.send(Ok(())).unwrap();
        begun.recv().unwrap();
        assert_eq!(told_by_now(), [2, 3]);
        to_syncer.send(told(vec![FromWriter::Joined { slot: 2, last: 8 }])).unwrap();
        ends.send(Ok(())).unwrap();
        let next: Vec<Seq> = from_syncer.iter().take(5).map(|notice| seq(&notice)).collect();
        assert_eq!(next, [4, 5, 6, 7, 8]);

        to_syncer.send(told(vec![commit(9)])).unwrap();
        begun.recv().unwrap();
        ends.send(Err(StoreError::Fatal("lost".to_owned()))).unwrap();
        assert_eq!(syncer.join().unwrap(), Err(StoreError::Fatal("lost".to_owned())));
        assert!(told_by_now().is_empty());
    }

    #[test]
    fn what_is_on_its_way_is_waited_for_until_there_is_enough() {
        let (to_syncer, inbox) = bounded(8);
        (0..5).for_each(|last| to_syncer.send(told(vec![commit(last)])).unwrap());
        let hour = Duration::from_secs(3_600);
        for (awaited, patience, taken) in [(0, hour, 0), (2, hour, 2), (9, Duration::ZERO, 5)] {
            let mut group = Vec::new();
            await_others(&inbox, (awaited, patience), &mut group);
            assert_eq!(group.len(), taken, "of {awaited}");
            group.into_iter().for_each(|told| to_syncer.send(told).unwrap());
        }
        drop(to_syncer);
        let mut group = Vec::new();
        await_others(&inbox, (9, hour), &mut group);
        assert_eq!(group.len(), 5, "the writer is gone");
    }

    fn after_many(appends: usize, microseconds: u64, came: usize) -> (usize, Duration) {
        let mut pace = Pace::default();
        for _ in 0..400 {
            pace.synced(appends, Duration::from_micros(microseconds), came);
        }
        pace.awaited()
    }

    #[test]
    fn others_are_waited_for_where_a_sync_is_long() {
        for (appends, microseconds, came, expected) in
            [(32, 5_000, 32, 64), (32, 900, 32, 0), (1, 5_000, 0, 1), (400, 1_100, 0, 400)]
        {
            let (awaited, patience) = after_many(appends, microseconds, came);
            assert_eq!(awaited, expected, "{appends} {microseconds} {came}");
            assert!(patience <= Duration::from_micros(microseconds / 15));
        }
    }

    #[test]
    fn more_are_noticed_at_once_and_fewer_soon() {
        let mut pace = Pace::default();
        let mut circulating = |appends| {
            pace.synced(appends, Duration::ZERO, 0);
            pace.circulating
        };
        for _ in 0..200 {
            circulating(10);
        }
        assert_eq!(circulating(300), 300);
        let syncs = (0..).find(|_| circulating(10) == 10).unwrap();
        assert!((10..100).contains(&syncs), "{syncs} syncs");
    }
}
