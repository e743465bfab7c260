//! Owns a run: appends at some pace, subscribers that get them, and the proof that each got every
//! message once, in one order. Called by `main`. One thread and one poll, so that it costs the
//! machine it shares with the server as little as it can.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use crate::dialect::{Append, Dialect};
use crate::process::Process;
use crate::random::Random;
use crate::report::{Durations, Report};
use crate::requester::Requester;
use crate::subscriber::Subscriber;

/// Subscribers that are opened before those are waited for: less than any server's backlog.
const OPENING_MAX: usize = 256;
/// How long anything that is due may be waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// Memory is compared between this many subscribers and all of them: the first ones also pay for
/// what a process allocates once.
const FIRST_SUBSCRIBERS: usize = 1_000;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    /// Every connection sends its next request when the last was answered.
    Closed,
    /// All connections send one request, and again when everybody got everything.
    Lockstep,
    PerSecond(u32),
}

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) dialect: Dialect,
    pub(crate) address: SocketAddr,
    pub(crate) process: Option<Process>,
    pub(crate) connections: usize,
    pub(crate) subscribers: usize,
    pub(crate) storages: usize,
    /// Storages are called this and a number.
    pub(crate) prefix: String,
    pub(crate) values: usize,
    pub(crate) value_bytes: usize,
    pub(crate) pace: Pace,
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
    /// Ends the run after so many requests instead of after `duration`; storages then take turns.
    pub(crate) requests: Option<u64>,
    pub(crate) create: bool,
    /// The number of the first value: another run on the same server needs other values.
    pub(crate) first: u64,
}

/// A message on its way to its subscribers.
#[derive(Debug)]
struct Flight {
    since: Instant,
    missing: usize,
}

#[derive(Debug, Default)]
struct Measured {
    replies: Durations,
    receptions: Durations,
    last_receptions: Durations,
    requests: u64,
    deliveries: u64,
}

struct Run {
    settings: Settings,
    poll: Poll,
    buffer: Vec<u8>,
    requesters: Vec<Requester>,
    idle: Vec<usize>,
    subscribers: Vec<Subscriber>,
    names: Vec<String>,
    /// Subscribers of each storage.
    audience: Vec<usize>,
    /// Messages sent to each storage.
    sent: Vec<u64>,
    flights: HashMap<u64, Flight>,
    /// Requests that were due while no connection was free, since when.
    overdue: VecDeque<Instant>,
    started: u64,
    begin: Instant,
    measuring: Option<(Instant, Duration)>,
    measured: Measured,
    random: Random,
}

pub(crate) fn run(settings: Settings) -> Result<Report, String> {
    let mut run = Run::new(settings)?;
    let mut report = Report::default();
    run.create()?;
    run.subscribe(&mut report)?;
    for _ in 0..run.settings.connections {
        let mut requester = Requester::open(run.settings.address)?;
        let token = Token(run.requesters.len());
        let interest = Interest::READABLE | Interest::WRITABLE;
        run.register(|poll| poll.registry().register(&mut requester.stream, token, interest))?;
        run.idle.push(token.0);
        run.requesters.push(requester);
    }
    if !run.requesters.is_empty() {
        run.turns()?;
        run.check()?;
    }
    run.report(&mut report);
    Ok(report)
}

impl Run {
    fn new(settings: Settings) -> Result<Run, String> {
        let poll = Poll::new().map_err(|error| format!("poll: {error}"))?;
        let mut audience = vec![0; settings.storages];
        for subscriber in 0..settings.subscribers {
            audience[subscriber % settings.storages] += 1;
        }
        Ok(Run {
            poll,
            buffer: vec![0; 64 * 1024],
            requesters: Vec::new(),
            idle: Vec::new(),
            subscribers: Vec::new(),
            names: (0..settings.storages).map(|n| format!("{}{n}", settings.prefix)).collect(),
            audience,
            sent: vec![0; settings.storages],
            flights: HashMap::new(),
            overdue: VecDeque::new(),
            started: 0,
            begin: Instant::now(),
            measuring: None,
            measured: Measured::default(),
            random: Random::new(settings.first),
            settings,
        })
    }

    fn register(&self, with: impl FnOnce(&Poll) -> std::io::Result<()>) -> Result<(), String> {
        with(&self.poll).map_err(|error| format!("poll: {error}"))
    }

    /// One after another, as the servers that need it take no more than that at once.
    fn create(&mut self) -> Result<(), String> {
        let dialect = self.settings.dialect;
        if !self.settings.create || dialect.create("").is_none() {
            return Ok(());
        }
        let failed = |error| format!("creating: {error}");
        let mut stream = std::net::TcpStream::connect(self.settings.address).map_err(failed)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        for name in &self.names {
            let request = dialect.create(name).expect("asked above");
            std::io::Write::write_all(&mut stream, &request).map_err(failed)?;
            let mut reply = Vec::new();
            while dialect.reply(&reply)?.is_none() {
                let bytes = std::io::Read::read(&mut stream, &mut self.buffer).map_err(failed)?;
                if bytes == 0 {
                    return Err("creating: the connection was closed".to_owned());
                }
                reply.extend_from_slice(&self.buffer[..bytes]);
            }
        }
        Ok(())
    }

    fn subscribe(&mut self, report: &mut Report) -> Result<(), String> {
        let begin = Instant::now();
        let base = self.settings.connections;
        while self.subscribers.len() < self.settings.subscribers {
            let from = self.subscribers.len();
            let to = self.settings.subscribers.min(from + OPENING_MAX);
            for place in from..to {
                let storage = place % self.settings.storages;
                let (dialect, address) = (self.settings.dialect, self.settings.address);
                let mut subscriber =
                    Subscriber::open(dialect, address, storage, &self.names[storage])?;
                let token = Token(base + place);
                let interest = Interest::READABLE;
                self.register(|poll| {
                    poll.registry().register(&mut subscriber.stream, token, interest)
                })?;
                self.subscribers.push(subscriber);
            }
            let waiting = Instant::now();
            while !self.subscribers[from..].iter().all(Subscriber::is_live) {
                if waiting.elapsed() > PATIENCE {
                    return Err(format!("subscribers {from} to {to} do not all become live"));
                }
                self.turn(Duration::from_millis(100))?;
            }
            if from < FIRST_SUBSCRIBERS && to >= FIRST_SUBSCRIBERS {
                self.report_memory(report, "first", to);
            }
        }
        if !self.subscribers.is_empty() {
            report.add("subscribing_seconds", begin.elapsed().as_secs_f64());
            self.report_memory(report, "subscribed", self.subscribers.len());
            // For whoever starts other load beside this one.
            eprintln!("subscribed");
        }
        Ok(())
    }

    fn report_memory(&self, report: &mut Report, name: &str, subscribers: usize) {
        if let Some(process) = self.settings.process {
            report.add(&format!("{name}_subscribers"), subscribers);
            report.add(&format!("{name}_rss_bytes"), process.rss_bytes());
        }
    }

    /// Until the time is over and everything that was sent has arrived.
    fn turns(&mut self) -> Result<(), String> {
        self.begin = Instant::now();
        let mut progress = (self.begin, 0);
        loop {
            let now = Instant::now();
            if self.measuring.is_none() && now - self.begin >= self.settings.warm_up {
                self.measuring = Some((now, self.cpu()));
                self.measured = Measured::default();
            }
            let over = match self.settings.requests {
                Some(requests) => self.started >= requests,
                None => now - self.begin >= self.settings.warm_up + self.settings.duration,
            };
            let quiet = self.idle.len() == self.requesters.len() && self.flights.is_empty();
            if over && quiet {
                return Ok(());
            }
            if !over {
                self.start_due(now, quiet)?;
            }
            self.turn(self.sleep(now))?;
            let done = self.measured.requests + self.measured.deliveries;
            if done != progress.1 {
                progress = (now, done);
            }
            if now - progress.0 > PATIENCE {
                let missing: usize = self.flights.values().map(|flight| flight.missing).sum();
                let waiting = self.requesters.len() - self.idle.len();
                return Err(format!("{missing} deliveries and {waiting} replies are missing"));
            }
        }
    }

    fn cpu(&self) -> Duration {
        self.settings.process.map_or(Duration::ZERO, Process::cpu)
    }

    fn start_due(&mut self, now: Instant, quiet: bool) -> Result<(), String> {
        match self.settings.pace {
            Pace::Closed => {
                while self.may_start() && !self.idle.is_empty() {
                    self.start(now)?;
                }
            }
            Pace::Lockstep if quiet => {
                while !self.idle.is_empty() {
                    self.start(now)?;
                }
            }
            Pace::Lockstep => {}
            Pace::PerSecond(rate) => {
                let due = ((now - self.begin).as_secs_f64() * f64::from(rate)) as u64;
                while self.started + (self.overdue.len() as u64) < due {
                    self.overdue.push_back(now);
                }
                while !self.idle.is_empty()
                    && let Some(since) = self.overdue.pop_front()
                {
                    self.start(since)?;
                }
            }
        }
        Ok(())
    }

    fn may_start(&self) -> bool {
        self.settings.requests.is_none_or(|requests| self.started < requests)
    }

    fn sleep(&self, now: Instant) -> Duration {
        match self.settings.pace {
            Pace::PerSecond(rate) if self.overdue.is_empty() => {
                let due = Duration::from_secs_f64((self.started + 1) as f64 / f64::from(rate));
                (self.begin + due).saturating_duration_since(now)
            }
            _ => Duration::from_millis(100),
        }
    }

    fn start(&mut self, since: Instant) -> Result<(), String> {
        let place = self.idle.pop().expect("a connection is free");
        let storage = self.next_storage();
        let values = self.settings.values;
        let first = self.settings.first + self.started * values as u64;
        self.started += 1;
        let append = Append {
            storage: &self.names[storage],
            first,
            values,
            value_bytes: self.settings.value_bytes,
        };
        self.sent[storage] += values as u64;
        if self.audience[storage] > 0 {
            for number in first..first + values as u64 {
                self.flights.insert(number, Flight { since, missing: self.audience[storage] });
            }
        }
        self.requesters[place].start(self.settings.dialect, &append, since)
    }

    /// In turn where the number of requests is given, so that every storage gets as many.
    fn next_storage(&mut self) -> usize {
        let storages = self.settings.storages as u64;
        let choice =
            if self.settings.requests.is_some() { self.started } else { self.random.next() };
        (choice % storages) as usize
    }

    fn turn(&mut self, sleep: Duration) -> Result<(), String> {
        let mut events = Events::with_capacity(1024);
        match self.poll.poll(&mut events, Some(sleep)) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Ok(()),
            other => other.map_err(|error| format!("poll: {error}"))?,
        }
        for event in &events {
            let place = event.token().0;
            match place.checked_sub(self.settings.connections) {
                Some(subscriber) => self.receive(subscriber)?,
                None => {
                    if event.is_writable() {
                        self.requesters[place].write()?;
                    }
                    if event.is_readable() {
                        self.answer(place)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn answer(&mut self, place: usize) -> Result<(), String> {
        let dialect = self.settings.dialect;
        if let Some(since) = self.requesters[place].read(dialect, &mut self.buffer)? {
            self.idle.push(place);
            self.measured.requests += 1;
            self.measured.replies.add(since.elapsed());
            // The usual next step, here and not after the other events of this turn: a connection
            // that waits for them would be measured as a slow server.
            if self.settings.pace == Pace::Closed && self.is_open() && self.may_start() {
                self.start(Instant::now())?;
            }
        }
        Ok(())
    }

    fn is_open(&self) -> bool {
        self.settings.requests.is_some()
            || self.begin.elapsed() < self.settings.warm_up + self.settings.duration
    }

    fn receive(&mut self, place: usize) -> Result<(), String> {
        let (flights, measured) = (&mut self.flights, &mut self.measured);
        let now = Instant::now();
        let mut unknown = None;
        self.subscribers[place].read(self.settings.dialect, &mut self.buffer, |number| {
            let Some(flight) = flights.get_mut(&number) else {
                unknown = Some(number);
                return;
            };
            measured.deliveries += 1;
            measured.receptions.add(now - flight.since);
            flight.missing -= 1;
            if flight.missing == 0 {
                measured.last_receptions.add(now - flight.since);
                flights.remove(&number);
            }
        })?;
        match unknown {
            Some(number) => Err(format!("message {number} came twice, or was never sent")),
            None => Ok(()),
        }
    }

    /// Everybody got as many messages as were sent to the storage, and those of one storage in the
    /// same order. As every message also arrived as often as it has subscribers, each got each once.
    fn check(&self) -> Result<(), String> {
        let mut orders = vec![None; self.settings.storages];
        for subscriber in &self.subscribers {
            let sent = self.sent[subscriber.storage];
            if subscriber.count != sent {
                return Err(format!("a subscriber got {} of {sent} messages", subscriber.count));
            }
            if *orders[subscriber.storage].get_or_insert(subscriber.order) != subscriber.order {
                return Err("two subscribers got the messages in another order".to_owned());
            }
        }
        Ok(())
    }

    fn report(self, report: &mut Report) {
        if let Some((since, cpu)) = self.measuring {
            report.add("seconds", since.elapsed().as_secs_f64());
            report.add("cpu_us", (self.cpu().saturating_sub(cpu)).as_micros());
            report.add("requests", self.measured.requests);
            report.add("deliveries", self.measured.deliveries);
            self.measured.replies.report(report, "reply");
            self.measured.receptions.report(report, "reception");
            self.measured.last_receptions.report(report, "last_reception");
        }
        if let Some(process) = self.settings.process {
            report.add("rss_bytes", process.rss_bytes());
        }
    }
}
