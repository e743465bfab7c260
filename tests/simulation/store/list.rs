//! Owns a store that is nothing but the record of what was committed: what the log says, without a
//! disk. It asks for upkeep and checkpoints as the real one does, so that the writer's turns with
//! them are simulated, too.

use std::ops::ControlFlow;

use rill::event::{Epoch, Epochs, Hash, NewValue, Placed, Seq};
use rill::id::Id;
use rill::store::{
    Batch, Checkpoint, Direction, Found, ReadLog, Source, StoreError, StoreGauges, Survey, SyncLog,
    Transaction, Upkeep, WriteLog,
};

use super::{Opened, Shared};

/// A checkpoint is due after so many commits.
const CHECKPOINT_COMMITS: u32 = 20;
const UPKEEP_SLICES: u32 = 2;

pub(super) struct List {
    shared: Shared,
    epochs: Vec<(Epoch, Seq)>,
}

impl List {
    pub(super) fn new(shared: Shared) -> List {
        List { shared, epochs: Vec::new() }
    }

    pub(super) fn open(&mut self) -> Opened {
        let last = self.shared.lock().record.last();
        self.epochs.push((Epoch(self.epochs.len() as u32 + 7), last));
        let shared = || self.shared.clone();
        Opened {
            log: Box::new(Writer { shared: shared(), last, slices: 0, commits: Some(0) }),
            reader: Box::new(Reader { shared: shared(), visible: 0 }),
            sync: Box::new(Nothing),
            checkpoint: Box::new(Nothing),
            epochs: Epochs::new(&self.epochs),
            last,
        }
    }
}

struct Writer {
    shared: Shared,
    last: Seq,
    /// Slices of upkeep that are left.
    slices: u32,
    /// Commits since the last checkpoint; none while one is asked for.
    commits: Option<u32>,
}

impl WriteLog for Writer {
    fn last(&self) -> Seq {
        self.last
    }

    fn begin(&mut self) -> Result<Box<dyn Transaction + '_>, StoreError> {
        Ok(Box::new(Open { writer: self, new: Vec::new() }))
    }

    fn index_ahead(&mut self) -> Result<bool, StoreError> {
        Ok(false)
    }

    fn upkeep(&mut self, _: bool) -> Result<Upkeep, StoreError> {
        self.slices = self.slices.saturating_sub(1);
        Ok(if self.slices > 0 { Upkeep::More } else { Upkeep::Done })
    }

    fn checkpoint_due(&mut self) -> bool {
        let due = self.commits.is_some_and(|commits| commits >= CHECKPOINT_COMMITS);
        if due {
            self.commits = None;
        }
        due
    }

    fn lengthening_due(&mut self) -> Option<u64> {
        None
    }

    fn restart_log(&mut self, _: u64) -> Result<(), StoreError> {
        self.commits = Some(0);
        Ok(())
    }

    fn is_restarting(&self) -> bool {
        self.commits.is_none()
    }

    fn gauges(&self) -> StoreGauges {
        StoreGauges { last: self.last, ..StoreGauges::default() }
    }

    fn close(self: Box<Self>) -> Result<(), StoreError> {
        Ok(())
    }
}

struct Nothing;

impl SyncLog for Nothing {
    fn sync(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

impl Checkpoint for Nothing {
    fn run(&mut self) -> Result<u64, StoreError> {
        Ok(0)
    }

    fn lengthen(&mut self, _: u64) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Says where everything goes; the record itself is written by whoever compares it.
struct Open<'a> {
    writer: &'a mut Writer,
    new: Vec<(Id, Hash)>,
}

impl Transaction for Open<'_> {
    fn append(&mut self, batches: &[Batch<'_>]) -> Result<Vec<Box<[Placed]>>, StoreError> {
        let state = self.writer.shared.lock();
        let before = state.record.last();
        let new = &mut self.new;
        let mut place = |id: &Id, value: &NewValue| {
            if let Some(seq) = state.record.place(id.as_str(), &value.hash.0) {
                return Placed { seq, new: false };
            }
            let known = new.iter().position(|(i, hash)| i == id && *hash == value.hash);
            let place = known.unwrap_or(new.len());
            if known.is_none() {
                new.push((id.clone(), value.hash));
            }
            Placed { seq: before + place as Seq + 1, new: known.is_none() }
        };
        let placed = batches
            .iter()
            .map(|batch| batch.values.iter().map(|value| place(batch.id, value)).collect());
        Ok(placed.collect())
    }

    fn commit(self: Box<Self>) -> Result<(), StoreError> {
        let Open { writer, new } = *self;
        writer.last = writer.shared.lock().record.last() + new.len() as Seq;
        writer.slices = UPKEEP_SLICES;
        writer.commits = writer.commits.map(|commits| commits + 1);
        Ok(())
    }
}

struct Reader {
    shared: Shared,
    visible: Seq,
}

impl Reader {
    fn matching(&self, sources: &[Source<'_>], to: Seq) -> Vec<Found> {
        assert!(to <= self.visible, "a read is bounded by what was durable before it");
        let state = self.shared.lock();
        let mut found: Vec<Found> = Vec::new();
        for (place, source) in sources.iter().enumerate() {
            let events = state.record.of(source.id.as_str(), source.after, to);
            found.extend(events.map(|(seq, event)| Found {
                source: place,
                seq,
                hash: Hash(event.digest),
            }));
        }
        found.sort_by_key(|found| found.seq);
        found
    }
}

impl ReadLog for Reader {
    fn begin(&mut self) -> Result<(), StoreError> {
        self.visible = self.shared.lock().durable;
        Ok(())
    }

    fn end(&mut self) {}

    fn survey(&self, id: &Id, to: Seq) -> Result<Survey, StoreError> {
        let record = &self.shared.lock().record;
        Ok(Survey { count: record.count(id.as_str(), to), last: record.last_of(id.as_str(), to) })
    }

    fn find(
        &self,
        sources: &[Source<'_>],
        to: Seq,
        direction: Direction,
        visit: &mut dyn FnMut(Found) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let mut found = self.matching(sources, to);
        if direction == Direction::NewestFirst {
            found.reverse();
        }
        let _ = found.into_iter().try_for_each(visit);
        Ok(())
    }

    fn scan(
        &self,
        after: Seq,
        to: Seq,
        direction: Direction,
        visit: &mut dyn FnMut(Seq, &str, Hash) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let state = self.shared.lock();
        let mut events: Vec<_> = state.record.all(to).filter(|(seq, _)| *seq > after).collect();
        if direction == Direction::NewestFirst {
            events.reverse();
        }
        let mut events = events.into_iter();
        let _ = events.try_for_each(|(seq, e)| visit(seq, &e.storage, Hash(e.digest)));
        Ok(())
    }

    fn values(
        &self,
        seqs: &[Seq],
        bytes_max: usize,
        visit: &mut dyn FnMut(usize, &str) -> ControlFlow<()>,
    ) -> Result<usize, StoreError> {
        let state = self.shared.lock();
        let event = |seq: &Seq| state.record.event(*seq).expect("only what exists is read");
        for (place, event) in seqs.iter().map(event).enumerate() {
            if event.value.len() > bytes_max || visit(place, &event.value).is_break() {
                return Ok(place);
            }
        }
        Ok(seqs.len())
    }
}
