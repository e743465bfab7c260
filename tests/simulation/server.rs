//! Owns one life of the server: hub, writer, syncer, reader and the queues between them, as the process
//! around them would connect them; and what holds of them after every step.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rill::config;
use rill::event::Seq;
use rill::hub::{Effect, Hub, Now, Options};
use rill::id::Id;
use rill::index::Published;
use rill::message::{FromReader, FromWriter, Slot, ToReader, ToSyncer, ToWriter};
use rill::reader::Reader;
use rill::route::Limits;
use rill::store::{Checkpoint, StoreError, SyncLog};
use rill::writer::{Wait, Writer, syncer};

use crate::random::Random;
use crate::store::{Opened, Shared};

/// Fewer bytes than a few events take, so that streams lag.
const OUTBOX_BYTES_MAX: usize = 2_000;
/// A page, what it was asked over, the largest event there is, and heads.
const QUEUED_BYTES_MAX: usize = config::OUTBOX_LOW_BYTES + config::PAGE_BYTES + 150_000 + 8 * 1_024;

pub(crate) struct Server {
    pub(crate) hub: Hub,
    pub(crate) epoch: String,
    writer: Writer,
    reader: Reader,
    sync: Box<dyn SyncLog>,
    checkpoint: Box<dyn Checkpoint>,
    published: Published,
    shared: Shared,
    to_writer: VecDeque<ToWriter>,
    to_reader: VecDeque<ToReader>,
    to_syncer: VecDeque<ToSyncer>,
    from_writer: VecDeque<FromWriter>,
    from_reader: VecDeque<FromReader>,
    checkpoint_due: bool,
    lengthen: Option<u64>,
    wait: Wait,
    /// The writer's clock.
    now: Duration,
    /// Who subscribes to what, as the writer was told.
    subscribed: BTreeMap<Slot, Arc<[Id]>>,
    /// The largest `seq` whose commit the hub was told of.
    pub(crate) noticed: Seq,
    pub(crate) stopping: bool,
    /// The hub said that it has.
    pub(crate) finished: bool,
}

/// What the world has to do for the server.
pub(crate) enum Deed {
    Flush(u32),
    Deliver(u32),
    Resume(u32),
    EndOutput(u32),
    Close(u32),
}

impl Server {
    pub(crate) fn start(opened: Opened, shared: Shared, connections: usize, seed: u64) -> Server {
        let limits = Limits { value_bytes_max: config::VALUE_BYTES_MAX };
        let mut random = Random::new(seed);
        let seeds = Box::new(move || random.next());
        let epoch = opened.epochs.current();
        let writer = Writer::new(opened.log);
        let hub = Hub::new(Options {
            epochs: opened.epochs,
            visible: opened.last,
            limits,
            body_bytes_max: config::BODY_BYTES_MAX,
            outbox_bytes_max: OUTBOX_BYTES_MAX,
            connections_max: connections,
            readers: 1,
            cors_origin: "*".to_owned(),
            access_log: false,
            seed,
        });
        Server {
            hub,
            epoch: epoch.to_string(),
            published: writer.published(),
            writer,
            reader: Reader::new(opened.reader, epoch, limits, seeds),
            sync: opened.sync,
            checkpoint: opened.checkpoint,
            shared,
            to_writer: VecDeque::new(),
            to_reader: VecDeque::new(),
            to_syncer: VecDeque::new(),
            from_writer: VecDeque::new(),
            from_reader: VecDeque::new(),
            checkpoint_due: false,
            lengthen: None,
            wait: Wait::Not,
            now: Duration::ZERO,
            subscribed: BTreeMap::new(),
            noticed: opened.last,
            stopping: false,
            finished: false,
        }
    }

    /// A turn of the writer, if its loop would take one. An error ends the process.
    pub(crate) fn writer_steps(&mut self, random: &mut Random) -> Result<(), StoreError> {
        self.writer_step(8, random)
    }

    fn writer_step(&mut self, most: u64, random: &mut Random) -> Result<(), StoreError> {
        let full = self.to_syncer.len() >= config::UNSYNCED_MAX;
        if full || (self.to_writer.is_empty() && self.wait == Wait::Long) {
            return Ok(());
        }
        let most = (1 + random.below(most) as usize).min(self.to_writer.len());
        let mut batch: Vec<ToWriter> = self.to_writer.drain(..most).collect();
        for message in &batch {
            match message {
                ToWriter::Subscribe { slot, ids } => {
                    let former = self.subscribed.insert(*slot, Arc::clone(ids));
                    assert!(former.is_none(), "a slot is used again after it was left");
                }
                ToWriter::Unsubscribe { slot } => drop(self.subscribed.remove(slot)),
                _ => {}
            }
        }
        self.now += Duration::from_millis(random.below(3));
        if let (true, Wait::Within(time)) = (batch.is_empty(), self.wait) {
            self.now += time;
        }
        let (now, mut notices) = (self.now, Vec::new());
        let mut late = |batch: &mut Vec<ToWriter>| {
            let most = (random.below(4) as usize).min(self.to_writer.len());
            batch.extend(self.to_writer.drain(..most));
        };
        let step = self.writer.step(&mut batch, &mut late, &mut notices, &|| now)?;
        batch.drain(..).rev().for_each(|message| self.to_writer.push_front(message));
        self.wait = step.wait;
        self.checkpoint_due |= step.checkpoint;
        self.lengthen = step.lengthen.or(self.lengthen);
        if !notices.is_empty() {
            self.to_syncer.push_back(self.writer.hand_over(notices));
        }
        while self.to_writer.is_empty() && !random.one_in(4) && self.writer.index_ahead()? {}
        if self.wait != Wait::Not {
            self.wait = self.wait.min(self.writer.wait_for_upkeep(now));
        }
        if !self.writer.has_unpublished() {
            self.check_index();
        }
        Ok(())
    }

    /// A turn of the syncer. An error ends the process.
    pub(crate) fn syncer_steps(&mut self, random: &mut Random) -> Result<(), StoreError> {
        if self.to_syncer.is_empty() || self.from_writer.len() >= config::NOTICES_MAX {
            return Ok(());
        }
        let taken = 1 + random.below(self.to_syncer.len() as u64) as usize;
        let mut group: Vec<ToSyncer> = self.to_syncer.drain(..taken).collect();
        let now = self.now;
        self.from_writer.extend(syncer::step(&*self.sync, &mut group, &|| now)?);
        Ok(())
    }

    /// When nothing waits to be published, the published index is what was asked for.
    fn check_index(&self) {
        let index = self.published.load();
        let mut expected: BTreeMap<&Id, Vec<Slot>> = BTreeMap::new();
        for (slot, ids) in &self.subscribed {
            ids.iter().for_each(|id| expected.entry(id).or_default().push(*slot));
        }
        assert_eq!(index.identifiers(), expected.len(), "nobody else is subscribed to");
        for (id, slots) in expected {
            let published: Vec<Slot> = index.subscribers(id).into_iter().flatten().collect();
            assert_eq!(published, slots, "the subscribers of {id:?}");
        }
    }

    pub(crate) fn checkpointer_steps(&mut self) {
        if let Some(bytes) = self.lengthen.take() {
            self.checkpoint.lengthen(bytes).expect("no error is fatal");
        }
        if std::mem::take(&mut self.checkpoint_due) {
            let result = self.checkpoint.run();
            self.to_writer.push_back(ToWriter::Checkpointed(result));
        }
    }

    pub(crate) fn reader_steps(&mut self) {
        let mut together = Vec::new();
        while self.to_reader.front().is_some_and(|request| Reader::joins(&together, request)) {
            together.extend(self.to_reader.pop_front());
        }
        self.reader.step(together, &mut |answer| self.from_reader.push_back(answer));
    }

    /// A turn of the loop: the hub takes some notices. Sometimes writer and syncer go on meanwhile,
    /// and the next turn comes before it has tried again to publish what the loop kept it from.
    pub(crate) fn hub_takes_notices(
        &mut self,
        now: Now,
        open: &[u32],
        random: &mut Random,
    ) -> Result<(), StoreError> {
        let most = random.below(5) as usize;
        let steps = if random.one_in(4) { 1 + random.below(5) } else { 0 };
        self.turn(now, open, most, steps, random)?;
        if steps > 0 {
            self.turn(now, open, usize::MAX, 0, random)?;
        }
        Ok(())
    }

    /// The index is the one that was published after the notices were sent.
    fn turn(
        &mut self,
        now: Now,
        open: &[u32],
        most: usize,
        writer_steps: u64,
        random: &mut Random,
    ) -> Result<(), StoreError> {
        let most = most.min(self.from_writer.len());
        let notices: Vec<FromWriter> = self.from_writer.drain(..most).collect();
        let published = self.published.clone();
        let index = published.load();
        for _ in 0..writer_steps {
            self.writer_step(2, random)?;
            self.syncer_steps(random)?;
        }
        for notice in notices {
            if let FromWriter::Committed(commit) = &notice {
                let durable = self.shared.lock().durable;
                assert!(commit.last <= durable, "what is visible is durable");
                self.noticed = commit.last;
                self.check_room(open, |hub| hub.from_writer(now, notice, &index));
            } else {
                self.hub.from_writer(now, notice, &index);
            }
        }
        Ok(())
    }

    /// A broadcast goes into an outbox that is empty, or has room for it.
    fn check_room(&mut self, open: &[u32], broadcast: impl FnOnce(&mut Hub)) {
        let queued = |hub: &Hub| open.iter().map(|key| hub.outbox(*key).bytes()).collect();
        let before: Vec<usize> = queued(&self.hub);
        broadcast(&mut self.hub);
        let after: Vec<usize> = queued(&self.hub);
        for (before, after) in before.into_iter().zip(after) {
            let room = before == 0 || after <= before.max(OUTBOX_BYTES_MAX);
            assert!(room, "{before} bytes were queued, and now {after} are");
        }
    }

    pub(crate) fn hub_takes_answers(&mut self, now: Now) {
        if let Some(answer) = self.from_reader.pop_front() {
            self.hub.from_reader(now, answer);
        }
    }

    /// The effects, in order; messages go into the queues, the rest is the network's.
    pub(crate) fn deeds(&mut self) -> Vec<Deed> {
        let mut deeds = Vec::new();
        while let Some(effect) = self.hub.next_effect() {
            match effect {
                Effect::ToWriter(message) => self.to_writer.push_back(message),
                Effect::ToReader(message) => self.to_reader.push_back(message),
                Effect::Flush(key) => deeds.push(Deed::Flush(key)),
                Effect::Deliver(key) => deeds.push(Deed::Deliver(key)),
                Effect::Resume(key) => deeds.push(Deed::Resume(key)),
                Effect::EndOutput(key) => deeds.push(Deed::EndOutput(key)),
                Effect::Close(key) => deeds.push(Deed::Close(key)),
                Effect::StopAccepting => assert!(self.stopping, "it was told to"),
                Effect::Finished => self.finished = true,
            }
        }
        deeds
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.to_writer.is_empty()
            && self.to_reader.is_empty()
            && self.to_syncer.is_empty()
            && self.from_writer.is_empty()
            && self.from_reader.is_empty()
            && self.wait == Wait::Long
    }

    /// What is queued is bounded.
    pub(crate) fn check_queues(&self, open: impl Iterator<Item = u32>) {
        let credits = config::APPENDS_IN_FLIGHT_MAX
            + config::SUBSCRIPTIONS_IN_FLIGHT_MAX
            + config::PINGS_IN_FLIGHT_MAX
            + 1;
        assert!(self.to_writer.len() <= credits, "credits bound the writer's inbox");
        let reads = self.to_reader.len() + self.from_reader.len();
        let credits = config::READS_IN_FLIGHT_MAX + config::FURTHER_READS_IN_FLIGHT_MAX;
        assert!(reads <= credits, "credits bound the readers' queues");
        for key in open {
            let queued = self.hub.outbox(key).bytes();
            assert!(queued <= QUEUED_BYTES_MAX, "{queued} bytes are queued for one connection");
        }
    }

    /// A gauge or counter as the metrics show it to whoever asks.
    pub(crate) fn gauges(&mut self, now: Now) -> String {
        let key = self.hub.accept(now, None).expect("there is room");
        self.hub.input(now, key, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        let text = self.hub.outbox(key).next(&mut [], usize::MAX).to_vec();
        let text = String::from_utf8(text).expect("metrics are text");
        self.hub.lost(key);
        // Nobody ever saw the connection: nothing of it is the network's.
        self.deeds();
        self.hub.closed(key);
        self.deeds();
        text
    }
}
