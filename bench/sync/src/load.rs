//! Owns the measurement of what syncing costs others: appends at a fixed rate, while comparisons of
//! a large storage are asked for in every other slice of time. Called by `main`; prints a table.
//!
//! The appends are an open loop: each has its time, whatever became of those before it, and is
//! measured from that time. A late answer makes the next one of its connection late as well.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::client::Failure;
use crate::costs::{ask, sketch_question};
use crate::http::Http;
use crate::population::Population;
use crate::server::Server;

const EVENTS: usize = 1_000_000;
const DIFFERENCE: usize = 100;
const APPENDS_A_SECOND: usize = 5_000;
const CONNECTIONS: usize = 64;
const STORAGES: usize = 1_000;
const SLICE: Duration = Duration::from_secs(10);
/// So much of a slice does not count: a comparison may reach into it, and what waited meanwhile.
const SETTLING: f64 = 0.1;

/// When what is done. Slices without comparisons and with them take turns.
#[derive(Clone, Copy, Debug)]
struct Plan {
    begin: Instant,
    slice: Duration,
    slices: usize,
}

impl Plan {
    fn new(duration: Duration) -> Plan {
        let pairs = (duration.div_duration_f64(SLICE) / 2.0).round().max(1.0);
        let slices = pairs as usize * 2;
        Plan { begin: Instant::now(), slice: duration / slices as u32, slices }
    }

    fn end(self) -> Instant {
        self.start_of(self.slices)
    }

    fn start_of(self, slice: usize) -> Instant {
        self.begin + self.slice * slice as u32
    }

    fn slice_of(self, time: Instant) -> usize {
        (time.saturating_duration_since(self.begin).as_nanos() / self.slice.as_nanos()) as usize
    }

    fn is_settled(self, time: Instant) -> bool {
        time - self.start_of(self.slice_of(time)) >= self.slice.mul_f64(SETTLING)
    }
}

fn asks_in(slice: usize) -> bool {
    slice % 2 == 1
}

/// What is known of a slice.
#[derive(Clone, Debug, Default)]
struct Slice {
    appends: Vec<Duration>,
    comparisons: Vec<Duration>,
    cpu: Duration,
    /// Of everybody on the machine, this program included.
    machine_cpu: Duration,
}

pub(crate) fn measure(rill: &Path, folder: &Path, duration: Duration) -> Result<(), Failure> {
    let population = Population::fill(rill, folder, EVENTS)?;
    let question = sketch_question(&population.client_side(DIFFERENCE), DIFFERENCE);
    let server = population.serve()?;
    let plan = Plan::new(duration);
    let mut slices = vec![Slice::default(); plan.slices];
    thread::scope(|scope| -> Result<(), Failure> {
        let (url, question) = (server.url(), &question);
        let appending: Vec<_> = (0..CONNECTIONS)
            .map(|connection| scope.spawn(move || append(url, plan, connection)))
            .collect();
        let asking = scope.spawn(move || compare(url, plan, question));
        processor_times(&server, plan, &mut slices)?;
        for thread in appending {
            for (slice, latency) in thread.join().expect("appending does not panic")? {
                slices[slice].appends.push(latency);
            }
        }
        for (slice, latency) in asking.join().expect("comparing does not panic")? {
            slices[slice].comparisons.push(latency);
        }
        Ok(())
    })?;
    report(plan, slices);
    Ok(())
}

type Latencies = Vec<(usize, Duration)>;

/// One connection's share of the appends.
fn append(url: &str, plan: Plan, connection: usize) -> Result<Latencies, Failure> {
    let (mut http, mut latencies) = (Http::new(url)?, Vec::new());
    for number in (connection..).step_by(CONNECTIONS) {
        let due = plan.begin + Duration::from_secs_f64(number as f64 / APPENDS_A_SECOND as f64);
        if due >= plan.end() {
            break;
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let path = format!("/set/other{}", number % STORAGES);
        let reply = http.post(&path, &format!("{{\"value\":\"{number:032}\"}}"))?;
        if reply.status != 201 {
            return Err(format!("an append is answered {}", reply.status).into());
        }
        if plan.is_settled(due) {
            latencies.push((plan.slice_of(due), due.elapsed()));
        }
    }
    Ok(latencies)
}

/// One comparison after another, in the slices that have any.
fn compare(url: &str, plan: Plan, question: &str) -> Result<Latencies, Failure> {
    let (mut http, mut latencies) = (Http::new(url)?, Vec::new());
    loop {
        let now = Instant::now();
        let slice = plan.slice_of(now);
        if slice >= plan.slices {
            return Ok(latencies);
        }
        if asks_in(slice) {
            ask(&mut http, question, DIFFERENCE)?;
            latencies.push((slice, now.elapsed()));
        } else {
            thread::sleep(plan.start_of(slice + 1).saturating_duration_since(now));
        }
    }
}

fn processor_times(server: &Server, plan: Plan, slices: &mut [Slice]) -> Result<(), Failure> {
    let mut before = (server.cpu()?, machine_cpu()?);
    for (number, slice) in slices.iter_mut().enumerate() {
        thread::sleep(plan.start_of(number + 1).saturating_duration_since(Instant::now()));
        let now = (server.cpu()?, machine_cpu()?);
        slice.cpu = now.0 - before.0;
        slice.machine_cpu = now.1.saturating_sub(before.1);
        before = now;
    }
    Ok(())
}

/// All processors' time, but for that in which they had nothing to do or waited for the disk.
fn machine_cpu() -> Result<Duration, Failure> {
    /// What /proc counts processor time in, on every Linux that a program can ask.
    const TICK: Duration = Duration::from_millis(10);
    let text = fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().unwrap_or_default();
    let [user, nice, system, _idle, _wait, interrupts, soft_interrupts, stolen, ..] =
        line.split_whitespace().skip(1).map(str::parse).collect::<Result<Vec<u32>, _>>()?[..]
    else {
        return Err("/proc/stat does not begin with the processors' times".into());
    };
    Ok(TICK * (user + nice + system + interrupts + soft_interrupts + stolen))
}

fn report(plan: Plan, slices: Vec<Slice>) {
    println!(
        "{APPENDS_A_SECOND} appends/s over {CONNECTIONS} connections into {STORAGES} storages; \
         comparisons of {EVENTS} events, {DIFFERENCE} of them different; slices of {:?}\n",
        plan.slice
    );
    println!(
        "| slice | appends | p50, ms | p99, ms | max, ms | comparisons | ms each | server CPUs | machine CPUs |"
    );
    println!("| --- | --: | --: | --: | --: | --: | --: | --: | --: |");
    let mut both = [Slice::default(), Slice::default()];
    for (number, slice) in slices.into_iter().enumerate() {
        let all = &mut both[usize::from(asks_in(number))];
        all.appends.extend(&slice.appends);
        all.comparisons.extend(&slice.comparisons);
        all.cpu += slice.cpu;
        all.machine_cpu += slice.machine_cpu;
        let name = if asks_in(number) { "with" } else { "without" };
        print(&format!("{} {name}", number + 1), slice, plan.slice);
    }
    let time = plan.slice * plan.slices as u32 / 2;
    let [without, with] = both;
    let without = print("all without", without, time);
    let with = print("all with", with, time);
    if let (Some(without), Some(with)) = (without, with) {
        println!(
            "\np99 with comparisons is {:.2} times that without",
            with.div_duration_f64(without)
        );
    }
}

/// Returns the appends' p99.
fn print(name: &str, mut slice: Slice, time: Duration) -> Option<Duration> {
    slice.appends.sort_unstable();
    let appends = &slice.appends;
    let last = appends.len().checked_sub(1)?;
    let [p50, p99, max] = [last / 2, last - last / 100, last].map(|place| appends[place]);
    let milliseconds = |duration: Duration| duration.as_secs_f64() * 1e3;
    let comparisons = slice.comparisons.len();
    let each = match slice.comparisons.iter().sum::<Duration>() {
        Duration::ZERO => String::new(),
        sum => format!("{:.0}", milliseconds(sum) / comparisons as f64),
    };
    println!(
        "| {name} | {} | {:.2} | {:.2} | {:.2} | {comparisons} | {each} | {:.2} | {:.2} |",
        appends.len(),
        milliseconds(p50),
        milliseconds(p99),
        milliseconds(max),
        slice.cpu.div_duration_f64(time),
        slice.machine_cpu.div_duration_f64(time)
    );
    Some(p99)
}
