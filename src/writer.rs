//! Owns the writer: it commits what waits as one transaction, and what comes while that is written,
//! keeps the shadow of the subscriber index, and says what is to be told once it is durable, which
//! `syncer` sees to. `Writer::step` is all of that, without threads or clocks, and `index_ahead` what
//! is done between two of them; `run` is the loop around both. Encodes nothing and knows no connection.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};

use crate::config;
use crate::event::Placed;
use crate::held::Counter;
use crate::index::{Published, Shadow};
use crate::message::{
    Append, Appended, Commit, FromWriter, Slot, ToCheckpointer, ToSyncer, ToWriter,
};
use crate::store::{Batch, Checkpoint, StoreError, Upkeep, WriteLog};
use crate::sync::Arc;

pub mod syncer;

use syncer::Teller;

pub struct Writer {
    log: Box<dyn WriteLog>,
    shadow: Shadow,
    /// Changes of the index that were not published yet, to be answered when they are. In order:
    /// appends overtake them, and one that does is noticed before its feed has joined.
    unpublished: VecDeque<Change>,
    /// Large appends that were not committed yet, in order. The hub takes one append of a connection
    /// at a time, so that none overtakes its own client's.
    large: VecDeque<Append>,
    turn: Turn,
    upkeep: Upkeep,
    /// What was handed to the syncer and not told yet.
    untold: Counter,
    /// When something was last committed or synced, or the writer began.
    quiet_since: Duration,
}

/// Who is next where both small and large appends wait.
#[derive(Clone, Copy, Debug)]
enum Turn {
    /// The small ones, and until then only those: a share of large ones took as long.
    Small { until: Duration },
    /// The large ones, from then on.
    Large { from: Duration },
}

enum Change {
    Joined(Slot),
    Left(Slot),
}

/// How long the writer may wait for its next batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wait {
    /// Not at all: there is upkeep to do, more of the index to be published, or more to commit.
    Not,
    /// So long: the reader holds the copy of the index that is to be published, large appends leave
    /// small ones the time that is theirs, or upkeep leaves it to appends.
    Within(Duration),
    /// Until there is something to do.
    Long,
}

impl Wait {
    /// What cannot be told from time alone is looked at again.
    const MOMENT: Wait = Wait::Within(Duration::from_millis(config::WRITER_RETRY));

    fn until(time: Duration, now: Duration) -> Wait {
        if now < time { Wait::Within(time - now) } else { Wait::Not }
    }
}

/// What a step asks of the threads around it.
#[derive(Debug)]
pub struct Step {
    pub wait: Wait,
    /// The write-ahead log is to be copied.
    pub checkpoint: bool,
    /// Its file is to be made so long.
    pub lengthen: Option<u64>,
    /// Nothing more comes.
    pub stop: bool,
}

impl Writer {
    pub fn new(log: Box<dyn WriteLog>) -> Writer {
        Writer {
            log,
            shadow: Shadow::default(),
            unpublished: VecDeque::new(),
            large: VecDeque::new(),
            turn: Turn::Small { until: Duration::ZERO },
            upkeep: Upkeep::More,
            untold: Counter::default(),
            quiet_since: Duration::ZERO,
        }
    }

    pub fn published(&self) -> Published {
        self.shadow.published()
    }

    /// Whether the published index lacks something that was asked for.
    pub fn has_unpublished(&self) -> bool {
        self.shadow.is_behind()
    }

    /// Notices for the syncer, or whoever tells them.
    pub fn hand_over(&self, notices: Vec<FromWriter>) -> ToSyncer {
        ToSyncer { notices, untold: self.untold.hold(1) }
    }

    /// Takes one batch of messages; an empty one does a slice of upkeep. `late` adds to it what came
    /// since; what is not taken of that is left for the next step. An error is the end: what the disk
    /// holds is no longer known.
    pub fn step(
        &mut self,
        batch: &mut Vec<ToWriter>,
        late: &mut dyn FnMut(&mut Vec<ToWriter>),
        notices: &mut Vec<FromWriter>,
        clock: &dyn Fn() -> Duration,
    ) -> Result<Step, StoreError> {
        let mut appends = Vec::new();
        let mut stop = false;
        if self.untold.get() > 0 {
            // Who is answered then appends again.
            self.quiet_since = clock();
        }
        let is_idle = batch.is_empty() && self.large.is_empty();
        if is_idle && self.upkeep_from().is_some_and(|from| clock() >= from) {
            let at_rest = self.upkeep == Upkeep::AtRest;
            self.upkeep = passable(self.log.upkeep(at_rest))?.unwrap_or(Upkeep::Done);
            if self.upkeep != Upkeep::More {
                notices.push(FromWriter::Gauges(self.log.gauges()));
            }
        }
        for message in batch.drain(..) {
            match message {
                ToWriter::Append(append) if is_large(&append) => self.large.push_back(append),
                ToWriter::Append(append) => appends.push(append),
                ToWriter::Subscribe { slot, ids } => {
                    self.shadow.subscribe(slot, ids);
                    self.unpublished.push_back(Change::Joined(slot));
                }
                ToWriter::Unsubscribe { slot } => {
                    self.shadow.unsubscribe(slot);
                    self.unpublished.push_back(Change::Left(slot));
                }
                ToWriter::Ping { token } => notices.push(FromWriter::Pong { token }),
                ToWriter::Checkpointed(result) => {
                    let copied_bytes = passable(result)?.unwrap_or(0);
                    // After a failed one too: without it, none would be due again.
                    passable(self.log.restart_log(copied_bytes))?;
                    notices.push(FromWriter::Gauges(self.log.gauges()));
                }
                ToWriter::Stop => stop = true,
            }
        }
        let has_large = self.take_large(&mut appends, stop, clock());
        if !appends.is_empty() {
            let begin = clock();
            // Beside a large one they would wait as long, and so would what their senders send next: it
            // is those who waited that have the turn after it.
            let late = if has_large { &mut |_: &mut Vec<ToWriter>| {} } else { late };
            let result = self.transact(&mut appends, batch, late);
            let end = clock();
            notices.push(self.committed(appends, result, end - begin)?);
            self.upkeep = Upkeep::More;
            self.quiet_since = end;
            if has_large {
                self.turn = Turn::Small { until: end + (end - begin) };
            }
        }
        let published = self.publish(notices);
        let wait = self.wait(published, clock());
        let (checkpoint, lengthen) = (self.log.checkpoint_due(), self.log.lengthening_due());
        Ok(Step { wait, checkpoint, lengthen, stop })
    }

    /// When a slice of upkeep is next done, where nothing is committed or synced before.
    fn upkeep_from(&self) -> Option<Duration> {
        let quiet = match self.upkeep {
            Upkeep::More => config::UPKEEP_IDLE,
            Upkeep::AtRest => config::UPKEEP_REST,
            Upkeep::Done => return None,
        };
        Some(self.quiet_since + Duration::from_millis(quiet))
    }

    /// Indexes a little, where the writer would wait for what its notices bring about; false where
    /// there is nothing to be indexed now. The next commit holds it; where none comes, upkeep or the
    /// restart of the log is one.
    pub fn index_ahead(&mut self) -> Result<bool, StoreError> {
        let indexed = passable(self.log.index_ahead())?.unwrap_or(false);
        if indexed {
            self.upkeep = Upkeep::More;
        }
        Ok(indexed)
    }

    /// The least that anything allows.
    fn wait(&self, published: usize, now: Duration) -> Wait {
        let for_index = match published {
            _ if !self.has_unpublished() => Wait::Long,
            0 => Wait::MOMENT,
            _ => Wait::Not,
        };
        let for_large = match self.turn {
            // The checkpointer says when that is over.
            _ if self.large.is_empty() || self.log.is_restarting() => Wait::Long,
            Turn::Large { from } => Wait::until(from, now),
            Turn::Small { .. } => Wait::Not,
        };
        for_index.min(for_large).min(self.wait_for_upkeep(now))
    }

    /// Until a slice is due, which large appends go before.
    pub fn wait_for_upkeep(&self, now: Duration) -> Wait {
        match self.upkeep_from() {
            Some(from) if self.large.is_empty() => match self.untold.get() {
                0 => Wait::until(from, now),
                // It is due so long after that was told.
                _ => Wait::MOMENT,
            },
            _ => Wait::Long,
        }
    }

    /// Everything was answered; nothing more comes.
    pub fn close(self) -> Result<(), StoreError> {
        self.log.close()
    }

    /// Adds a share of the large appends to what is committed, and says whether it did.
    fn take_large(&mut self, appends: &mut Vec<Append>, all: bool, now: Duration) -> bool {
        if self.large.is_empty() {
            return false;
        }
        if !all && (self.log.is_restarting() || self.overtaken(!appends.is_empty(), now)) {
            return false;
        }
        let mut bytes = 0;
        while let Some(append) = self.large.front()
            && (all || bytes == 0 || bytes + append.bytes() <= config::COMMIT_LARGE_BYTES)
        {
            bytes += append.bytes();
            appends.extend(self.large.pop_front());
        }
        true
    }

    /// Small appends that waited for a share of large ones go before the next, and so do those that
    /// come until as much time has passed as the share took: whoever sends each when the last was
    /// answered would wait for a share with every one of them.
    fn overtaken(&mut self, by_some: bool, now: Duration) -> bool {
        match self.turn {
            Turn::Small { until } if by_some => {
                self.turn = Turn::Large { from: until };
                true
            }
            Turn::Small { .. } => false,
            Turn::Large { from } => now < from,
        }
    }

    /// Commits the appends, and small ones that came while they were written: whoever came a moment
    /// too late would wait for a transaction of its own after this one. Looked at once: what comes
    /// while the late ones are written waits, so that none is put off without end.
    fn transact(
        &mut self,
        appends: &mut Vec<Append>,
        batch: &mut Vec<ToWriter>,
        late: &mut dyn FnMut(&mut Vec<ToWriter>),
    ) -> Result<Vec<Box<[Placed]>>, StoreError> {
        let mut transaction = self.log.begin()?;
        let mut placed = transaction.append(&batches(appends))?;
        late(batch);
        let early = appends.len();
        appends.extend(take_small(batch));
        if appends.len() > early {
            placed.extend(transaction.append(&batches(&appends[early..]))?);
        }
        transaction.commit()?;
        Ok(placed)
    }

    /// What is said of a transaction that ended.
    fn committed(
        &self,
        appends: Vec<Append>,
        result: Result<Vec<Box<[Placed]>>, StoreError>,
        took: Duration,
    ) -> Result<FromWriter, StoreError> {
        match result {
            Ok(placed) => Ok(FromWriter::Committed(Commit {
                took,
                appended: appends
                    .into_iter()
                    .zip(placed)
                    .map(|(append, placed)| Appended { append, placed })
                    .collect(),
                last: self.log.last(),
                store: self.log.gauges(),
            })),
            Err(error @ StoreError::Fatal(_)) => Err(error),
            Err(error) => Ok(FromWriter::Failed { appends, error }),
        }
    }

    /// Publishes a slice of what changed, and returns how much.
    fn publish(&mut self, notices: &mut Vec<FromWriter>) -> usize {
        if !self.shadow.is_behind() {
            return 0;
        }
        let published = self.shadow.publish();
        let last = self.log.last();
        notices.extend(self.unpublished.drain(..published).map(|change| match change {
            Change::Joined(slot) => FromWriter::Joined { slot, last },
            Change::Left(slot) => FromWriter::Left { slot },
        }));
        published
    }
}

fn batches(appends: &[Append]) -> Vec<Batch<'_>> {
    appends.iter().map(|append| Batch { id: &append.id, values: &append.values }).collect()
}

/// The small appends that nothing else stands before.
fn take_small(batch: &mut Vec<ToWriter>) -> impl Iterator<Item = Append> {
    let end = batch.iter().position(|message| !is_small_append(message)).unwrap_or(batch.len());
    batch.drain(..end).filter_map(|message| match message {
        ToWriter::Append(append) => Some(append),
        _ => None,
    })
}

fn is_small_append(message: &ToWriter) -> bool {
    matches!(message, ToWriter::Append(append) if !is_large(append))
}

/// Whether others should not wait for it.
fn is_large(append: &Append) -> bool {
    append.bytes() > config::APPEND_SMALL_BYTES
}

/// Upkeep and checkpoints that fail now are tried again; only a fatal error ends the writer.
fn passable<T>(result: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error @ StoreError::Fatal(_)) => Err(error),
        Err(error) => {
            log::warn!("upkeep put off: {error}");
            Ok(None)
        }
    }
}

/// The channels of the writer's thread.
pub struct Channels {
    pub inbox: Receiver<ToWriter>,
    pub syncer: Sender<ToSyncer>,
    pub teller: Arc<Teller>,
    pub checkpointer: Sender<ToCheckpointer>,
}

/// The writer's thread: until it is told to stop, and everything before that is done.
pub fn run(mut writer: Writer, channels: Channels) -> Result<(), StoreError> {
    let origin = Instant::now();
    let clock = move || origin.elapsed();
    let mut batch = Vec::new();
    let mut wait = Wait::Not;
    let mut stop = false;
    while !stop {
        while wait != Wait::Not
            && batch.is_empty()
            && (channels.inbox.is_empty() || channels.syncer.is_full())
            && writer.index_ahead()?
        {}
        if wait != Wait::Not {
            // What the step said does not know what became of its notices, nor of what was indexed since.
            wait = wait.min(writer.wait_for_upkeep(clock()));
        }
        let mut room = Room::of_a_transaction(&batch);
        if !gather(&channels.inbox, wait, &mut room, &mut batch) {
            break;
        }
        let mut late = |batch: &mut Vec<ToWriter>| {
            gather(&channels.inbox, Wait::Not, &mut room, batch);
        };
        let mut notices = Vec::new();
        let step = writer.step(&mut batch, &mut late, &mut notices, &clock)?;
        wait = step.wait;
        stop = step.stop;
        // Places for one of each: a checkpoint is not due before the last was answered, and where anything
        // waits commits make the file longer by themselves, until more is due.
        if let Some(bytes) = step.lengthen
            && channels.checkpointer.is_empty()
        {
            let _ = channels.checkpointer.try_send(ToCheckpointer::Lengthen { bytes });
        }
        if step.checkpoint {
            let _ = channels.checkpointer.try_send(ToCheckpointer::Run);
        }
        let are_last = batch.is_empty() && channels.inbox.is_empty();
        if !notices.is_empty() && !hand_on(&writer, &channels, notices, are_last, &clock)? {
            break;
        }
    }
    writer.close()
}

/// To the syncer; where few values wait for it and they are the last there are, that would be a detour.
/// False when the syncer is gone.
fn hand_on(
    writer: &Writer,
    channels: &Channels,
    notices: Vec<FromWriter>,
    are_last: bool,
    clock: &dyn Fn() -> Duration,
) -> Result<bool, StoreError> {
    let is_detour = are_last
        && writer.untold.get() == 0
        && values(&notices) <= config::SYNC_FEW
        && !channels.teller.is_slow();
    let told = writer.hand_over(notices);
    if is_detour {
        channels.teller.tell(vec![told], clock)?;
        return Ok(true);
    }
    Ok(channels.syncer.send(told).is_ok())
}

/// Values that were appended.
fn values(notices: &[FromWriter]) -> usize {
    let committed = notices.iter().filter_map(|notice| match notice {
        FromWriter::Committed(commit) => Some(&commit.appended),
        _ => None,
    });
    committed.flatten().map(|appended| appended.placed.len()).sum()
}

/// What a transaction still takes.
struct Room {
    messages: usize,
    bytes: usize,
    values: usize,
}

impl Room {
    /// Of one that begins with these.
    fn of_a_transaction(batch: &[ToWriter]) -> Room {
        let mut room = Room {
            messages: config::COMMIT_APPENDS_MAX,
            bytes: config::COMMIT_BYTES_MAX,
            values: config::COMMIT_VALUES_MAX,
        };
        batch.iter().for_each(|message| room.take(message));
        room
    }

    fn take(&mut self, message: &ToWriter) {
        self.messages -= 1;
        // The large ones are set aside: they keep nobody who comes after them from the batch.
        if let ToWriter::Append(append) = message
            && is_small_append(message)
        {
            self.bytes = self.bytes.saturating_sub(append.bytes());
            self.values = self.values.saturating_sub(append.values.len());
        }
    }

    fn is_full(&self) -> bool {
        [self.messages, self.bytes, self.values].contains(&0)
    }
}

/// Takes everything that waits, and that there is room for. False when nothing more comes.
fn gather(
    inbox: &Receiver<ToWriter>,
    wait: Wait,
    room: &mut Room,
    batch: &mut Vec<ToWriter>,
) -> bool {
    // What the last step left does not wait for more.
    let mut wait = if batch.is_empty() { wait } else { Wait::Not };
    while !room.is_full() {
        match receive(inbox, std::mem::replace(&mut wait, Wait::Not)) {
            Ok(message) => {
                room.take(&message);
                batch.push(message);
            }
            Err(TryRecvError::Empty) => return true,
            Err(TryRecvError::Disconnected) => return !batch.is_empty(),
        }
    }
    true
}

fn receive(inbox: &Receiver<ToWriter>, wait: Wait) -> Result<ToWriter, TryRecvError> {
    match wait {
        Wait::Long => inbox.recv().map_err(|_| TryRecvError::Disconnected),
        Wait::Within(time) => inbox.recv_timeout(time).map_err(|error| match error {
            RecvTimeoutError::Timeout => TryRecvError::Empty,
            RecvTimeoutError::Disconnected => TryRecvError::Disconnected,
        }),
        Wait::Not => inbox.try_recv(),
    }
}

/// The checkpointer's thread: until the writer is gone.
pub fn run_checkpointer(
    mut checkpoint: Box<dyn Checkpoint>,
    requests: Receiver<ToCheckpointer>,
    writer: Sender<ToWriter>,
) {
    for request in requests {
        let result = match request {
            ToCheckpointer::Lengthen { bytes } => match checkpoint.lengthen(bytes) {
                Ok(()) => continue,
                Err(error) => Err(error),
            },
            ToCheckpointer::Run => checkpoint.run(),
        };
        if writer.send(ToWriter::Checkpointed(result)).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
