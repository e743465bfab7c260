//! Overload of what streams need: clients that come and go faster than a slow disk lets the writer
//! answer for them. Every stream that is asked for is served or sent away as the protocol says,
//! none is dropped, and those who come again miss nothing and get nothing twice.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
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
    away: usize,
}

impl Followed {
    /// Comes again after each event, until the last.
    fn follow(address: SocketAddr) -> Followed {
        let mut followed = Followed::default();
        while followed.values.last().is_none_or(|value| value != LAST) {
            followed.come(address);
        }
        followed
    }

    fn come(&mut self, address: SocketAddr) {
        let field = format!("Last-Event-ID: {}", self.cursor);
        let fields = if self.cursor.is_empty() { &[][..] } else { &[&*field][..] };
        let mut stream = Stream::open(address, "/get?id=followed", fields);
        let Some(mut message) = stream.try_next().expect("no stream is dropped") else {
            return self.was_sent_away(&stream);
        };
        assert_eq!(stream.decoder.retries, [config::RETRY]);
        self.served += 1;
        while message.event == "synced" {
            message = stream.next();
        }
        assert_eq!(message.event, "message", "nobody has to start again");
        self.values.push(message.json()["value"].as_str().expect("values are text").to_owned());
        self.cursor = message.id;
    }

    fn was_sent_away(&mut self, stream: &Stream) {
        let later = config::RETRY_AWAY..config::RETRY_AWAY + config::RETRY_AWAY_JITTER;
        let [retry] = stream.decoder.retries[..] else {
            panic!("it is told once when to come: {:?}", stream.decoder.retries);
        };
        assert!(later.contains(&retry), "{retry}");
        self.away += 1;
        thread::sleep(PAUSE);
    }
}

/// Appends until the time is over and the limit was reached for as long as one append takes, and
/// then, on a disk that is fast again, the last. Returns how many before it, and how many streams were
/// leaving at most.
fn append(server: &Server, mut strace: Process) -> (usize, f64) {
    let (begin, mut appended, mut leaving_max, mut reached) = (Instant::now(), 0, 0.0_f64, false);
    while begin.elapsed() < if reached { TIME } else { PATIENCE } {
        reached = is_reached(leaving_max);
        let values: Vec<String> = (appended..appended + VALUES).map(|n| n.to_string()).collect();
        server.set("followed", &values.iter().map(String::as_str).collect::<Vec<_>>());
        appended += VALUES;
        leaving_max = leaving_max.max(server.metric("rill_streams_leaving"));
    }
    strace.signal("TERM");
    server.set("followed", &[LAST]);
    (appended, leaving_max)
}

fn is_reached(leaving: f64) -> bool {
    leaving >= 0.9 * config::STREAMS_LEAVING_MAX as f64
}

#[test]
#[ignore = "needs strace, which scripts/attack installs"]
fn streams_sent_away() {
    let scene = Scene::new(1_000);
    // Who appends waits for the disk that is made slow here; who reads does not.
    let disk = ["append", "event"];
    let ((appended, leaving_max, all), _) = scene.attack_on(&disk, "streams sent away", |server| {
        let (strace, over) = (slow_syncs(server, SYNC_MICROSECONDS), AtomicBool::new(false));
        let (address, over) = (server.address(), &over);
        thread::scope(|scope| {
            for _ in 0..STORMERS {
                scope.spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        begin_and_cut(address, b"retry: ");
                    }
                });
            }
            let follow = |_| scope.spawn(move || Followed::follow(address));
            let followers: Vec<_> = (0..FOLLOWERS).map(follow).collect();
            let (appended, leaving_max) = append(server, strace);
            over.store(true, Ordering::Relaxed);
            let all = followers.into_iter().map(|f| f.join().expect("it followed to the end"));
            (appended, leaving_max, all.collect::<Vec<_>>())
        })
    });
    let mut expected: Vec<String> = (0..appended).map(|number| number.to_string()).collect();
    expected.push(LAST.to_owned());
    for followed in &all {
        assert_eq!(followed.values, expected, "no gap, and nothing twice");
    }
    let sum = |each: fn(&Followed) -> usize| all.iter().map(each).sum::<usize>();
    let (served, away) = (sum(|f| f.served), sum(|f| f.away));
    println!("streams sent away: {away}, served {served}, {leaving_max} leaving");
    assert!(is_reached(leaving_max) && away > 0, "the limit was reached, and who came was told");
    // Those that are served may leave beyond it: one a connection.
    let (limit, served) = (config::STREAMS_LEAVING_MAX as f64, (STORMERS + FOLLOWERS + 4) as f64);
    assert!(leaving_max <= limit + served, "{leaving_max} were leaving");
    scene.wait_until("rill_streams_leaving", |streams| streams == 0.0);
}
