//! Owns the scene of an attack: a server with room for a known number of connections, the
//! bystander, samples of the process's memory and of its processor time, and the verdict.

use std::ffi::OsString;
use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rill::cli::{self, Command};
use rill::config;
use rustix::process::{Resource, Rlimit, getrlimit, nice, setrlimit};

use crate::bystander::{Bystander, Latencies, percentile};
use crate::disk::Commits;
use crate::harness::Server;

const MIB: u64 = 1 << 20;
const SAMPLE_INTERVAL: Duration = Duration::from_millis(5);
/// As many as a process here may have, the server and its clients each.
const DESCRIPTORS: u64 = 20_000;

/// Whether attacks have their whole size.
pub(crate) fn is_whole() -> bool {
    std::env::var_os("RILL_ATTACK").is_some_and(|size| size == "whole")
}

/// One of two sizes.
pub(crate) fn size<T>(small: T, whole: T) -> T {
    if is_whole() { whole } else { small }
}

pub(crate) fn seconds(small: u64, whole: u64) -> Duration {
    Duration::from_secs(size(small, whole))
}

/// What the bystander's slowest percent may take. A debug build on a busy machine says little.
fn latency_max() -> Duration {
    Duration::from_millis(size(1_000, 50))
}

pub(crate) struct Scene {
    pub(crate) server: Server,
    /// What the process may take, as `config` adds it up.
    memory_bytes_max: u64,
    _alone: MutexGuard<'static, ()>,
}

/// What an attack cost.
pub(crate) struct Cost {
    pub(crate) peak_bytes: u64,
    /// Processor time of the server, as a part of the time that passed.
    pub(crate) processor: f64,
}

impl Scene {
    pub(crate) fn new(connections: usize) -> Scene {
        Scene::with(connections, &[])
    }

    pub(crate) fn with(connections: usize, args: &[&str]) -> Scene {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        raise_descriptors();
        let connections = connections.to_string();
        let args = [&["--connections-max", &*connections], args].concat();
        let server = Server::start_with(&args);
        server.set("quiet", &["a value"]);
        for _ in 0..2 {
            assert_eq!(server.get("/get?id=quiet").status, 200, "from now on it is hot");
        }
        Scene { memory_bytes_max: memory_bytes_max(&args), server, _alone: alone }
    }

    /// Runs an attack, prints its figures, and expects that nobody else suffered by it.
    pub(crate) fn attack<T>(&self, name: &str, run: impl FnOnce(&Server) -> T) -> (T, Cost) {
        self.attack_on(&[], name, run)
    }

    /// The same where these of the bystander's requests share with the attack what it is an attack
    /// on, and wait their turn: that they are answered is all that is expected of them.
    pub(crate) fn attack_on<T>(
        &self,
        shared: &[&str],
        name: &str,
        run: impl FnOnce(&Server) -> T,
    ) -> (T, Cost) {
        let bystander = Bystander::new(self.server.address());
        // An attack from another machine would not take the processors of this one.
        let polite = || {
            nice(19).expect("a thread may be nice");
            let result = catch_unwind(AssertUnwindSafe(|| run(&self.server)));
            nice(-19).expect("root may be less so");
            result.unwrap_or_else(|panic| resume_unwind(panic))
        };
        let probe = File::create(self.server.folder.file("probe")).expect("it can be written");
        let (before, begin) = (self.commits(), Instant::now());
        let ((result, latencies), cost) = self.measure(|| bystander.beside(&probe, polite));
        // Commits take long of a slow disk, but also of what they hold: syncs that hold nothing, of
        // the first only. The one under way is waited for, and the own.
        let commits = self.commits().since(&before).wait(begin.elapsed());
        let disk = commits.min(2 * percentile(&latencies.syncs, 99));
        self.judge(name, shared, disk, &latencies, &cost);
        (result, cost)
    }

    fn commits(&self) -> Commits {
        Commits::of(self.server.get("/metrics").text())
    }

    fn judge(
        &self,
        name: &str,
        shared: &[&str],
        disk: Duration,
        latencies: &Latencies,
        cost: &Cost,
    ) {
        println!(
            "{name}: p50/p99/max ms: {latencies}; of an append the disk {disk:.0?}; \
             memory {} of {} MiB; processor {:.0} %",
            cost.peak_bytes / MIB,
            self.memory_bytes_max / MIB,
            100.0 * cost.processor,
        );
        for (series, latencies) in latencies.series() {
            let slow = percentile(latencies, 99);
            let durable = matches!(series, "append" | "event");
            let most = latency_max() + if durable { disk } else { Duration::ZERO };
            assert!(
                shared.contains(&series) || slow < most,
                "{name}: {series} took {slow:?} at the 99th percentile, over {most:?}"
            );
        }
        self.judge_memory(name, cost);
    }

    pub(crate) fn judge_memory(&self, name: &str, cost: &Cost) {
        let (peak, most) = (cost.peak_bytes / MIB, self.memory_bytes_max / MIB);
        assert!(peak <= most, "{name}: the process took {peak} MiB, over the {most} it may");
    }

    /// What `run` cost the server.
    pub(crate) fn measure<T>(&self, run: impl FnOnce() -> T) -> (T, Cost) {
        let over = AtomicBool::new(false);
        let process = self.server.process.id();
        let (begin, before) = (Instant::now(), self.processor_time());
        thread::scope(|scope| {
            let sampler = scope.spawn(|| {
                let mut peak = 0;
                while !over.load(Ordering::Relaxed) {
                    peak = peak.max(memory_bytes(process));
                    thread::sleep(SAMPLE_INTERVAL);
                }
                peak
            });
            let result = catch_unwind(AssertUnwindSafe(run));
            over.store(true, Ordering::Relaxed);
            let peak_bytes = sampler.join().expect("the server is alive");
            let spent = self.processor_time() - before;
            let processor = spent.as_secs_f64() / begin.elapsed().as_secs_f64();
            let result = result.unwrap_or_else(|panic| resume_unwind(panic));
            (result, Cost { peak_bytes, processor })
        })
    }

    /// Of all of its threads, in both modes.
    fn processor_time(&self) -> Duration {
        let path = format!("/proc/{}/stat", self.server.process.id());
        let stat = fs::read_to_string(path).expect("the process is alive");
        let (_, fields) = stat.rsplit_once(") ").expect("the name stands in brackets");
        let fields: Vec<&str> = fields.split(' ').collect();
        let ticks = |place: usize| fields[place].parse::<u64>().expect("ticks are a number");
        // Linux counts these in hundredths of a second on every machine.
        Duration::from_millis(10 * (ticks(11) + ticks(12)))
    }

    /// Asks for a gauge until it is as expected; the server says by itself when that is.
    pub(crate) fn wait_until(&self, gauge: &str, expected: impl Fn(f64) -> bool) {
        let begin = Instant::now();
        while !expected(self.server.metric(gauge)) {
            assert!(begin.elapsed() < crate::harness::PATIENCE, "{gauge} does not become that");
        }
    }
}

/// What the process holds that no file backs.
fn memory_bytes(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status"));
    let status = status.expect("the process is alive");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let number = line.and_then(|line| line.split_whitespace().next()).expect("Linux names it");
    1024 * number.parse::<u64>().expect("it is a number of KiB")
}

fn memory_bytes_max(args: &[&str]) -> u64 {
    // No attack appends more.
    const EVENTS_MAX: usize = 4_000_000;
    let args = ["serve"].iter().chain(args).map(OsString::from);
    match cli::parse(args, &|_| None).expect("the server took them, too") {
        Command::Serve(settings) => config::memory_bytes_max(&settings, EVENTS_MAX) as u64,
        other => panic!("{other:?} serves nothing"),
    }
}

fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let maximum = Some(limit.maximum.unwrap_or(DESCRIPTORS).max(DESCRIPTORS));
    if limit.current.is_some_and(|current| current < DESCRIPTORS) {
        let raised = Rlimit { current: Some(DESCRIPTORS), maximum };
        setrlimit(Resource::Nofile, raised).expect("root may have 20,000 descriptors");
    }
}
