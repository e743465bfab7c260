//! Owns where log lines go: standard error, through a bounded queue and a thread of its own, so
//! that a slow terminal or pipe holds nobody. Lines over the limit are counted, and the count is
//! logged. Installed by `main`; everything else uses the `log` facade.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::{Duration, SystemTime};

use log::{LevelFilter, Log, Metadata, Record};

use crate::config::LOG_LINES_MAX;

struct Logger {
    lines: SyncSender<Line>,
    dropped: AtomicU64,
    level: LevelFilter,
}

enum Line {
    Text(String),
    /// Answered once everything before it was written.
    Flush(SyncSender<()>),
}

/// Starts the log thread. To be called once.
pub fn install(level: LevelFilter) -> io::Result<()> {
    let (lines, queue) = mpsc::sync_channel(LOG_LINES_MAX);
    thread::Builder::new().name("rill-log".to_owned()).spawn(move || write_lines(&queue))?;
    let logger = Box::new(Logger { lines, dropped: AtomicU64::new(0), level });
    log::set_boxed_logger(logger).map_err(io::Error::other)?;
    log::set_max_level(level.max(LevelFilter::Info));
    Ok(())
}

impl Log for Logger {
    /// Access lines are asked for by a flag of their own, whatever the level.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.level || metadata.target() == "access"
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mut line = String::with_capacity(128);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let target = record.target().trim_start_matches("rill::");
        write_time(&mut line, now);
        let _ = writeln!(line, " {:<5} {target}: {}", record.level(), OneLine(record.args()));
        if self.lines.try_send(Line::Text(line)).is_err() {
            // Relaxed: a count that nothing else depends on.
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let text = format!("({dropped} log lines were dropped: the queue was full)\n");
            let _ = self.lines.try_send(Line::Text(text));
        }
    }

    fn flush(&self) {
        let (done, flushed) = mpsc::sync_channel(1);
        if self.lines.send(Line::Flush(done)).is_ok() {
            let _ = flushed.recv_timeout(Duration::from_secs(1));
        }
    }
}

fn write_lines(queue: &Receiver<Line>) {
    while let Ok(line) = queue.recv() {
        match line {
            Line::Text(text) => {
                // There is nowhere left to say that this failed.
                let _ = io::stderr().write_all(text.as_bytes());
            }
            Line::Flush(done) => {
                let _ = done.send(());
            }
        }
    }
}

/// What a log line says, on one line whatever a client put into it.
struct OneLine<'a>(&'a std::fmt::Arguments<'a>);

impl std::fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        struct Escaping<'a, 'b>(&'a mut std::fmt::Formatter<'b>);
        impl std::fmt::Write for Escaping<'_, '_> {
            fn write_str(&mut self, text: &str) -> std::fmt::Result {
                for part in text.split_inclusive(char::is_control) {
                    match part.chars().next_back().filter(|last| last.is_control()) {
                        Some(last) => {
                            self.0.write_str(&part[..part.len() - last.len_utf8()])?;
                            write!(self.0, "{}", last.escape_default())?;
                        }
                        None => self.0.write_str(part)?,
                    }
                }
                Ok(())
            }
        }
        write!(Escaping(f), "{}", self.0)
    }
}

/// RFC 3339 in UTC, to the millisecond.
fn write_time(out: &mut String, since_1970: Duration) {
    let seconds = since_1970.as_secs();
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let millis = since_1970.subsec_millis();
    write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
        .expect("writing to memory does not fail");
}

/// The Gregorian date of a day since 1970-01-01, counted in years that begin in March, so that the
/// leap day comes last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (400 * era + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_rfc_3339() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_800, "2000-03-01T00:00:00.000Z"),
            (1_798_761_599, "2026-12-31T23:59:59.000Z"),
        ] {
            let mut out = String::new();
            write_time(&mut out, Duration::from_secs(seconds));
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn a_log_line_is_one_line() {
        let hostile = "a\r\nb\u{1b}[31m";
        assert_eq!(OneLine(&format_args!("x {hostile}")).to_string(), "x a\\r\\nb\\u{1b}[31m");
    }
}
