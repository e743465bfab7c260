//! Overload of what streams need: clients that come and go faster than a slow disk lets the writer
//! answer for them. Every stream that is asked for is served or sent away as the protocol says,
//! none is dropped, and those who come again miss nothing and get nothing twice.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rill::config;

use crate::harness::{Process, Server, Stream};
use crate::many::begin_and_cut;
use crate::overload::slow_syncs;
use crate::scene::Scene;

const STORMERS: usize = 8;
const FOLLOWERS: usize = 8;
const SYNC_MICROSECONDS: u32 = 2_000_000;
const TIME: Duration = Duration::from_secs(12);
/// For the limit to be reached, where the storm is slow.
const PATIENCE: Duration = Duration::from_secs(60);
/// Values of one append, so that there is always something to resume for.
const VALUES: usize = 20;
/// Before someone who was sent away comes again: sooner than told, so that many are.
const PAUSE: Duration = Duration::from_millis(20);
const LAST: &str = "the last";

/// What one client of streams met.
#[derive(Default)]
struct Followed {
    values: Vec<String>,
    cursor: String,
    served: usize,
}

impl Followed {
    /// Comes again after each event, until the last.
    fn follow(address: SocketAddr, away: &AtomicUsize) -> Followed {
        let mut followed = Followed::default();
        while followed.values.last().is_none_or(|value| value != LAST) {
            if !followed.come(address) {
                away.fetch_add(1, Ordering::Relaxed);
                thread::sleep(PAUSE);
            }
        }
        followed
    }

    /// For one event; or it was sent away.
    fn come(&mut self, address: SocketAddr) -> bool {
        let field = format!("Last-Event-ID: {}", self.cursor);
        let fields = if self.cursor.is_empty() { &[][..] } else { &[&*field][..] };
        let mut stream = Stream::open(address, "/get?id=followed", fields);
        let Some(mut message) = stream.try_next().expect("no stream is dropped") else {
            was_told_when(&stream);
            return false;
        };
        assert_eq!(stream.decoder.retries, [config::RETRY]);
        self.served += 1;
        while message.event == "synced" {
            message = stream.next();
        }
        assert_eq!(message.event, "message", "nobody has to start again");
        self.values.push(message.json()["value"].as_str().expect("values are text").to_owned());
        self.cursor = message.id;
        true
    }
}

fn was_told_when(stream: &Stream) {
    let later = config::RETRY_AWAY..config::RETRY_AWAY + config::RETRY_AWAY_JITTER;
    let [retry] = stream.decoder.retries[..] else {
        panic!("it is told once when to come: {:?}", stream.decoder.retries);
    };
    assert!(later.contains(&retry), "{retry}");
}

/// Appends until the time is over and someone was sent away, and then, on a disk that is fast again,
/// the last. Returns how many before it, and how many streams were leaving at most.
fn append(server: &Server, mut strace: Process, away: &AtomicUsize) -> (usize, f64) {
    let (begin, mut appended, mut leaving_max) = (Instant::now(), 0, 0.0_f64);
    let reached = || away.load(Ordering::Relaxed) > 0;
    while begin.elapsed() < if reached() { TIME } else { PATIENCE } {
        let values: Vec<String> = (appended..appended + VALUES).map(|n| n.to_string()).collect();
        server.set("followed", &values.iter().map(String::as_str).collect::<Vec<_>>());
        appended += VALUES;
        leaving_max = leaving_max.max(server.metric("rill_streams_leaving"));
    }
    strace.signal("TERM");
    server.set("followed", &[LAST]);
    (appended, leaving_max)
}

#[test]
#[ignore = "needs strace, which scripts/attack installs"]
fn streams_sent_away() {
    let scene = Scene::new(1_000);
    // Who appends waits for the disk that is made slow here; who reads does not.
    let disk = ["append", "event"];
    let ((appended, leaving_max, all, away), _) =
        scene.attack_on(&disk, "streams sent away", |server| {
            let strace = slow_syncs(server, SYNC_MICROSECONDS);
            let (over, away) = (AtomicBool::new(false), AtomicUsize::new(0));
            let (address, over, away) = (server.address(), &over, &away);
            thread::scope(|scope| {
                for _ in 0..STORMERS {
                    scope.spawn(move || {
                        while !over.load(Ordering::Relaxed) {
                            begin_and_cut(address, b"retry: ");
                        }
                    });
                }
                let follow = |_| scope.spawn(move || Followed::follow(address, away));
                let followers: Vec<_> = (0..FOLLOWERS).map(follow).collect();
                let (appended, leaving_max) = append(server, strace, away);
                over.store(true, Ordering::Relaxed);
                let all = followers.into_iter().map(|f| f.join().expect("it followed to the end"));
                let all: Vec<Followed> = all.collect();
                (appended, leaving_max, all, away.load(Ordering::Relaxed))
            })
        });
    let mut expected: Vec<String> = (0..appended).map(|number| number.to_string()).collect();
    expected.push(LAST.to_owned());
    for followed in &all {
        assert_eq!(followed.values, expected, "no gap, and nothing twice");
    }
    let served: usize = all.iter().map(|followed| followed.served).sum();
    println!("streams sent away: {away}, served {served}, {leaving_max} leaving");
    let limit = config::STREAMS_LEAVING_MAX as f64;
    assert!(leaving_max >= 0.9 * limit && away > 0, "it was reached, and who came was told");
    // Those that are served may leave beyond it: one a connection.
    let connections = (STORMERS + FOLLOWERS + 4) as f64;
    assert!(leaving_max <= limit + connections, "{leaving_max} were leaving");
    scene.wait_until("rill_streams_leaving", |streams| streams == 0.0);
}
