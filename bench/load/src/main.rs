//! Load that wrk cannot make: many event streams that are counted exactly, appends whose every
//! answer is checked, histories read to the end. Owns the command line; prints one line of JSON.
//! `scripts/bench` calls it; `bench/README.md` says what for.

mod dialect;
mod process;
mod random;
mod read;
mod report;
mod requester;
mod run;
mod subscriber;

use std::process::ExitCode;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt};

use dialect::Dialect;
use process::Process;
use report::Report;
use run::Pace;

const HELP: &str = "\
load run  --server NAME --address HOST:PORT [FLAG…]    append, with subscribers or without
load read --address HOST:PORT [FLAG…]                  read rill's histories to the end

  --server NAME     rill, durable-streams, nchan, redis or floor
  --pid PID         whose processor time and memory to report, with its children's
  --storages N      1
  --prefix NAME     s: storages are s0, s1, …
  --connections N   64: one request each at a time; 0 only subscribes
run:
  --subscribers N   0: each on one storage, in turn
  --values N        1: values in a request
  --bytes N         200: of a value
  --pace PACE       closed, lockstep (all connections at once, when everybody got everything), or
                    a number: requests a second
  --seconds S       5: measured
  --warm-up S       0.5: not measured
  --requests N      so many in place of --seconds, to the storages in turn
  --first N         0: the number of the first value
  --created         the storages exist (durable-streams)
read:
  --events N        how many each storage holds
  --form FORM       json or stream
";

fn main() -> ExitCode {
    match command(Parser::from_env()) {
        Ok(Some(report)) => report.print(),
        Ok(None) => print!("{HELP}"),
        Err(error) => {
            eprintln!("load: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

#[derive(Debug)]
struct Flags {
    server: Option<Dialect>,
    address: Option<std::net::SocketAddr>,
    form: read::Form,
    events: u64,
    run: run::Settings,
}

fn command(mut parser: Parser) -> Result<Option<Report>, String> {
    let wrong = |error: lexopt::Error| error.to_string();
    let command = match parser.next().map_err(wrong)? {
        Some(Arg::Value(command)) if command == "run" || command == "read" => command,
        Some(Arg::Long("help")) | None => return Ok(None),
        Some(other) => return Err(wrong(other.unexpected())),
    };
    let mut flags = Flags::default();
    while let Some(argument) = parser.next().map_err(wrong)? {
        let Arg::Long(name) = argument else { return Err(wrong(argument.unexpected())) };
        let name = name.to_owned();
        flags.set(&name, &mut parser).map_err(|error| format!("--{name}: {error}"))?;
    }
    let address = flags.address.ok_or("--address is missing")?;
    if command == "read" {
        let run::Settings { process, storages, connections, .. } = flags.run;
        let Flags { form, events, .. } = flags;
        let settings = read::Settings { address, process, storages, connections, events, form };
        return read::read(&settings).map(Some);
    }
    let dialect = flags.server.ok_or("--server is missing")?;
    run::run(run::Settings { dialect, address, ..flags.run }).map(Some)
}

impl Default for Flags {
    fn default() -> Flags {
        Flags {
            server: None,
            address: None,
            form: read::Form::Json,
            events: 0,
            run: run::Settings {
                dialect: Dialect::Rill,
                address: ([127, 0, 0, 1], 0).into(),
                process: None,
                connections: 64,
                subscribers: 0,
                storages: 1,
                prefix: "s".to_owned(),
                values: 1,
                value_bytes: 200,
                pace: Pace::Closed,
                warm_up: Duration::from_millis(500),
                duration: Duration::from_secs(5),
                requests: None,
                create: true,
                first: 0,
            },
        }
    }
}

impl Flags {
    fn set(&mut self, name: &str, parser: &mut Parser) -> Result<(), lexopt::Error> {
        let run = &mut self.run;
        if name == "created" {
            run.create = false;
            return Ok(());
        }
        let value = parser.value()?;
        match name {
            "server" => {
                let known = Dialect::named(&value.string()?).ok_or("no such server")?;
                self.server = Some(known);
            }
            "address" => self.address = Some(value.parse()?),
            "events" => self.events = value.parse()?,
            "form" => {
                self.form = match value.string()?.as_str() {
                    "json" => read::Form::Json,
                    "stream" => read::Form::Stream,
                    _ => return Err("json or stream".into()),
                }
            }
            "pid" => run.process = Some(Process(value.parse()?)),
            "storages" => run.storages = value.parse()?,
            "prefix" => run.prefix = value.string()?,
            "connections" => run.connections = value.parse()?,
            "subscribers" => run.subscribers = value.parse()?,
            "values" => run.values = value.parse()?,
            "bytes" => {
                run.value_bytes = value.parse()?;
                if run.value_bytes < dialect::VALUE_BYTES_MIN {
                    return Err("too few for a value's mark".into());
                }
            }
            "pace" => {
                run.pace = match value.string()?.as_str() {
                    "closed" => Pace::Closed,
                    "lockstep" => Pace::Lockstep,
                    rate => Pace::PerSecond(rate.parse().map_err(|_| "not a pace")?),
                }
            }
            "seconds" => run.duration = Duration::from_secs_f64(value.parse()?),
            "warm-up" => run.warm_up = Duration::from_secs_f64(value.parse()?),
            "requests" => run.requests = Some(value.parse()?),
            "first" => run.first = value.parse()?,
            _ => return Err("no such flag".into()),
        }
        Ok(())
    }
}
