//! The power goes. What the real binary does to its files is recorded while clients append, read and
//! follow it; states that the disk may then be found in, at every moment, are opened, and what
//! anybody had been told by then must be in them. So must it after the power goes again while a
//! server recovers from such a state.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::client::{Answer, Client, Gone};
use crate::disk::{KEPT, State};
use crate::harness::{Random, Server};
use crate::part::Part;
use crate::recording::{End, Recording};
use crate::told::Told;

const STORAGES: [&str; 3] = ["s0", "s1", "s2"];
const APPENDERS: usize = 2;
/// Values of one append, enough to be folded while nobody appends.
const MANY: usize = 1_100;
/// Beyond the soft limit of the write-ahead log, in values of a MiB.
const LARGE_VALUES: usize = 72;
const MIB: usize = 1 << 20;
/// Which of the syncs of a first start is that of the folder, after the write-ahead log was made.
const SYNC_OF_THE_LOGS_NAME: usize = 10;
/// Of one that finds a log: the third, of the folder, is SQLite's, and done again at the end.
const SYNCS_OF_A_START: [usize; 5] = [1, 2, 4, 5, 6];
/// What SQLite calls to sync, and what the syncer does.
const SYNCS: &str = "fsync,fdatasync";
const SYNC_OF_AN_APPEND: &str = "fdatasync";

#[test]
fn what_was_told_outlives_the_power() {
    small(12, 2);
}

#[test]
#[ignore = "takes some minutes"]
fn what_was_told_outlives_the_power_at_every_moment() {
    small(1, 40);
}

#[test]
#[ignore = "takes some minutes"]
fn what_was_told_outlives_the_power_while_the_log_starts_over() {
    large(4_000);
}

#[test]
fn what_was_told_relies_on_no_sync_that_failed() {
    let mut random = Random::from_environment();
    // The start takes 14, those of each further thread are counted from 1 too.
    for nth in [random.range(1, 14), SYNC_OF_THE_LOGS_NAME, random.range(15, 60)] {
        fail_to_sync(nth, &mut random);
    }
}

#[test]
#[ignore = "takes a minute"]
fn what_was_told_relies_on_no_sync_that_failed_wherever_it_did() {
    let mut random = Random::from_environment();
    for nth in 1..=80 {
        fail_to_sync(nth, &mut random);
    }
}

/// The nth such sync of each thread fails.
fn fail(syncs: &str, nth: usize) -> [String; 2] {
    ["-e".to_owned(), format!("inject={syncs}:error=EIO:when={nth}")]
}

/// It goes on without, or ends.
fn fail_to_sync(nth: usize, random: &mut Random) {
    let mut recording = Recording::new(State::new());
    recording.live(End::Failed, &fail(SYNCS, nth), |server| busy(server, 3_000, random, |_| {}));
    let failed = recording.steps.iter().any(|step| step.change.is_failed_sync());
    assert!(failed, "no {nth}th sync");
    recording.check_last(random, &format!("sync {nth} failed, and then "));
}

#[test]
fn what_was_told_outlives_a_sync_that_failed_and_then_the_power() {
    let mut random = Random::from_environment();
    double_fault(None, &mut random);
    double_fault(Some(SYNCS_OF_A_START[random.range(0, 4)]), &mut random);
}

#[test]
#[ignore = "takes a minute"]
fn what_was_told_outlives_any_two_syncs_that_failed_and_then_the_power() {
    let mut random = Random::from_environment();
    for _ in 0..10 {
        for nth in SYNCS_OF_A_START {
            double_fault(Some(nth), &mut random);
        }
    }
}

/// The sync of an append fails, and the server ends. The next one finds the append in the system's
/// memory, which calls it clean, and copies it into the database. One whose nth sync fails, too, may
/// come between. Then the power goes.
fn double_fault(nth: Option<usize>, random: &mut Random) {
    let mut recording = Recording::new(State::new());
    let server = Server::start_in(recording.folder.clone(), &[]);
    let mut client = Client::new(server.address(), &STORAGES);
    let mut append = |client: &mut Client, what: &str, count: usize| {
        let values: Vec<String> = (0..count)
            .map(|place| format!("{what} {place} ").repeat(random.range(1, 40)))
            .collect();
        client.append(STORAGES[random.range(0, STORAGES.len() - 1)], &values)
    };
    for number in 0..20 {
        assert_eq!(append(&mut client, &format!("old {number}"), 10), Ok(Answer::Stored));
    }
    assert_eq!(client.read_at_last(), Ok(()));
    recording.told.join(client.told);
    // The log is copied, and begins anew: what the append changes is in it for the first time.
    let server = server.stop().start();
    recording.live_on(End::Failed, &fail(SYNC_OF_AN_APPEND, 1), server, |server| {
        let mut client = Client::new(server.address(), &STORAGES);
        assert_eq!(append(&mut client, "unsynced", 50), Err(Gone));
        client.told
    });
    if let Some(nth) = nth {
        recording
            .live(End::Failed, &fail(SYNCS, nth), |_| panic!("a start needs its {nth}th sync"));
    }
    recording.live(End::Killed, &[], |server| {
        let mut client = Client::new(server.address(), &STORAGES);
        assert_eq!(client.read_at_last(), Ok(()));
        client.told
    });
    recording.check(1, random, |_, _, _| {});
}

/// Small appends of many clients, a fold, a crash, a recovery and a stop; one of so many moments is
/// looked at, and from so many states a server recovers.
fn small(one_in: u64, recoveries: u64) {
    let mut random = Random::from_environment();
    let mut recording = Recording::new(State::new());
    // Most of the time is spent in syncs, so that the kill comes in one.
    let slow = ["-e".to_owned(), format!("inject={SYNCS}:delay_enter=10000")];
    recording.live(End::Killed, &slow, |server| {
        busy(server, MANY + 100, &mut random, |server| server.process.signal("KILL"))
    });
    recording.live(End::Stopped, &[], |server| busy(server, 60, &mut random, |_| {}));
    let states = recording.steps.len() as u64 / one_in * KEPT.len() as u64;
    let mut found = Vec::new();
    recording.check(one_in, &mut random, |state, told, random| {
        if random.one_in(states / recoveries) {
            found.push((state.clone(), told.clone()));
        }
    });
    for (state, told) in Part::from_environment().of(found.into_iter()) {
        recover(state, told, &mut random);
    }
}

/// A server starts on what was found, is used, and the power goes again.
fn recover(state: State, told: Told, random: &mut Random) {
    let mut recording = Recording::new(state);
    recording.told = told;
    recording.live(End::Killed, &[], |server| {
        let mut client = Client::new(server.address(), &STORAGES);
        let read = client.read_at_last();
        let stored = client.append("s0", &["after it recovered".to_owned()]);
        assert_eq!((read, stored), (Ok(()), Ok(Answer::Stored)));
        client.told
    });
    recording.check(4, random, |_, _, _| {});
}

/// The write-ahead log is copied, and started over while it still holds what it held before. With
/// the log's own size: each state takes seconds, so `small_log` looks at many.
fn large(one_in: u64) {
    let mut random = Random::from_environment();
    let mut recording = Recording::new(State::new());
    recording.live(End::Killed, &[], |server| {
        let mut client = Client::new(server.address(), &STORAGES);
        for number in 0..LARGE_VALUES {
            let value = format!("{number}.").repeat(MIB / 3);
            assert_eq!(client.append("large", &[value]), Ok(Answer::Stored));
        }
        let copied = client.append_until("large", 100_000, "rill_wal_bytes", |bytes| bytes < 10e6);
        assert_eq!(copied, Ok(true));
        let told = busy(server, 100, &mut random, |_| {});
        client.told.join(told);
        client.told
    });
    recording.check(one_in, &mut random, |_, _, _| {});
}

/// Appends over all storages while someone follows, until that one saw so many events or the server
/// is gone. `end` is called while appends are under way.
fn busy(
    server: &mut Server,
    events: usize,
    random: &mut Random,
    end: impl FnOnce(&mut Server),
) -> Told {
    let (address, done) = (server.address(), AtomicBool::new(false));
    thread::scope(|scope| {
        let appenders: Vec<_> = (0..APPENDERS)
            .map(|appender| {
                let (random, done) = (random.fork(), &done);
                scope.spawn(move || append_until(done, address, appender, random))
            })
            .collect();
        let mut follower = Client::new(address, &STORAGES);
        let _ = follower.follow_events(events);
        end(server);
        done.store(true, Ordering::Relaxed);
        let mut told = follower.told;
        for appender in appenders {
            told.join(appender.join().expect("the appender saw nothing wrong"));
        }
        told
    })
}

fn append_until(
    done: &AtomicBool,
    address: SocketAddr,
    appender: usize,
    mut random: Random,
) -> Told {
    let mut client = Client::new(address, &STORAGES);
    // No two lives of a server append the same.
    let life = random.next();
    for number in 0.. {
        let count = if appender == 0 && number == 10 { MANY } else { random.range(1, 4) };
        let values: Vec<String> = (0..count)
            .map(|place| {
                let value = format!("{life}.{appender}.{number}.{place} ");
                let bytes = if count == MANY { 30 } else { random.range(1, 6_000) };
                value.chars().cycle().take(bytes.max(value.len())).collect()
            })
            .collect();
        let id = STORAGES[random.range(0, STORAGES.len() - 1)];
        match client.append(id, &values) {
            Ok(answer) => assert_eq!(answer, Answer::Stored),
            Err(Gone) => break,
        }
        if done.load(Ordering::Relaxed) {
            break;
        }
    }
    client.told
}
