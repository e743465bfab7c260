//! Owns the world: clients, network, clock, one server after the other over one disk, and the
//! scheduler that picks who goes next. Which faults there are at all is drawn for each seed, so
//! that some run without those that excuse a client.

use rill::hub::Now;

use crate::client::{Client, Link, View};
use crate::network::{Network, ROOM_MAX, Taken};
use crate::random::Random;
use crate::server::{Deed, Server};
use crate::store::{CommitFault, Disk, Sabotage};

/// A jump of the clock after which connections may have ended for good reasons.
const JUMP: u64 = 1_000;
const SETTLE_STEPS: u32 = 200_000;
const GAUGES: [&str; 4] = ["appends_in_flight", "reads_in_flight", "reads_waiting", "bodies_bytes"];

pub(crate) struct World {
    random: Random,
    now: u64,
    /// The wall clock less the other one, in seconds.
    wall: i64,
    disk: Disk,
    server: Server,
    network: Network,
    clients: Vec<Client>,
    faults: Faults,
    /// The writer, the syncer and the reader miss all but one of so many turns.
    writer_pace: u64,
    syncer_pace: u64,
    reader_pace: u64,
    connections_max: usize,
    reads_failed: bool,
    commits_failed: bool,
    achieved: Achieved,
}

/// What may go wrong in this run.
struct Faults {
    resets: bool,
    half_closes: bool,
    stalls: bool,
    reads: bool,
    commits: bool,
    outages: bool,
    crashes: bool,
    jumps: bool,
}

/// What a run came to; a test asks whether everything happened in some.
#[derive(Debug, Default)]
pub(crate) struct Achieved {
    pub(crate) crashes: u64,
    pub(crate) replies: u64,
}

impl World {
    pub(crate) fn new(seed: u64) -> World {
        let mut random = Random::new(seed);
        let faults = Faults {
            resets: random.one_in(2),
            half_closes: random.one_in(2),
            stalls: random.one_in(2),
            reads: random.one_in(2),
            commits: random.one_in(2),
            outages: random.one_in(3),
            crashes: random.one_in(2),
            jumps: random.one_in(2),
        };
        let mut pace = || [1, 1, 4, 16][random.below(4) as usize];
        let (writer_pace, syncer_pace, reader_pace) = (pace(), pace(), pace());
        let mut clients: Vec<Client> = (0..1 + random.below(4)).map(Client::appender).collect();
        clients.extend((0..1 + random.below(6)).map(|_| Client::subscriber()));
        clients.extend((0..random.below(4)).map(|_| Client::reader()));
        let connections_max = if random.one_in(4) { clients.len() + 1 } else { 1_000 };
        let mut disk = Disk::new(random.one_in(4));
        let server = Server::start(disk.open(), disk.shared.clone(), connections_max, seed);
        World {
            random,
            now: 0,
            wall: 1_700_000_000,
            disk,
            server,
            network: Network::default(),
            clients,
            faults,
            writer_pace,
            syncer_pace,
            reader_pace,
            connections_max,
            reads_failed: false,
            commits_failed: false,
            achieved: Achieved::default(),
        }
    }

    fn now(&self) -> Now {
        let unix_seconds = self.wall.saturating_add_unsigned(self.now / 1_000);
        Now { milliseconds: self.now, unix_seconds: unix_seconds.max(0) as u64 }
    }

    /// One thing happens, as the scheduler likes.
    pub(crate) fn step(&mut self) {
        match self.random.below(28) {
            0 => {
                for client in 0..self.clients.len() {
                    self.begin(client);
                }
            }
            1 => self.something_rare(),
            _ => self.go_on(),
        }
        self.after_step();
    }

    fn after_step(&mut self) {
        self.carry_out();
        self.server.check_queues(self.network.keys());
    }

    /// Somebody does what is next for him.
    fn go_on(&mut self) {
        let client = self.random.below(self.clients.len() as u64) as usize;
        let now = self.now();
        let (server, random) = (&mut self.server, &mut self.random);
        let result = match random.below(13) {
            0 | 1 => return self.client_sends(client),
            2..=4 => return self.client_receives(client),
            5 => return self.network.write_one(&mut server.hub, now, random),
            6 => return self.network.read_one(&mut server.hub, now, random),
            7 | 8 if random.one_in(self.writer_pace) => server.writer_steps(random),
            9 if random.one_in(self.reader_pace) => return server.reader_steps(),
            10 if random.one_in(self.syncer_pace) => server.syncer_steps(random),
            7..=10 => return,
            11 => {
                let open: Vec<u32> = self.network.keys().collect();
                server.hub_takes_notices(now, &open, random)
            }
            _ => {
                server.checkpointer_steps();
                return server.hub_takes_answers(now);
            }
        };
        if let Err(error) = result {
            assert!(self.faults.crashes, "nothing is broken: {error}");
            self.crash();
        }
    }

    fn something_rare(&mut self) {
        let client = self.random.below(self.clients.len() as u64) as usize;
        match self.random.below(20) {
            0 | 1 if self.faults.resets => self.disconnect(client),
            2 | 3 if self.faults.half_closes => self.half_close(client),
            4 if self.faults.stalls => self.clients[client].stalled = self.random.below(400) as u32,
            5 if self.faults.reads => self.break_a_read(),
            6 if self.faults.commits => self.break_a_commit(),
            7 if self.faults.outages => self.begin_or_end_an_outage(),
            8 if self.faults.crashes && self.random.one_in(3) => self.crash(),
            9 if self.faults.crashes && self.random.one_in(3) => {
                let sabotage = &mut self.disk.shared.lock().sabotage;
                match self.random.below(3) {
                    0 => sabotage.commit = Some(CommitFault::CrashBefore),
                    1 => sabotage.commit = Some(CommitFault::CrashAfter),
                    _ => sabotage.sync = true,
                }
            }
            10 if self.faults.jumps => self.jump(),
            // Nothing may depend on the wall clock.
            11 => self.wall = self.random.below(1 << 33) as i64 - (1 << 20),
            _ => {
                let milliseconds = self.random.below(5);
                self.pass(milliseconds);
            }
        }
    }

    // --- Faults -----------------------------------------------------------------------------------

    fn disconnect(&mut self, client: usize) {
        let client = &mut self.clients[client];
        let Link::Open(key) = client.link else { return };
        if self.random.one_in(2) {
            self.network.reset(key);
        } else {
            self.network.leave(key);
        }
        client.excused = true;
        client.disconnected();
    }

    /// A client that waits for its replies says that it sends nothing more.
    fn half_close(&mut self, client: usize) {
        let client = &mut self.clients[client];
        let Link::Open(key) = client.link else { return };
        if client.waits() && !client.sending_ended {
            client.sending_ended = true;
            self.network.end_sending(key);
        }
    }

    fn break_a_read(&mut self) {
        self.reads_failed = true;
        self.clients.iter_mut().for_each(|client| client.excused = true);
        self.disk.shared.lock().sabotage.read = Some(self.random.below(6) as u32);
    }

    fn break_a_commit(&mut self) {
        self.commits_failed = true;
        let faults = [CommitFault::Full, CommitFault::Busy, CommitFault::Within];
        let fault = faults[self.random.below(3) as usize];
        let sabotage = &mut self.disk.shared.lock().sabotage;
        sabotage.commit = Some(fault);
        sabotage.upkeep = self.random.below(3) as u32;
    }

    fn begin_or_end_an_outage(&mut self) {
        (self.reads_failed, self.commits_failed) = (true, true);
        self.clients.iter_mut().for_each(|client| client.excused = true);
        let sabotage = &mut self.disk.shared.lock().sabotage;
        sabotage.outage = !sabotage.outage;
    }

    /// The process dies, and another one starts over what is durable.
    fn crash(&mut self) {
        self.achieved.crashes += 1;
        self.disk.crash(&mut self.random);
        let noticed = self.server.noticed;
        let mut rest = self.network.crash(&mut self.random);
        for client in &mut self.clients {
            if let Link::Open(key) = client.link {
                client.excused = true;
                client.link = Link::Ended(rest.remove(&key).unwrap_or_default());
            }
        }
        let (opened, shared) = (self.disk.open(), self.disk.shared.clone());
        let seed = self.random.next();
        self.server = Server::start(opened, shared, self.connections_max, seed);
        assert!(self.server.noticed >= noticed, "what was visible stays");
    }

    fn jump(&mut self) {
        self.clients.iter_mut().for_each(|client| client.excused = true);
        let most = if self.random.one_in(8) { 36_000_000 } else { 20_000 };
        let milliseconds = JUMP + self.random.below(most);
        self.pass(milliseconds);
    }

    fn pass(&mut self, milliseconds: u64) {
        self.now += milliseconds;
        self.server.hub.tick(self.now());
    }

    // --- Clients ----------------------------------------------------------------------------------

    /// Lets a client do something, beside what it is judged by.
    fn with_client<T>(
        &mut self,
        client: usize,
        act: impl FnOnce(&mut Client, &View<'_>, &mut Random) -> T,
    ) -> T {
        let state = self.disk.shared.lock();
        let view = View {
            record: &state.record,
            noticed: self.server.noticed,
            reads_failed: self.reads_failed,
            commits_failed: self.commits_failed,
            crowded: self.connections_max <= self.clients.len() + 1,
        };
        act(&mut self.clients[client], &view, &mut self.random)
    }

    fn client_sends(&mut self, client: usize) {
        match self.clients[client].link {
            Link::None => self.connect(client),
            Link::Ended(_) => {}
            Link::Open(key) => {
                let outgoing = &mut self.clients[client].outgoing;
                let length = self.random.part(outgoing.len());
                let bytes: Vec<u8> = outgoing.drain(..length).collect();
                if !bytes.is_empty() {
                    self.network.send(key, &bytes);
                }
            }
        }
    }

    fn connect(&mut self, client: usize) {
        let Some(key) = self.server.hub.accept(self.now(), None) else { return };
        let narrow = 1 + self.random.below(1_000) as usize;
        let room = if self.faults.stalls { narrow } else { ROOM_MAX };
        self.network.connect(key, room);
        let epoch = self.server.epoch.clone();
        self.with_client(client, |client, view, random| {
            client.connected(key, &epoch, view, random)
        });
        self.clients[client].excused = self.reads_failed;
    }

    fn client_receives(&mut self, number: usize) {
        let client = &mut self.clients[number];
        if client.stalled > 0 {
            client.stalled -= 1;
            return;
        }
        match &mut client.link {
            Link::None => {}
            Link::Ended(rest) => {
                let rest = std::mem::take(rest);
                self.with_client(number, |client, view, _| client.receive(&rest, view));
                self.clients[number].disconnected();
            }
            &mut Link::Open(key) => match self.network.receive(key, &mut self.random) {
                Taken::Nothing => {}
                Taken::Bytes(bytes) => {
                    self.with_client(number, |client, view, _| client.receive(&bytes, view));
                }
                Taken::End => {
                    client.disconnected();
                    self.network.leave(key);
                }
            },
        }
    }

    fn begin(&mut self, client: usize) {
        self.with_client(client, |client, view, random| client.begin(view, random));
    }

    /// The effects, as a reactor would carry them out.
    fn carry_out(&mut self) {
        loop {
            let deeds = self.server.deeds();
            if deeds.is_empty() {
                return;
            }
            for deed in deeds {
                let (now, random) = (self.now(), &mut self.random);
                match deed {
                    Deed::Flush(key) => self.network.write(key, &mut self.server.hub, now, random),
                    Deed::Deliver(key) => self.network.queue_write(key),
                    Deed::Resume(key) => self.network.resume(key, &self.server.hub),
                    Deed::EndOutput(key) => self.network.end_output(key),
                    Deed::Close(key) => self.close(key),
                }
            }
        }
    }

    fn close(&mut self, key: u32) {
        self.server.hub.closed(key);
        let rest = self.network.close(key, &mut self.random);
        let client = self.clients.iter_mut().find(|client| client.link == Link::Open(key));
        if let Some(client) = client {
            client.link = Link::Ended(rest);
        }
    }

    // --- The end ----------------------------------------------------------------------------------

    /// Faults stop: every feed becomes live, every request is answered, everything is delivered;
    /// and what is appended then, too.
    pub(crate) fn settle(&mut self) {
        self.heal();
        self.until("once faults stop, everything is answered and delivered", World::is_settled);
        for client in 0..self.clients.len() {
            self.begin(client);
        }
        self.until("a live feed gets what is appended", World::is_settled);
        self.check_gauges();
    }

    fn heal(&mut self) {
        let sabotage = &mut self.disk.shared.lock().sabotage;
        *sabotage = Sabotage::default();
        self.clients.iter_mut().for_each(|client| client.stalled = 0);
        self.faults.stalls = false;
        self.network.widen();
    }

    fn until(&mut self, why: &str, done: impl Fn(&World) -> bool) {
        let mut left = SETTLE_STEPS;
        while !done(self) {
            self.go_on();
            self.after_step();
            left -= 1;
            assert!(left > 0, "{why}");
        }
    }

    fn is_settled(&self) -> bool {
        self.server.is_quiet()
            && !self.network.has_work()
            && self.clients.iter().all(|client| client.is_settled(&self.disk.shared.lock().record))
    }

    /// When everything was answered, nothing is counted as under way.
    fn check_gauges(&mut self) {
        let text = self.server.gauges(self.now());
        for gauge in GAUGES {
            assert!(text.contains(&format!("\nrill_{gauge} 0\n")), "{gauge} in {text}");
        }
    }

    /// The hub is told to stop: streams end whole, every connection ends, and it says so.
    pub(crate) fn stop(&mut self) -> Achieved {
        self.heal();
        for client in self.clients.iter_mut().filter(|client| !client.is_subscriber()) {
            // What is pipelined behind the last reply of a connection is not answered any more.
            client.excused = true;
        }
        self.server.stopping = true;
        self.server.hub.stop(self.now());
        self.after_step();
        assert_eq!(self.server.hub.accept(self.now(), None), None);
        self.until("a stop comes to its end", |world| {
            world.server.finished && world.clients.iter().all(|client| client.link == Link::None)
        });
        assert!(self.network.is_empty(), "no time passed: nobody was cut off");
        self.achieved.replies = self.clients.iter().map(Client::achieved).sum();
        std::mem::take(&mut self.achieved)
    }
}
