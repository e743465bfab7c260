//! The power goes. What the real binary does to its files is recorded while clients append, read and
//! follow it; states that the disk may then be found in, at every moment, are opened, and what
//! anybody had been told by then must be in them. So must it after the power goes again while a
//! server recovers from such a state.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::client::{Answer, Client, Gone};
use crate::disk::{Disk, KEPT, Kept, State};
use crate::harness::{Folder, Random, Server};
use crate::strace;
use crate::told::{self, Moment, Told};
use crate::trace::{self, Change, Step};

const FILES: [&str; 3] = ["x.db", "x.db-wal", "x.db-journal"];
const STORAGES: [&str; 3] = ["s0", "s1", "s2"];
const APPENDERS: usize = 2;
/// Values of one append, enough to be folded while nobody appends.
const MANY: usize = 1_100;
/// Beyond the soft limit of the write-ahead log, in values of a MiB.
const LARGE_VALUES: usize = 40;
const MIB: usize = 1 << 20;
/// Which of the syncs of a first start is that of the folder, after the write-ahead log was made.
const SYNC_OF_THE_LOGS_NAME: usize = 10;

/// What servers did, one after the other in one folder, and what clients were told meanwhile.
struct Recording {
    folder: Arc<Folder>,
    /// What was there before, for certain.
    before: Disk,
    steps: Vec<Step>,
    told: Told,
}

/// How a server comes to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Killed,
    Stopped,
    /// By itself, with an error.
    Failed,
}

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
fn what_was_told_outlives_the_power_while_the_log_starts_over() {
    large(20_000);
}

#[test]
#[ignore = "takes some minutes"]
fn what_was_told_outlives_the_power_at_many_moments_while_the_log_starts_over() {
    large(200);
}

#[test]
fn what_was_told_relies_on_no_sync_that_failed() {
    let mut random = Random::from_environment();
    // The start takes 17, the writer's own are counted from 1 too.
    for nth in [random.range(1, 17), SYNC_OF_THE_LOGS_NAME, random.range(18, 60)] {
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

/// The nth sync of each thread fails: it goes on without, or ends.
fn fail_to_sync(nth: usize, random: &mut Random) {
    let mut recording = Recording::new(State::new());
    let fault = ["-e".to_owned(), format!("inject=fsync:error=EIO:when={nth}")];
    recording.live(End::Failed, &fault, |server| busy(server, 3_000, random, |_| {}));
    let failed = recording.steps.iter().any(|step| step.change.is_failed_sync());
    assert!(failed, "no {nth}th sync");
    recording.check_last(random, &format!("sync {nth} failed, and then "));
}

/// Small appends of many clients, a fold, a crash, a recovery and a stop; one of so many moments is
/// looked at, and from so many states a server recovers.
fn small(one_in: u64, recoveries: u64) {
    let mut random = Random::from_environment();
    let mut recording = Recording::new(State::new());
    // Most of the time is spent in syncs, so that the kill comes in one.
    let slow = ["-e".to_owned(), "inject=fsync:delay_enter=10000".to_owned()];
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
    for (state, told) in found {
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

/// The write-ahead log is copied, and started over while it still holds what it held before.
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

impl Recording {
    fn new(found: State) -> Recording {
        let folder = folder_in_memory();
        for (name, bytes) in &found {
            fs::write(folder.file(name), bytes).expect("the folder can be written");
        }
        let before = Disk::with(&found);
        Recording { folder: Arc::new(folder), before, steps: Vec::new(), told: Told::default() }
    }

    /// A server's life in this folder, with further options for strace.
    fn live(&mut self, end: End, options: &[String], play: impl FnOnce(&mut Server) -> Told) {
        let options: Vec<String> =
            trace::OPTIONS.iter().map(|&word| word.to_owned()).chain(options.to_vec()).collect();
        let words = strace::under(&self.folder, &FILES, &options);
        let mut process = match Server::start_under(&words, self.folder.clone(), &[]) {
            Ok(mut server) => {
                self.told.join(play(&mut server));
                server.process
            }
            Err(process) => process,
        };
        let code = match end {
            End::Killed => {
                process.signal("KILL");
                None
            }
            End::Stopped => {
                process.signal("TERM");
                Some(0)
            }
            End::Failed => Some(1),
        };
        // Its output ends when strace ends, too.
        let (ended, _, said) = process.outcome();
        assert_eq!(ended, code, "{said}");
        let folder = self.folder.file("");
        let folder = folder.to_str().expect("test paths are UTF-8").trim_end_matches('/');
        let trace = trace::parse(&strace::log_of(&self.folder), folder);
        self.steps.extend(trace.steps);
        let files = self.folder.contents();
        let happened = |step: &Step| match &step.change {
            Change::Write { at, bytes } => {
                files[&step.name].get(*at..at + bytes.len()) == Some(&bytes[..])
            }
            change => panic!("{change:?} is not looked for"),
        };
        self.steps.extend(trace.cut_short.into_iter().filter(happened));
        // What a sync that failed was to write is in the files, and counts as lost.
        if end != End::Failed {
            self.check_record();
        }
    }

    /// Without a loss of power, the files are what was recorded.
    fn check_record(&self) {
        let mut disk = self.before.clone();
        self.steps.iter().for_each(|step| disk.apply(step));
        let mut files = self.folder.contents();
        files.retain(|name, _| FILES.contains(&name.as_str()));
        let recorded = disk.running();
        assert!(recorded.keys().eq(files.keys()), "{:?}, {:?}", recorded.keys(), files.keys());
        for (name, bytes) in files {
            assert!(recorded[&name] == bytes, "{name} is not as recorded");
        }
    }

    /// The power goes at one of so many moments, chosen at random, and after the last.
    fn check(
        &self,
        one_in: u64,
        random: &mut Random,
        mut also: impl FnMut(&State, &Told, &mut Random),
    ) {
        let mut disk = self.before.clone();
        let mut states = 0;
        for (number, step) in self.steps.iter().enumerate() {
            if random.one_in(one_in) {
                let told = self.told.before(step.moment);
                for kept in KEPT {
                    let state = disk.cut(kept, random);
                    check_state(&state, &told, &self.describe(number, kept));
                    also(&state, &told, random);
                    states += 1;
                }
            }
            disk.apply(step);
        }
        println!("{states} states of {} steps", self.steps.len());
        self.check_last(random, "");
    }

    /// The power goes after everything.
    fn check_last(&self, random: &mut Random, before: &str) {
        let mut disk = self.before.clone();
        self.steps.iter().for_each(|step| disk.apply(step));
        let told = self.told.before(Moment::MAX);
        for kept in KEPT {
            let what = self.describe(self.steps.len(), kept);
            check_state(&disk.cut(kept, random), &told, &(before.to_owned() + &what));
        }
    }

    fn describe(&self, number: usize, kept: Kept) -> String {
        let next = self.steps.get(number).map(|step| (&step.name, step.change.kind()));
        let steps = self.steps.len();
        format!("power lost before step {number} of {steps}, {next:?}, of what is pending {kept:?}")
    }
}

/// Where there is memory to be had as a folder: nothing here depends on the disk's own syncs.
fn folder_in_memory() -> Folder {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { Folder::within(memory) } else { Folder::new() }
}

fn check_state(state: &State, told: &Told, what: &str) {
    let folder = folder_in_memory();
    for (name, bytes) in state {
        fs::write(folder.file(name), bytes).expect("the folder can be written");
    }
    told::check(&folder.file("x.db"), told, what);
}
