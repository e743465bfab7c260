//! Owns reading histories: one storage after another, as JSON or as an event stream, every event
//! counted and in order. Called by `main`. Blocking, because it asks how long one
//! reader waits.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use memchr::{memchr, memmem};

use crate::dialect::{MARK_DIGITS, VALUE_BYTES_MIN};
use crate::process::Process;
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
    let mut connection = None;
    for storage in 0..settings.storages {
        let asked = Instant::now();
        let history = history(settings, storage, &mut connection)
            .map_err(|error| format!("s{storage}: {error}"))?;
        first_event = first_event.min(history.first_event);
        bytes += history.bytes;
        waits.add(asked.elapsed());
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

struct History {
    first_event: Duration,
    bytes: usize,
}

/// On the connection of the last one, if that is one that goes on.
fn history(
    settings: &Settings,
    storage: usize,
    connection: &mut Option<TcpStream>,
) -> Result<History, String> {
    let (accept, mut end): (_, &[u8]) = match settings.form {
        Form::Json => ("application/json", b"\"more\":false}"),
        Form::Stream => ("text/event-stream", b"event: synced\n"),
    };
    let failed = |error| format!("a read: {error}");
    let begin = Instant::now();
    let mut stream = match connection.take() {
        Some(stream) => stream,
        None => TcpStream::connect(settings.address).map_err(failed)?,
    };
    stream.set_nodelay(true).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    let request =
        format!("GET /get?id=s{storage} HTTP/1.1\r\nHost: bench\r\nAccept: {accept}\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut marks = Marks::default();
    let mut history = History { first_event: Duration::MAX, bytes: 0 };
    let mut buffer = vec![0; 256 * 1024];
    // What was not looked at yet: the start of a mark, or of the end.
    let mut kept = 0;
    loop {
        let read = stream.read(&mut buffer[kept..]).map_err(failed)?;
        if read == 0 {
            return Err("the reply was cut".to_owned());
        }
        if history.bytes == 0
            && let Form::Json = settings.form
            && memmem::find(&buffer[..read], b"\r\nTransfer-Encoding: chunked\r\n").is_some()
        {
            end = b"\"more\":false}\r\n0\r\n\r\n";
        }
        history.bytes += read;
        let filled = kept + read;
        let looked = marks.take(&buffer[..filled])?;
        if marks.count > 0 {
            history.first_event = history.first_event.min(begin.elapsed());
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
    if let Form::Json = settings.form {
        *connection = Some(stream);
    }
    Ok(history)
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
