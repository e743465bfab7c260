//! Owns reading histories: each storage once, as JSON or as an event stream, every event counted and
//! in order. The storages are read in disorder: those appended to one after another share pages of the
//! server's file. Called by `main`. Blocking: with several connections the replies are taken in the
//! order they were asked for, which is that of a server that is fair.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use memchr::{memchr, memmem};

use crate::dialect::{MARK_DIGITS, VALUE_BYTES_MIN};
use crate::process::Process;
use crate::random::Random;
use crate::report::{Durations, Report};

const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug)]
pub(crate) enum Form {
    Json,
    Stream,
}

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) address: SocketAddr,
    pub(crate) process: Option<Process>,
    pub(crate) storages: usize,
    /// So many storages are asked for at a time.
    pub(crate) connections: usize,
    /// Events that each of them holds.
    pub(crate) events: u64,
    pub(crate) form: Form,
}

pub(crate) fn read(settings: &Settings) -> Result<Report, String> {
    let cpu = || settings.process.map_or(Duration::ZERO, Process::cpu);
    let (begin, cpu_before) = (Instant::now(), cpu());
    let mut first_event = Duration::MAX;
    let mut bytes = 0;
    let mut waits = Durations::default();
    let mut buffer = vec![0; 256 * 1024];
    let mut take = |asked: Asked| {
        let storage = asked.storage;
        let history = asked.history(settings, &mut buffer);
        let history = history.map_err(|error| format!("s{storage}: {error}"))?;
        first_event = first_event.min(history.first_event);
        bytes += history.bytes;
        waits.add(history.waited);
        Ok::<_, String>(history.connection)
    };
    let mut asked: VecDeque<Asked> = VecDeque::new();
    for storage in Random::new(0).shuffled(settings.storages) {
        let connection = match asked.len() < settings.connections {
            true => None,
            false => take(asked.pop_front().expect("there is a connection"))?,
        };
        asked.push_back(Asked::ask(settings, storage, connection)?);
    }
    for asked in asked {
        take(asked)?;
    }
    let mut report = Report::default();
    report.add("seconds", begin.elapsed().as_secs_f64());
    report.add("cpu_us", (cpu().saturating_sub(cpu_before)).as_micros());
    report.add("events", settings.events * settings.storages as u64);
    report.add("bytes", bytes);
    report.add("first_event_us", first_event.as_micros());
    waits.report(&mut report, "reply");
    if let Some(process) = settings.process {
        report.add("rss_bytes", process.rss_bytes());
    }
    Ok(report)
}

/// A history that is on its way.
struct Asked {
    storage: usize,
    since: Instant,
    stream: TcpStream,
}

struct History {
    first_event: Duration,
    waited: Duration,
    bytes: usize,
    /// Where it is one that goes on.
    connection: Option<TcpStream>,
}

impl Form {
    fn media_type(self) -> &'static str {
        match self {
            Form::Json => "application/json",
            Form::Stream => "text/event-stream",
        }
    }

    fn end(self) -> &'static [u8] {
        match self {
            Form::Json => b"\"more\":false}",
            Form::Stream => b"event: synced\n",
        }
    }
}

fn failed(error: std::io::Error) -> String {
    format!("a read: {error}")
}

impl Asked {
    fn ask(
        settings: &Settings,
        storage: usize,
        connection: Option<TcpStream>,
    ) -> Result<Asked, String> {
        let since = Instant::now();
        let mut stream = match connection {
            Some(stream) => stream,
            None => TcpStream::connect(settings.address).map_err(failed)?,
        };
        stream.set_nodelay(true).map_err(failed)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        let accept = settings.form.media_type();
        let request =
            format!("GET /get?id=s{storage} HTTP/1.1\r\nHost: bench\r\nAccept: {accept}\r\n\r\n");
        stream.write_all(request.as_bytes()).map_err(failed)?;
        Ok(Asked { storage, since, stream })
    }

    fn history(self, settings: &Settings, buffer: &mut [u8]) -> Result<History, String> {
        let Asked { since, mut stream, .. } = self;
        let mut end = settings.form.end();
        let mut marks = Marks::default();
        let (mut first_event, mut bytes) = (Duration::MAX, 0);
        // What was not looked at yet: the start of a mark, or of the end.
        let mut kept = 0;
        loop {
            let read = stream.read(&mut buffer[kept..]).map_err(failed)?;
            if read == 0 {
                return Err("the reply was cut".to_owned());
            }
            if bytes == 0
                && let Form::Json = settings.form
                && memmem::find(&buffer[..read], b"\r\nTransfer-Encoding: chunked\r\n").is_some()
            {
                end = b"\"more\":false}\r\n0\r\n\r\n";
            }
            bytes += read;
            let filled = kept + read;
            let looked = marks.take(&buffer[..filled])?;
            if marks.count > 0 {
                first_event = first_event.min(since.elapsed());
            }
            if memmem::find(&buffer[..filled], end).is_some() {
                break;
            }
            let from = looked.min(filled.saturating_sub(end.len()));
            marks.skip = looked - from;
            buffer.copy_within(from..filled, 0);
            kept = filled - from;
        }
        if marks.count != settings.events {
            return Err(format!("{} events instead of {}", marks.count, settings.events));
        }
        let waited = since.elapsed();
        let connection = matches!(settings.form, Form::Json).then_some(stream);
        Ok(History { first_event, waited, bytes, connection })
    }
}

#[derive(Debug, Default)]
struct Marks {
    count: u64,
    last: Option<u64>,
    /// Bytes at the start of the next piece that were looked at before.
    skip: usize,
}

impl Marks {
    /// Counts whole marks; returns how far it looked. Each must be larger than the one before.
    fn take(&mut self, bytes: &[u8]) -> Result<usize, String> {
        let mut at = self.skip;
        while let Some(found) = memchr(b'~', &bytes[at..]) {
            let start = at + found;
            let Some(mark) = bytes.get(start + 1..start + VALUE_BYTES_MIN) else {
                return Ok(start);
            };
            let digits = std::str::from_utf8(&mark[..MARK_DIGITS]).unwrap_or_default();
            let number = digits.parse().map_err(|_| "a mark was torn".to_owned())?;
            if self.last.is_some_and(|last| last >= number) {
                return Err(format!("event {number} came after {:?}", self.last));
            }
            self.last = Some(number);
            self.count += 1;
            at = start + VALUE_BYTES_MIN;
        }
        Ok(bytes.len())
    }
}
