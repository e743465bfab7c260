//! Owns the process: arguments, threads, the order in which they start and end, the exit code.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{bounded, unbounded};
use mio::Waker;
use std::sync::Arc;

use rill::cli::{self, Command};
use rill::config::{self, Settings};
use rill::event::Epochs;
use rill::hub::{Hub, Options};
use rill::logging;
use rill::message::ToWriter;
use rill::reactor::{self, Foundation, Reactor};
use rill::reader::{self, Reader};
use rill::route::Limits;
use rill::store::{StoreError, backup, sqlite};
use rill::writer::syncer::{self, Teller};
use rill::writer::{self, Writer};

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let variable = |name: &str| std::env::var(name).ok();
    let command = match cli::parse(std::env::args_os().skip(1), &variable) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("rill: {error}\nTry 'rill --help'.");
            return ExitCode::from(2);
        }
    };
    let result = match command {
        Command::Help => print(cli::HELP),
        Command::Version => print(concat!("rill ", env!("CARGO_PKG_VERSION"), "\n")),
        Command::Backup { from, to } => run_backup(&from, &to),
        Command::Serve(settings) => serve(&settings),
    };
    log::logger().flush();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rill: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A reader that has read enough is no failure.
fn print(text: &str) -> Result<(), Failure> {
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

fn run_backup(from: &Path, to: &Path) -> Result<(), Failure> {
    backup::backup(from, to)
        .map_err(|error| format!("{} to {}: {error}", from.display(), to.display()))?;
    print(&format!("copied {} to {}\n", from.display(), to.display()))
}

fn serve(settings: &Settings) -> Result<(), Failure> {
    logging::install(settings.log_level)?;
    abort_on_panic();
    let foundation = Foundation::new(&settings.listen)?;
    let waker = Arc::new(foundation.waker()?);
    let db = settings.db.display();
    let opened = sqlite::open(&settings.db).map_err(|error| format!("{db}: {error}"))?;
    let epochs = Epochs::new(&opened.epochs);
    let limits = Limits { value_bytes_max: settings.value_bytes_max };

    // What the hub sends, it counts, and it is answered once: its credits bound these queues. They
    // take memory for what is in them, where a bounded channel takes it for what could be.
    let (to_writer, writer_inbox) = unbounded();
    let (to_readers, reader_inbox) = unbounded();
    let (answers, from_readers) = bounded(config::ANSWERS_MAX);
    let (to_syncer, syncer_inbox) = bounded(config::UNSYNCED_MAX);
    let (notices, from_writer) = bounded(config::NOTICES_MAX);
    let (to_checkpointer, checkpoint_requests) = bounded(config::CHECKPOINTER_REQUESTS_MAX);

    let mut readers = Vec::new();
    for _ in 0..settings.readers {
        let log = sqlite::open_reader(&settings.db)?;
        let reader = Reader::new(log, epochs.current(), limits, Box::new(random));
        let (inbox, answers, wake) = (reader_inbox.clone(), answers.clone(), wake(&waker));
        readers.push(spawn("rill-reader", move || reader::run(reader, inbox, answers, wake))?);
    }
    let (checkpoint, from_checkpointer) = (opened.checkpoint, to_writer.clone());
    let checkpointer = spawn("rill-checkpointer", move || {
        writer::run_checkpointer(checkpoint, checkpoint_requests, from_checkpointer);
    })?;
    let teller = Arc::new(Teller::new(opened.sync, notices, wake(&waker)));
    let told = Arc::clone(&teller);
    let syncer = spawn("rill-syncer", move || or_die(syncer::run(&told, &syncer_inbox)))?;
    let writer = Writer::new(opened.log);
    let published = writer.published();
    let channels = writer::Channels {
        inbox: writer_inbox,
        syncer: to_syncer,
        teller,
        checkpointer: to_checkpointer,
    };
    let writer = spawn("rill-writer", move || or_die(writer::run(writer, channels)))?;

    let hub = Hub::new(Options {
        epochs,
        visible: opened.last,
        limits,
        body_bytes_max: settings.body_bytes_max,
        outbox_bytes_max: settings.outbox_bytes_max,
        connections_max: connections_max(settings.connections_max),
        readers: settings.readers,
        cors_origin: settings.cors_origin.clone(),
        access_log: settings.access_log,
        seed: random(),
    });
    print(&started(settings, &foundation, opened.last))?;
    let stop = to_writer.clone();
    let channels = reactor::Channels { to_writer, from_writer, to_readers, from_readers };
    Reactor::new(foundation, hub, published, channels)?.run()?;

    // The reactor is gone, and with it the readers' inbox; the writer ends what it has first.
    stop.send(ToWriter::Stop)?;
    for thread in readers.into_iter().chain([writer, syncer, checkpointer]) {
        thread.join().map_err(|_| "a thread panicked")?;
    }
    log::info!("stopped");
    Ok(())
}

/// From the operating system, which does not run out of it.
fn random() -> u64 {
    getrandom::u64().unwrap_or_else(|error| die(&format!("no random numbers: {error}")))
}

fn started(settings: &Settings, foundation: &Foundation, events: u64) -> String {
    let urls: Vec<String> = foundation.addresses.iter().map(|a| format!("http://{a}")).collect();
    let (urls, db) = (urls.join(" "), settings.db.display());
    format!("rill {} at {urls} serves {db}, {events} events\n", env!("CARGO_PKG_VERSION"))
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(run)
}

fn wake(waker: &Arc<Waker>) -> Box<dyn Fn() + Send + Sync> {
    let waker = Arc::clone(waker);
    Box::new(move || {
        if let Err(error) = waker.wake() {
            die(&format!("the event loop cannot be woken: {error}"));
        }
    })
}

fn or_die(result: Result<(), StoreError>) {
    if let Err(error) = result {
        die(&error.to_string());
    }
}

fn die(why: &str) -> ! {
    log::error!("{why}");
    log::logger().flush();
    std::process::exit(1);
}

/// One thread that is gone must take the others with it: a server that looks alive and is not
/// would be worse than none.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        log::logger().flush();
        report(panic);
        std::process::abort();
    }));
}

/// What the descriptor limit of the process allows, or what was asked for.
fn connections_max(asked: usize) -> usize {
    let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let descriptors = descriptors.map_or(usize::MAX, |limit| limit as usize);
    let reserved = config::RESERVED_DESCRIPTORS + config::CONNECTIONS_OVERFLOW;
    asked.min(descriptors.saturating_sub(reserved).max(1))
}
