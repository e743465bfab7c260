//! The power goes while the write-ahead log starts over. The binary's log does so at 64 MiB, and of
//! states of that size only few can be looked at (`power`). So this program runs itself as a server of
//! another kind: the store and the threads that write it as in the binary, with a log that starts
//! over every few commits.

use std::path::Path;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use rill::config;
use rill::event::{NewValue, NewValues};
use rill::id::Id;
use rill::message::{Append, Commit, FromWriter, ToWriter, Token};
use rill::store::sqlite::{self, Tuning};
use rill::writer::syncer::{self, Teller};
use rill::writer::{self, Channels, Writer};

use crate::disk::State;
use crate::harness::{Process, Random};
use crate::recording::{End, Recording};
use crate::told::{self, Told};

/// Names the database to the process that this program starts.
const DB: &str = "RILL_TEST_SMALL_LOG";
const APPENDER: &str = "small_log::appends_to_a_small_log";
const STORAGES: [&str; 3] = ["s0", "s1", "s2"];
const IN_FLIGHT: usize = 3;
const VALUE_BYTES_MAX: usize = 2_000;
/// The appender says a line like this, and one of the other kind when the log started over so often.
const TOLD: &str = "told ";
const ENOUGH: &str = "enough";
const RESTARTS: usize = 12;

/// Folds, merges and restarts after a few events.
fn tuning() -> Tuning {
    Tuning {
        fold_events: 40,
        idle_fold_events: 10,
        unfolded_events_max: 200,
        index_ahead_events: 4,
        index_share_events: 8,
        fan_out: 3,
        slice_units: 16,
        wal_bytes_soft: 64 << 10,
        wal_bytes_hard: 256 << 10,
        wal_file_bytes_min: 8 << 10,
        wal_spare_bytes: 0,
        ..Tuning::default()
    }
}

#[test]
fn what_was_told_outlives_the_power_while_a_small_log_starts_over() {
    small_log(20);
}

#[test]
#[ignore = "takes half a minute"]
fn what_was_told_outlives_the_power_at_every_moment_while_a_small_log_starts_over() {
    small_log(1);
}

fn small_log(one_in: u64) {
    let mut random = Random::from_environment();
    let mut recording = Recording::new(State::new());
    let this = std::env::current_exe().expect("a process knows its program");
    let mut command = recording.command(&this);
    command.args([APPENDER, "--exact", "--ignored", "--nocapture"]);
    command.env(DB, recording.folder.file("x.db"));
    command.env("RILL_TEST_SEED", random.next().to_string());
    let process = Process::start(&mut command);
    let enough =
        process.stdout.wait_for(|lines| lines.iter().any(|line| line == ENOUGH).then_some(()));
    assert!(enough.is_some(), "{:#?}", process.stderr.seen());
    let stdout = process.stdout.clone();
    recording.end(End::Killed, process);
    for line in stdout.seen() {
        recording.told.join(line.strip_prefix(TOLD).map_or_else(Told::default, told_by));
    }
    recording.check(one_in, &mut random, |_, _, _| {});
}

/// What a line says; the kill may have cut the last one short.
fn told_by(line: &str) -> Told {
    let mut told = Told::default();
    let words: Vec<&str> = line.split(' ').collect();
    if let [moment, seq, id, value, ""] = words[..] {
        let number = |text: &str| text.parse().expect("a number");
        told.tell_at(number(moment), number(seq), id, value);
    }
    told
}

/// Not a test but the process that the tests above trace; alone it does nothing.
#[test]
#[ignore = "run by others"]
fn appends_to_a_small_log() {
    let Some(db) = std::env::var_os(DB) else { return };
    let (to_writer, from_syncer) = serve(Path::new(&db));
    let mut random = Random::from_environment();
    let (mut number, mut answered) = (0, 0);
    let (mut restarts, mut wal_bytes) = (0, 0);
    loop {
        while number < answered + IN_FLIGHT {
            let append = some_values(number, &mut random);
            to_writer.send(ToWriter::Append(append)).expect("the writer lives");
            number += 1;
        }
        let notice = from_syncer.recv().expect("the syncer lives");
        let store = match notice {
            FromWriter::Committed(commit) => {
                answered += commit.appended.len();
                say(&commit);
                commit.store
            }
            FromWriter::Gauges(gauges) => gauges,
            notice => panic!("{notice:?}"),
        };
        restarts += usize::from(store.wal_bytes < wal_bytes);
        wal_bytes = store.wal_bytes;
        if restarts == RESTARTS {
            println!("{ENOUGH}");
        }
    }
}

/// Starts the writer, its syncer and its checkpointer, as the binary does.
fn serve(db: &Path) -> (Sender<ToWriter>, Receiver<FromWriter>) {
    let opened = sqlite::open_with(db, tuning()).expect("it opens");
    let (to_writer, inbox) = unbounded();
    let (notices, from_syncer) = bounded(16);
    let (checkpointer, requests) = bounded(config::CHECKPOINTER_REQUESTS_MAX);
    let back = to_writer.clone();
    thread::spawn(move || writer::run_checkpointer(opened.checkpoint, requests, back));
    let (to_syncer, from_writer) = bounded(config::UNSYNCED_MAX);
    let teller = Arc::new(Teller::new(opened.sync, notices, Box::new(|| {})));
    let channels = Channels { inbox, syncer: to_syncer, teller: Arc::clone(&teller), checkpointer };
    thread::spawn(move || syncer::run(&teller, &from_writer));
    thread::spawn(move || writer::run(Writer::new(opened.log), channels));
    (to_writer, from_syncer)
}

fn some_values(number: usize, random: &mut Random) -> Append {
    let id = STORAGES[random.range(0, STORAGES.len() - 1)];
    let values = (0..random.range(1, 4)).map(|value| {
        let text = format!("{number}.{value}.");
        let bytes = random.range(text.len(), VALUE_BYTES_MAX);
        NewValue::new(text.chars().cycle().take(bytes).collect::<String>())
    });
    let token = Token { connection: 0, exchange: 0 };
    let values = NewValues::List(values.collect());
    Append { token, values, id: Id::new(id).expect("a plain name") }
}

/// After the moment it names, which is after the commit.
fn say(commit: &Commit) {
    for appended in &commit.appended {
        let append = &appended.append;
        for (value, placed) in append.values.iter().zip(&*appended.placed) {
            let (moment, seq, id) = (told::now(), placed.seq, append.id.as_str());
            println!("{TOLD}{moment} {seq} {id} {} ", value.text);
        }
    }
}
