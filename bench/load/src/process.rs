//! Owns what the kernel says of a server: processor time and memory of a process and its children.
//! Called by `run` and `read` at the ends of what they measure.

use std::fs;
use std::time::Duration;

/// What /proc counts processor time in, on every Linux that a program can ask.
const TICK: Duration = Duration::from_millis(10);
const PAGE_BYTES: u64 = 4096;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Process(pub(crate) u32);

impl Process {
    /// User and system time of the process and its living children.
    pub(crate) fn cpu(self) -> Duration {
        self.tree().into_iter().map(cpu_of_one).sum()
    }

    /// Resident bytes of the process and its living children.
    pub(crate) fn rss_bytes(self) -> u64 {
        self.tree().into_iter().map(rss_of_one).sum()
    }

    fn tree(self) -> Vec<u32> {
        let mut found = vec![self.0];
        let mut next = 0;
        while let Some(&process) = found.get(next) {
            next += 1;
            let Ok(tasks) = fs::read_dir(format!("/proc/{process}/task")) else { continue };
            for task in tasks.flatten() {
                let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
                found.extend(children.split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
            }
        }
        found
    }
}

fn cpu_of_one(process: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The command stands in parentheses and may hold anything: fields are counted after it.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u32 = fields.skip(11).take(2).filter_map(|field| field.parse::<u32>().ok()).sum();
    TICK * ticks
}

fn rss_of_one(process: u32) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{process}/statm")).unwrap_or_default();
    let pages = statm.split_whitespace().nth(1).and_then(|field| field.parse::<u64>().ok());
    pages.unwrap_or(0) * PAGE_BYTES
}
