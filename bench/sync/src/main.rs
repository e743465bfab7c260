//! What syncing costs, measured with the reference client against the real server: bytes, round
//! trips, processor time; and what others notice of it. Owns the command line, and says what was
//! measured on. `bench/README.md` says what for.
//!
//! The algorithm and its HTTP are the example's own files. What it says goes to stderr, so that
//! stdout is the tables alone.

mod costs;
mod directory;
#[path = "../../../examples/sync/http.rs"]
mod http;
mod load;
mod population;
mod server;

macro_rules! println {
    ($($words:tt)*) => { eprintln!($($words)*) };
}

#[path = "../../../examples/sync/client.rs"]
mod client;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::available_parallelism;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt};

use client::Failure;

const HELP: &str = "\
sync [FLAG…]                the costs of syncing
sync --under-load [FLAG…]   what those who append meanwhile notice of it

  --sizes N,…        10000,100000,1000000: events on the server
  --differences N,…  0,1,10,100,10000: events that one side lacks, half of them the client
  --seconds S        60: under load
  --rill FILE        the server's binary (RILL_BIN, target/release/rill)
  --folder FOLDER    where databases are made and removed (target/bench/sync)
";

#[derive(Debug)]
struct Flags {
    sizes: Vec<usize>,
    differences: Vec<usize>,
    under_load: bool,
    duration: Duration,
    rill: PathBuf,
    folder: PathBuf,
}

fn main() -> ExitCode {
    match command(Parser::from_env()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sync: {error}");
            ExitCode::FAILURE
        }
    }
}

fn command(mut parser: Parser) -> Result<(), Failure> {
    let mut flags = Flags::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("help") => {
                std::print!("{HELP}");
                return Ok(());
            }
            Arg::Long("sizes") => flags.sizes = numbers(&parser.value()?.string()?)?,
            Arg::Long("differences") => flags.differences = numbers(&parser.value()?.string()?)?,
            Arg::Long("under-load") => flags.under_load = true,
            Arg::Long("seconds") => {
                flags.duration = Duration::try_from_secs_f64(parser.value()?.parse()?)?;
            }
            Arg::Long("rill") => flags.rill = parser.value()?.into(),
            Arg::Long("folder") => flags.folder = parser.value()?.into(),
            other => return Err(other.unexpected().into()),
        }
    }
    std::println!("{}\n", machine());
    if flags.under_load {
        return load::measure(&flags.rill, &flags.folder, flags.duration);
    }
    costs::measure(&flags.rill, &flags.folder, &flags.sizes, &flags.differences)
}

impl Default for Flags {
    fn default() -> Flags {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
        let rill = std::env::var_os("RILL_BIN").map(PathBuf::from);
        Flags {
            sizes: vec![10_000, 100_000, 1_000_000],
            differences: vec![0, 1, 10, 100, 10_000],
            under_load: false,
            duration: Duration::from_secs(60),
            rill: rill.unwrap_or_else(|| target.join("release/rill")),
            folder: target.join("bench/sync"),
        }
    }
}

fn numbers(text: &str) -> Result<Vec<usize>, Failure> {
    let number = |text: &str| text.parse().map_err(|_| format!("{text} is not a number").into());
    text.split(',').map(number).collect()
}

/// Who else uses the machine is not to be seen, but for how many wait for it.
fn machine() -> String {
    let line = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or(line, |(_, value)| value).trim().to_owned()
    };
    let processors = available_parallelism().map_or(0, usize::from);
    let (model, load) = (line("/proc/cpuinfo", "model name"), line("/proc/loadavg", ""));
    let kernel = line("/proc/sys/kernel/osrelease", "");
    let load = load.split(' ').next().unwrap_or_default();
    format!("{processors} × {model}, Linux {kernel}, load average before {load}")
}
