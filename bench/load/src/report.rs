//! Owns how results are said: percentiles, and one line of JSON. Called by `run` and `read`.

use std::fmt::Display;
use std::time::Duration;

/// Durations, in microseconds, of which percentiles are wanted.
#[derive(Debug, Default)]
pub(crate) struct Durations(Vec<u32>);

impl Durations {
    pub(crate) fn add(&mut self, duration: Duration) {
        self.0.push(u32::try_from(duration.as_micros()).unwrap_or(u32::MAX));
    }

    /// Adds `NAME_p50_us`, `NAME_p99_us` and `NAME_max_us`, if anything was measured.
    pub(crate) fn report(mut self, report: &mut Report, name: &str) {
        self.0.sort_unstable();
        let Some(last) = self.0.len().checked_sub(1) else { return };
        for (percentile, place) in [("p50", last / 2), ("p99", last - last / 100), ("max", last)] {
            report.add(&format!("{name}_{percentile}_us"), self.0[place]);
        }
    }
}

/// Names and numbers.
#[derive(Debug, Default)]
pub(crate) struct Report(Vec<String>);

impl Report {
    pub(crate) fn add(&mut self, name: &str, number: impl Display) {
        self.0.push(format!("\"{name}\":{number}"));
    }

    pub(crate) fn print(self) {
        println!("{{{}}}", self.0.join(","));
    }
}
