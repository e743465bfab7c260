//! Owns a store that is nothing but a list in memory: what the log says, without a disk. It can be
//! told to fail. The hub's writer and readers use it through the store's own traits.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use rill::event::{Hash, Placed, Seq};
use rill::id::Id;
use rill::store::{
    Batch, Direction, Found, ReadLog, Source, StoreError, StoreGauges, Survey, Transaction, Upkeep,
    WriteLog,
};

#[derive(Clone, Default)]
pub(crate) struct Model(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    events: Vec<Event>,
    places: HashMap<(Id, Hash), Seq>,
    /// Calls that fail from now on, one after the other.
    commits_to_fail: u32,
    reads_to_fail: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    pub(crate) id: Id,
    pub(crate) hash: Hash,
    pub(crate) value: String,
}

impl Model {
    /// Everything that is durable, in `seq` order from 1.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.0.lock().unwrap().events.clone()
    }

    pub(crate) fn last(&self) -> Seq {
        self.0.lock().unwrap().events.len() as Seq
    }

    pub(crate) fn fail_a_commit(&self) {
        self.0.lock().unwrap().commits_to_fail += 1;
    }

    pub(crate) fn fail_a_read(&self) {
        self.0.lock().unwrap().reads_to_fail += 1;
    }

    pub(crate) fn heal(&self) {
        let mut state = self.0.lock().unwrap();
        state.commits_to_fail = 0;
        state.reads_to_fail = 0;
    }

    pub(crate) fn reader(&self) -> ModelReader {
        ModelReader { model: self.clone(), visible: 0 }
    }
}

impl WriteLog for Model {
    fn last(&self) -> Seq {
        Model::last(self)
    }

    fn begin(&mut self) -> Result<Box<dyn Transaction + '_>, StoreError> {
        let mut state = self.0.lock().unwrap();
        if state.commits_to_fail > 0 {
            state.commits_to_fail -= 1;
            return Err(StoreError::Full("the simulation said so".to_owned()));
        }
        Ok(Box::new(Open(self)))
    }

    fn index_ahead(&mut self) -> Result<bool, StoreError> {
        Ok(false)
    }

    fn upkeep(&mut self, _: bool) -> Result<Upkeep, StoreError> {
        Ok(Upkeep::Done)
    }

    fn checkpoint_due(&mut self) -> bool {
        false
    }

    fn lengthening_due(&mut self) -> Option<u64> {
        None
    }

    fn restart_log(&mut self, _: u64) -> Result<(), StoreError> {
        Ok(())
    }

    fn is_restarting(&self) -> bool {
        false
    }

    fn gauges(&self) -> StoreGauges {
        StoreGauges { last: Model::last(self), ..StoreGauges::default() }
    }

    fn close(self: Box<Self>) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A transaction that has begun does not fail, and so is never dropped.
struct Open<'a>(&'a Model);

impl Transaction for Open<'_> {
    fn append(&mut self, batches: &[Batch<'_>]) -> Result<Vec<Box<[Placed]>>, StoreError> {
        let mut state = self.0.0.lock().unwrap();
        Ok(batches.iter().map(|batch| state.append(batch)).collect())
    }

    fn commit(self: Box<Self>) -> Result<(), StoreError> {
        Ok(())
    }
}

impl State {
    fn append(&mut self, batch: &Batch<'_>) -> Box<[Placed]> {
        batch
            .values
            .iter()
            .map(|value| {
                let key = (batch.id.clone(), value.hash);
                if let Some(&seq) = self.places.get(&key) {
                    return Placed { seq, new: false };
                }
                let (id, hash, value) = (batch.id.clone(), value.hash, value.text.to_string());
                self.events.push(Event { id, hash, value });
                let seq = self.events.len() as Seq;
                self.places.insert(key, seq);
                Placed { seq, new: true }
            })
            .collect()
    }
}

pub(crate) struct ModelReader {
    model: Model,
    visible: usize,
}

impl ModelReader {
    fn matching(&self, sources: &[Source<'_>], to: Seq) -> Vec<Found> {
        let state = self.model.0.lock().unwrap();
        assert!(to as usize <= self.visible, "a read is bounded by what was durable before it");
        let events = state.events[..self.visible].iter().zip(1..=to);
        events
            .filter_map(|(event, seq)| {
                let source = sources.iter().position(|s| *s.id == event.id && s.after < seq)?;
                Some(Found { source, seq, hash: event.hash })
            })
            .collect()
    }
}

impl ReadLog for ModelReader {
    fn begin(&mut self) -> Result<(), StoreError> {
        let mut state = self.model.0.lock().unwrap();
        if state.reads_to_fail > 0 {
            state.reads_to_fail -= 1;
            return Err(StoreError::Failed("the simulation said so".to_owned()));
        }
        self.visible = state.events.len();
        Ok(())
    }

    fn end(&mut self) {}

    fn survey(&self, id: &Id, to: Seq) -> Result<Survey, StoreError> {
        let found = self.matching(&[Source { id, after: 0 }], to);
        let last = found.last().map_or(0, |found| found.seq);
        Ok(Survey { count: found.len() as u64, last })
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
        let state = self.model.0.lock().unwrap();
        let mut events: Vec<_> =
            state.events.iter().zip(1..=to).filter(|(_, seq)| *seq > after).collect();
        if direction == Direction::NewestFirst {
            events.reverse();
        }
        let _ = events
            .into_iter()
            .try_for_each(|(event, seq)| visit(seq, event.id.as_str(), event.hash));
        Ok(())
    }

    fn values(
        &self,
        seqs: &[Seq],
        bytes_max: usize,
        visit: &mut dyn FnMut(usize, &str) -> ControlFlow<()>,
    ) -> Result<usize, StoreError> {
        let state = self.model.0.lock().unwrap();
        for (place, seq) in seqs.iter().enumerate() {
            let value = &state.events[*seq as usize - 1].value;
            if value.len() > bytes_max || visit(place, value).is_break() {
                return Ok(place);
            }
        }
        Ok(seqs.len())
    }
}
