//! Owns the disk: what outlives a crash. Under every store stands the record of what was committed,
//! and how much of it is durable; and before it what the simulation breaks: commits and reads that fail,
//! once or until they are healed, and a process that dies within a commit, before or after it, or
//! because a sync failed.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard};

use rill::event::{Epochs, Hash, Placed, Seq};
use rill::id::Id;
use rill::store::{
    Batch, Checkpoint, Direction, Found, ReadLog, Source, StoreError, StoreGauges, Survey, SyncLog,
    Transaction, Upkeep, WriteLog,
};

use rusqlite::Connection;

use super::random::Random;
use super::record::Record;

mod folder;
mod list;

use folder::Folder;
use list::List;

/// What happens to the next commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommitFault {
    Full,
    Busy,
    /// The second value that is new cannot be written.
    Within,
    /// The process dies; nothing was committed.
    CrashBefore,
    /// The process dies when it was committed and nobody knows.
    CrashAfter,
}

#[derive(Default)]
pub(crate) struct Sabotage {
    pub(crate) commit: Option<CommitFault>,
    /// The next sync fails.
    pub(crate) sync: bool,
    /// So many calls of readers succeed before one fails.
    pub(crate) read: Option<u32>,
    /// Slices of upkeep, and checkpoints, that fail.
    pub(crate) upkeep: u32,
    /// Everything fails until this is taken away.
    pub(crate) outage: bool,
}

impl Sabotage {
    fn fails_read(&mut self) -> Result<(), StoreError> {
        let fails = match &mut self.read {
            _ if self.outage => true,
            Some(0) => {
                self.read = None;
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        };
        if fails { Err(failed()) } else { Ok(()) }
    }

    fn fails_upkeep(&mut self) -> Result<(), StoreError> {
        if self.outage {
            return Err(failed());
        }
        if self.upkeep > 0 {
            self.upkeep -= 1;
            return Err(failed());
        }
        Ok(())
    }
}

pub(crate) const WHY: &str = "the simulation said so";

fn failed() -> StoreError {
    StoreError::Failed(WHY.to_owned())
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) record: Record,
    /// The last event that no crash takes away.
    pub(crate) durable: Seq,
    /// The last events of the commits since.
    unsynced: Vec<Seq>,
    pub(crate) sabotage: Sabotage,
}

/// What writer, readers and the checks share.
#[derive(Clone, Default)]
pub(crate) struct Shared(Arc<Mutex<State>>);

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics and goes on")
    }
}

pub(crate) struct Disk {
    pub(crate) shared: Shared,
    engine: Engine,
}

/// What keeps the events: a list, or the store that serves.
enum Engine {
    List(List),
    Sqlite(Folder),
}

pub(crate) struct Opened {
    pub(crate) log: Box<dyn WriteLog>,
    pub(crate) reader: Box<dyn ReadLog>,
    pub(crate) sync: Box<dyn SyncLog>,
    pub(crate) checkpoint: Box<dyn Checkpoint>,
    pub(crate) epochs: Epochs,
    pub(crate) last: Seq,
}

impl Disk {
    pub(crate) fn new(sqlite: bool) -> Disk {
        let shared = Shared::default();
        let engine = if sqlite {
            Engine::Sqlite(Folder::new())
        } else {
            Engine::List(List::new(shared.clone()))
        };
        Disk { shared, engine }
    }

    /// What a process that died leaves behind; called while it still has it open. Of what was not
    /// synced the system has all, and without power the list has only the first commits.
    pub(crate) fn crash(&mut self, random: &mut Random) {
        let state = &mut *self.shared.lock();
        match &mut self.engine {
            Engine::Sqlite(folder) => folder.snatch(),
            Engine::List(_) => {
                let kept = random.below(state.unsynced.len() as u64 + 1) as usize;
                let last = state.unsynced[..kept].last().copied();
                state.record.truncate(last.unwrap_or(state.durable));
            }
        }
    }

    /// A process starts over what is there.
    pub(crate) fn open(&mut self) -> Opened {
        let opened = match &mut self.engine {
            Engine::List(list) => list.open(),
            Engine::Sqlite(folder) => folder.open(),
        };
        let state = &mut *self.shared.lock();
        assert_eq!(opened.last, state.record.last(), "what is durable stays");
        state.durable = opened.last;
        state.unsynced.clear();
        let folder = match &self.engine {
            Engine::List(_) => None,
            Engine::Sqlite(folder) => Some(folder.clone()),
        };
        Opened {
            log: Box::new(Written { shared: self.shared.clone(), log: opened.log, folder }),
            reader: Box::new(Read { shared: self.shared.clone(), log: opened.reader }),
            sync: Box::new(Synced { shared: self.shared.clone(), log: opened.sync }),
            ..opened
        }
    }
}

struct Synced {
    shared: Shared,
    log: Box<dyn SyncLog>,
}

impl SyncLog for Synced {
    fn sync(&self) -> Result<(), StoreError> {
        if std::mem::take(&mut self.shared.lock().sabotage.sync) {
            return Err(StoreError::Fatal(WHY.to_owned()));
        }
        self.log.sync()?;
        let state = &mut *self.shared.lock();
        state.durable = state.record.last();
        state.unsynced.clear();
        Ok(())
    }
}

/// The writer's side: every transaction is compared with the record, and put into it.
struct Written {
    shared: Shared,
    log: Box<dyn WriteLog>,
    folder: Option<Folder>,
}

impl WriteLog for Written {
    fn last(&self) -> Seq {
        let last = self.log.last();
        assert_eq!(last, self.shared.lock().record.last(), "the store knows its last event");
        last
    }

    fn begin(&mut self) -> Result<Box<dyn Transaction + '_>, StoreError> {
        let (fault, outage) = {
            let sabotage = &mut self.shared.lock().sabotage;
            (sabotage.commit.take(), sabotage.outage)
        };
        let refused = match fault {
            Some(CommitFault::CrashBefore) => None,
            _ if outage => return Err(failed()),
            Some(CommitFault::Busy) => return Err(failed()),
            Some(CommitFault::Within) => {
                let folder = self.folder.clone().ok_or_else(failed)?;
                // Nothing can be put in its way while a transaction that indexes ahead is open.
                self.log.upkeep(false)?;
                let spike = folder.refuse(self.log.last() + 2);
                Some(Refused { folder, spike })
            }
            _ => None,
        };
        let transaction = self.log.begin()?;
        let shared = self.shared.clone();
        Ok(Box::new(Writing { transaction, shared, fault, written: Vec::new(), _refused: refused }))
    }

    fn index_ahead(&mut self) -> Result<bool, StoreError> {
        self.shared.lock().sabotage.fails_upkeep()?;
        self.log.index_ahead()
    }

    fn upkeep(&mut self, at_rest: bool) -> Result<Upkeep, StoreError> {
        self.shared.lock().sabotage.fails_upkeep()?;
        self.log.upkeep(at_rest)
    }

    fn checkpoint_due(&mut self) -> bool {
        self.log.checkpoint_due()
    }

    fn lengthening_due(&mut self) -> Option<u64> {
        self.log.lengthening_due()
    }

    fn restart_log(&mut self, copied_bytes: u64) -> Result<(), StoreError> {
        // Called all the same: without it no checkpoint would be due again.
        self.log.restart_log(copied_bytes)?;
        self.shared.lock().sabotage.fails_upkeep()
    }

    fn is_restarting(&self) -> bool {
        self.log.is_restarting()
    }

    fn gauges(&self) -> StoreGauges {
        self.log.gauges()
    }

    fn close(self: Box<Self>) -> Result<(), StoreError> {
        self.log.close()
    }
}

/// A transaction of the writer's.
struct Writing<'a> {
    transaction: Box<dyn Transaction + 'a>,
    shared: Shared,
    fault: Option<CommitFault>,
    /// Identifiers, values, and where they stand.
    written: Vec<(Id, String, Placed)>,
    /// Dropped after the transaction, which holds the lock.
    _refused: Option<Refused>,
}

struct Refused {
    folder: Folder,
    spike: Connection,
}

impl Drop for Refused {
    fn drop(&mut self) {
        self.folder.accept(&self.spike);
    }
}

impl Transaction for Writing<'_> {
    fn append(&mut self, batches: &[Batch<'_>]) -> Result<Vec<Box<[Placed]>>, StoreError> {
        let placed = self.transaction.append(batches)?;
        for (batch, placed) in batches.iter().zip(&placed) {
            for (value, placed) in batch.values.iter().zip(placed) {
                self.written.push((batch.id.clone(), value.text.to_string(), *placed));
            }
        }
        Ok(placed)
    }

    fn commit(self: Box<Self>) -> Result<(), StoreError> {
        let fatal = || StoreError::Fatal(WHY.to_owned());
        match self.fault {
            Some(CommitFault::CrashBefore) => return Err(fatal()),
            Some(CommitFault::Full) => return Err(StoreError::Full(WHY.to_owned())),
            _ => {}
        }
        self.transaction.commit()?;
        let state = &mut *self.shared.lock();
        for (id, value, placed) in &self.written {
            let (seq, new) = state.record.append(id.as_str(), value);
            assert_eq!(*placed, Placed { seq, new }, "a value stands once in its storage");
        }
        state.unsynced.push(state.record.last());
        if self.fault == Some(CommitFault::CrashAfter) { Err(fatal()) } else { Ok(()) }
    }
}

/// A reader's side.
struct Read {
    shared: Shared,
    log: Box<dyn ReadLog>,
}

impl Read {
    fn try_it(&self) -> Result<&dyn ReadLog, StoreError> {
        self.shared.lock().sabotage.fails_read()?;
        Ok(&*self.log)
    }

    /// Nobody asks for what is not durable: it would be visible before.
    fn durable(&self, to: Seq) {
        assert!(to <= self.shared.lock().durable, "what is visible is durable");
    }
}

impl ReadLog for Read {
    fn begin(&mut self) -> Result<(), StoreError> {
        self.shared.lock().sabotage.fails_read()?;
        self.log.begin()
    }

    fn end(&mut self) {
        self.log.end();
    }

    fn survey(&self, id: &Id, to: Seq) -> Result<Survey, StoreError> {
        self.durable(to);
        self.try_it()?.survey(id, to)
    }

    fn find(
        &self,
        sources: &[Source<'_>],
        to: Seq,
        direction: Direction,
        visit: &mut dyn FnMut(Found) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.durable(to);
        self.try_it()?.find(sources, to, direction, visit)
    }

    fn scan(
        &self,
        after: Seq,
        to: Seq,
        direction: Direction,
        visit: &mut dyn FnMut(Seq, &str, Hash) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.durable(to);
        self.try_it()?.scan(after, to, direction, visit)
    }

    fn values(
        &self,
        seqs: &[Seq],
        bytes_max: usize,
        visit: &mut dyn FnMut(usize, &str) -> ControlFlow<()>,
    ) -> Result<usize, StoreError> {
        self.try_it()?.values(seqs, bytes_max, visit)
    }
}
