//! Owns the well-behaved client: a hundred requests a second over kept connections, a
//! subscriber, and how long each took from the moment it was due: a stall counts for all that it
//! held up.

use std::fmt;
use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Connection, Reply, Stream};

/// Between two requests of all its connections together.
const INTERVAL: Duration = Duration::from_millis(10);
const LAST: &str = "the last";

/// What it did, and how long each took.
#[derive(Default)]
pub(crate) struct Latencies {
    pub(crate) appends: Vec<Duration>,
    /// Reads of a storage that is read often.
    pub(crate) hot: Vec<Duration>,
    /// Reads that only a reader thread can answer.
    pub(crate) cold: Vec<Duration>,
    /// From when an append was due until its event was here.
    pub(crate) events: Vec<Duration>,
    /// Syncs of a few bytes of its own on the server's disk.
    pub(crate) syncs: Vec<Duration>,
}

pub(crate) fn percentile(latencies: &[Duration], percent: usize) -> Duration {
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable();
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

impl Latencies {
    pub(crate) fn series(&self) -> [(&'static str, &[Duration]); 4] {
        [
            ("append", &self.appends),
            ("hot read", &self.hot),
            ("cold read", &self.cold),
            ("event", &self.events),
        ]
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.series().into_iter().chain([("own sync", &*self.syncs)]);
        for (place, (name, series)) in all.enumerate() {
            let milliseconds = |percent| percentile(series, percent).as_secs_f64() * 1e3;
            let comma = if place > 0 { ", " } else { "" };
            let (p50, p99, most) = (milliseconds(50), milliseconds(99), milliseconds(100));
            write!(f, "{comma}{name} {p50:.1}/{p99:.1}/{most:.1}")?;
        }
        Ok(())
    }
}

/// Runs beside something else, until that is over.
pub(crate) struct Bystander {
    address: SocketAddr,
    id: String,
    over: AtomicBool,
    /// Something was not answered as it should: nobody waits any longer.
    broken: AtomicBool,
    /// When the append of each number was due.
    due: Mutex<Vec<Instant>>,
}

impl Bystander {
    pub(crate) fn new(address: SocketAddr) -> Bystander {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let (over, broken) = (AtomicBool::new(false), AtomicBool::new(false));
        let id = format!("bystander-{number}");
        Bystander { address, id, over, broken, due: Mutex::default() }
    }

    /// What it sees while `run` runs.
    pub(crate) fn beside<T>(&self, disk: &File, run: impl FnOnce() -> T) -> (T, Latencies) {
        let mut stream = Stream::open(self.address, &format!("/get?id={}", self.id), &[]);
        stream.forget_wire();
        stream.until_synced();
        let connect = || {
            let mut connection = Connection::open(self.address);
            connection.set_read_bytes_max(16 * 1024);
            connection
        };
        let connections = [connect(), connect(), connect()];
        thread::scope(|scope| {
            let [mut appender, mut hot, mut cold] = connections;
            let subscriber = scope.spawn(|| self.follow(stream));
            let appends = scope.spawn(move || {
                self.repeat(2, |n, over| answered(&self.append(&mut appender, n, over)))
            });
            let hot =
                scope.spawn(move || self.repeat(4, |_, _| answered(&hot.get("/get?id=quiet"))));
            let cold = scope.spawn(move || {
                self.repeat(4, |n, _| answered(&cold.get(&format!("/get?id=cold-{n}-{}", self.id))))
            });
            let syncs = scope.spawn(|| self.repeat(4, |_, _| sync(disk)));
            // The others end also when this panics.
            let result = catch_unwind(AssertUnwindSafe(run));
            self.over.store(true, Ordering::Relaxed);
            let latencies = Latencies {
                appends: appends.join().expect("every append was answered"),
                hot: hot.join().expect("every read was answered"),
                cold: cold.join().expect("every read was answered"),
                events: subscriber.join().expect("every event came"),
                syncs: syncs.join().expect("the disk takes them"),
            };
            (result.unwrap_or_else(|panic| resume_unwind(panic)), latencies)
        })
    }

    /// Does something at every so many intervals, and once more when it is over.
    fn repeat(&self, intervals: u32, mut step: impl FnMut(u32, bool)) -> Vec<Duration> {
        let mut latencies = Vec::new();
        let begin = Instant::now();
        for number in 0.. {
            let due = begin + INTERVAL * intervals * number;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let over = self.over.load(Ordering::Relaxed);
            if intervals == 2 {
                self.due.lock().expect("no holder panics").push(due);
            }
            let result = catch_unwind(AssertUnwindSafe(|| step(number, over)));
            latencies.push(due.elapsed());
            self.broken.fetch_or(result.is_err(), Ordering::Relaxed);
            result.unwrap_or_else(|panic| resume_unwind(panic));
            if over {
                break;
            }
        }
        latencies
    }

    fn append(&self, connection: &mut Connection, number: u32, last: bool) -> Reply {
        let value = if last { LAST.to_owned() } else { number.to_string() };
        connection.post(&format!("/set/{}", self.id), &format!("{{\"value\":\"{value}\"}}"))
    }

    fn follow(&self, mut stream: Stream) -> Vec<Duration> {
        let mut latencies = Vec::new();
        loop {
            // Comments come, too: whatever happens, this does not wait for ever.
            while let Some(event) = stream.decoder.next() {
                let due = self.due.lock().expect("no holder panics")[latencies.len()];
                latencies.push(due.elapsed());
                let value = event.json()["value"].take();
                if value == LAST {
                    return latencies;
                }
                assert_eq!(value, (latencies.len() - 1).to_string(), "each once, in order");
            }
            assert!(!self.broken.load(Ordering::Relaxed), "the other connections broke");
            assert_eq!(stream.read_more(), Ok(true), "the stream goes on");
        }
    }
}

fn answered(reply: &Reply) {
    assert!(matches!(reply.status, 200 | 201), "{}: {}", reply.status, reply.text());
}

/// What an append of a few bytes takes of the disk, whoever asks for it.
fn sync(disk: &File) {
    disk.write_all_at(&[0; 4_096], 0).expect("the disk is not full");
    disk.sync_data().expect("the disk syncs");
}
