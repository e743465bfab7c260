//! Owns the syncer: what the writer committed while the last sync went on is made durable by the next,
//! all of it at once, and its notices are told after that, in the order in which they came. So commits
//! are written while others are synced, and how many share a sync needs no rule. `step` is that, `run`
//! the loop around it, which waits for late ones where syncs are long, and `Teller` what the writer
//! uses, too, where there is nothing to be done meanwhile. Called by `main` and by the writer.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError};

use crate::config;
use crate::message::{FromWriter, ToSyncer};
use crate::store::{StoreError, SyncLog};
use crate::sync::{AtomicUsize, Ordering};

/// Makes durable what was committed, and returns the notices that may be told then. An error is the
/// end: what the disk holds is no longer known.
pub fn step(
    log: &dyn SyncLog,
    group: &mut [ToSyncer],
    clock: &dyn Fn() -> Duration,
) -> Result<Vec<FromWriter>, StoreError> {
    let mut took = Duration::ZERO;
    if appends(group) > 0 {
        let begin = clock();
        log.sync()?;
        took = clock() - begin;
    }
    let mut notices: Vec<FromWriter> =
        group.iter_mut().flat_map(|told| told.notices.drain(..)).collect();
    for notice in &mut notices {
        if let FromWriter::Committed(commit) = notice {
            commit.took += took;
        }
    }
    Ok(notices)
}

/// What writer and syncer share: either may tell, but only while the other has nothing that is untold.
pub struct Teller {
    log: Box<dyn SyncLog>,
    notices: Sender<FromWriter>,
    wake: Box<dyn Fn() + Send + Sync>,
    /// What a sync takes: as many take longer as do not. One beside a checkpoint says nothing of the
    /// others.
    usual_sync_microseconds: AtomicUsize,
}

impl Teller {
    pub fn new(
        log: Box<dyn SyncLog>,
        notices: Sender<FromWriter>,
        wake: Box<dyn Fn() + Send + Sync>,
    ) -> Teller {
        Teller { log, notices, wake, usual_sync_microseconds: AtomicUsize::new(0) }
    }

    /// The group counts as told when this returns.
    pub fn tell(
        &self,
        mut group: Vec<ToSyncer>,
        clock: &dyn Fn() -> Duration,
    ) -> Result<(), StoreError> {
        let is_synced = appends(&group) > 0;
        let begin = clock();
        let notices = step(&*self.log, &mut group, clock)?;
        if is_synced {
            self.note(clock() - begin);
        }
        for notice in notices {
            // The loop takes notices only when it is awake.
            if let Err(TrySendError::Full(notice)) = self.notices.try_send(notice) {
                (self.wake)();
                let _ = self.notices.send(notice);
            }
        }
        (self.wake)();
        Ok(())
    }

    fn note(&self, took: Duration) {
        let usual = self.usual_sync();
        let step = usual / config::PACE_SYNCS + Duration::from_micros(1);
        let usual = if took > usual { usual + step } else { usual.saturating_sub(step) };
        self.usual_sync_microseconds.store(usual.as_micros() as usize, Ordering::Relaxed);
    }

    fn usual_sync(&self) -> Duration {
        Duration::from_micros(self.usual_sync_microseconds.load(Ordering::Relaxed) as u64)
    }

    /// Whether a sync takes so long that it is worth waiting for others.
    pub fn is_slow(&self) -> bool {
        self.usual_sync() >= Duration::from_millis(config::SYNC_LONG)
    }
}

/// The syncer's thread: until the writer is gone, and everything it said is told.
pub fn run(teller: &Teller, inbox: &Receiver<ToSyncer>) -> Result<(), StoreError> {
    let origin = Instant::now();
    let clock = || origin.elapsed();
    let mut circulating = Circulating::default();
    let mut next = Vec::new();
    loop {
        let mut group = std::mem::take(&mut next);
        if group.is_empty() {
            let Ok(first) = inbox.recv() else { return Ok(()) };
            group.push(first);
        }
        group.extend(inbox.try_iter());
        if teller.is_slow() && appends(&group) > 0 {
            let patience = teller.usual_sync() / config::SYNC_PATIENCE_PART;
            await_others(inbox, circulating.appends, patience, &mut group);
        }
        let synced = appends(&group);
        teller.tell(group, &clock)?;
        next.extend(inbox.try_iter());
        circulating.note(synced + appends(&next));
    }
}

/// Appends on their way round. Whoever was answered appends again a moment later, which is a moment
/// after the next sync has begun: where syncs are long, groups would form that have every other one
/// only.
#[derive(Debug, Default)]
struct Circulating {
    /// The most that were synced and came meanwhile, slowly forgotten.
    appends: usize,
}

impl Circulating {
    fn note(&mut self, appends: usize) {
        let forgotten = self.appends.div_ceil(config::PACE_SYNCS as usize);
        self.appends = appends.max(self.appends - forgotten);
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
    awaited: usize,
    patience: Duration,
    group: &mut Vec<ToSyncer>,
) {
    let end = Instant::now() + patience;
    while appends(group) < awaited
        && let Ok(told) = inbox.recv_deadline(end)
    {
        group.push(told);
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::bounded;

    use super::*;
    use crate::event::{NewValues, Seq};
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
        fn sync(&self) -> Result<(), StoreError> {
            self.begins.send(()).unwrap();
            self.ends.recv().unwrap()
        }
    }

    fn told(notices: Vec<FromWriter>) -> ToSyncer {
        ToSyncer { notices, untold: Counter::default().hold(1) }
    }

    fn commit(last: Seq) -> FromWriter {
        let token = Token { connection: 0, exchange: 0 };
        let values = NewValues::List(Vec::new());
        let append = Append { token, id: Id::new("a").unwrap(), values };
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
        let log = Box::new(Log { begins, ends: ended });
        let teller = Teller::new(log, notices, Box::new(|| {}));
        let syncer = std::thread::spawn(move || run(&teller, &inbox));
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
            await_others(&inbox, awaited, patience, &mut group);
            assert_eq!(group.len(), taken, "of {awaited}");
            group.into_iter().for_each(|told| to_syncer.send(told).unwrap());
        }
        drop(to_syncer);
        let mut group = Vec::new();
        await_others(&inbox, 9, hour, &mut group);
        assert_eq!(group.len(), 5, "the writer is gone");
    }

    #[test]
    fn syncs_are_slow_when_most_are() {
        let (notices, _from_syncer) = bounded(1);
        let (begins, _begun) = bounded(0);
        let (_ends, ends) = bounded(0);
        let teller = Teller::new(Box::new(Log { begins, ends }), notices, Box::new(|| {}));
        for (microseconds, expected) in [(900, false), (1_200, true), (50_000, true), (300, false)]
        {
            (0..400).for_each(|_| teller.note(Duration::from_micros(microseconds)));
            assert_eq!(teller.is_slow(), expected, "{microseconds}");
            teller.note(Duration::from_secs(1));
            assert_eq!(teller.is_slow(), expected, "one says little");
        }
    }

    #[test]
    fn more_are_noticed_at_once_and_fewer_soon() {
        let mut circulating = Circulating::default();
        let mut note = |appends| {
            circulating.note(appends);
            circulating.appends
        };
        assert_eq!((0..200).map(|_| note(10)).max(), Some(10));
        assert_eq!(note(300), 300);
        let syncs = (0..).find(|_| note(10) == 10).unwrap();
        assert!((10..100).contains(&syncs), "{syncs} syncs");
    }
}
