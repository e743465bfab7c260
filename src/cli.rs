//! Owns the command line: what may be said, what it means, and what is said back. Every setting is
//! a flag and an environment variable; the flag wins. Called by `main`; starts nothing.

use std::ffi::OsString;
use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use lexopt::{Arg, Parser, ValueExt};

use crate::config::{self, Settings};

pub const HELP: &str = include_str!("help.txt");

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    Serve(Box<Settings>),
    Backup { from: PathBuf, to: PathBuf },
    Help,
    Version,
}

/// Wrong usage, in a sentence.
#[derive(Debug, PartialEq, Eq)]
pub struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<lexopt::Error> for UsageError {
    fn from(error: lexopt::Error) -> UsageError {
        UsageError(error.to_string())
    }
}

type Result<T> = std::result::Result<T, UsageError>;

/// Reads the arguments after the program's name, and the variables.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Command> {
    let mut parser = Parser::from_args(arguments);
    match parser.next()? {
        Some(Arg::Short('h') | Arg::Long("help")) => Ok(Command::Help),
        Some(Arg::Short('V') | Arg::Long("version")) => Ok(Command::Version),
        Some(Arg::Value(command)) if command == "serve" => serve(&mut parser, variable),
        Some(Arg::Value(command)) if command == "backup" => backup(&mut parser),
        Some(Arg::Value(command)) if command == "help" => Ok(Command::Help),
        Some(other) => Err(other.unexpected().into()),
        None => Err(UsageError("a command is missing: serve or backup".to_owned())),
    }
}

fn serve(parser: &mut Parser, variable: &dyn Fn(&str) -> Option<String>) -> Result<Command> {
    let mut settings = Settings::default();
    for flag in FLAGS {
        let name = variable_name(flag);
        if let Some(value) = variable(&name) {
            // Several addresses in one variable stand between commas.
            let values: Vec<&str> =
                if *flag == "listen" { value.split(',').collect() } else { vec![&value] };
            if *flag == "listen" {
                settings.listen.clear();
            }
            for value in values {
                set(&mut settings, flag, value.trim(), &name)?;
            }
        }
    }
    let mut listen_given = false;
    while let Some(argument) = parser.next()? {
        let flag = match &argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help),
            Arg::Long(name) => FLAGS.iter().copied().find(|flag| flag == name),
            _ => None,
        };
        let Some(flag) = flag else { return Err(argument.unexpected().into()) };
        if flag == "access-log" {
            // A switch that may have a value, as --access-log=0.
            let value = parser
                .optional_value()
                .map_or_else(|| Ok("1".to_owned()), |value| value.string())?;
            set(&mut settings, flag, &value, "--access-log")?;
            continue;
        }
        let value = parser.value()?.string()?;
        if flag == "listen" && !std::mem::replace(&mut listen_given, true) {
            settings.listen.clear();
        }
        set(&mut settings, flag, &value, &format!("--{flag}"))?;
    }
    Ok(Command::Serve(Box::new(settings)))
}

const FLAGS: &[&str] = &[
    "listen",
    "db",
    "readers",
    "cors-origin",
    "access-log",
    "log-level",
    "body-bytes-max",
    "value-bytes-max",
    "outbox-bytes-max",
    "connections-max",
];

fn variable_name(flag: &str) -> String {
    format!("RILL_{}", flag.to_uppercase().replace('-', "_"))
}

/// Sets what `flag` names. `source` is how the person said it.
fn set(settings: &mut Settings, flag: &str, value: &str, source: &str) -> Result<()> {
    let wrong = |what: &str| UsageError(format!("{source}: {what}, got {value:?}"));
    match flag {
        "listen" => {
            if settings.listen.len() == config::LISTENERS_MAX {
                return Err(wrong("too many addresses"));
            }
            settings.listen.push(address(value).ok_or_else(|| {
                wrong("expected HOST:PORT, such as 127.0.0.1:7400, localhost:7400 or [::1]:7400")
            })?);
        }
        "db" if value.is_empty() => return Err(wrong("expected a file")),
        "db" => settings.db = PathBuf::from(value),
        "readers" => settings.readers = number(value, 1, 64).map_err(|e| wrong(&e))?,
        "cors-origin" => {
            let fits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_graphic());
            if !fits {
                return Err(wrong("expected * or one origin, such as https://example.org"));
            }
            settings.cors_origin = value.to_owned();
        }
        "access-log" => {
            settings.access_log = match value {
                "1" | "true" | "yes" | "on" => true,
                "0" | "false" | "no" | "off" | "" => false,
                _ => return Err(wrong("expected 1 or 0")),
            };
        }
        "log-level" => {
            settings.log_level = value
                .parse()
                .map_err(|_| wrong("expected off, error, warn, info, debug or trace"))?;
        }
        "body-bytes-max" => {
            settings.body_bytes_max =
                number(value, 1, config::BODIES_BYTES_LARGE_MAX).map_err(|e| wrong(&e))?;
        }
        "value-bytes-max" => {
            settings.value_bytes_max =
                number(value, 1, config::BODIES_BYTES_LARGE_MAX).map_err(|e| wrong(&e))?;
        }
        "outbox-bytes-max" => {
            let least = config::OUTBOX_LOW_BYTES + config::GATHERED_PAGE_BYTES;
            settings.outbox_bytes_max = number(value, least, 1 << 30).map_err(|e| wrong(&e))?;
        }
        "connections-max" => {
            settings.connections_max = number(value, 1, 1 << 24).map_err(|e| wrong(&e))?;
        }
        _ => unreachable!("every name in FLAGS is set here"),
    }
    Ok(())
}

fn address(text: &str) -> Option<SocketAddr> {
    text.to_socket_addrs().ok()?.next()
}

fn number(text: &str, least: usize, most: usize) -> std::result::Result<usize, String> {
    match text.parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!("expected a number from {least} to {most}")),
    }
}

fn backup(parser: &mut Parser) -> Result<Command> {
    let mut files = Vec::new();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help),
            Arg::Value(file) => files.push(PathBuf::from(file)),
            other => return Err(other.unexpected().into()),
        }
    }
    match <[PathBuf; 2]>::try_from(files) {
        Ok([from, to]) => Ok(Command::Backup { from, to }),
        Err(_) => Err(UsageError("backup takes two files: rill backup DB COPY".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> std::result::Result<Settings, String> {
        let variable = |name: &str| {
            variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
        };
        let arguments = ["serve"].iter().chain(arguments).map(OsString::from);
        match parse(arguments, &variable) {
            Ok(Command::Serve(settings)) => Ok(*settings),
            Ok(other) => Err(format!("{other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn flags_win_over_variables_and_those_over_defaults() {
        let settings = serve(&[], &[]).unwrap();
        assert_eq!(settings.listen, [SocketAddr::from(([127, 0, 0, 1], 7400))]);
        let variables = [("RILL_LISTEN", "127.0.0.1:1, [::1]:2"), ("RILL_DB", "v.db")];
        let settings = serve(&[], &variables).unwrap();
        assert_eq!(settings.listen.len(), 2);
        assert_eq!(settings.db, PathBuf::from("v.db"));
        let settings =
            serve(&["--listen", "127.0.0.1:3", "--db=f.db", "--access-log"], &variables).unwrap();
        assert_eq!(settings.listen, [SocketAddr::from(([127, 0, 0, 1], 3))]);
        assert_eq!(settings.db, PathBuf::from("f.db"));
        assert!(settings.access_log);
        assert!(!serve(&["--access-log=0"], &[("RILL_ACCESS_LOG", "1")]).unwrap().access_log);
    }

    #[test]
    fn wrong_usage_names_what_was_wrong() {
        for (arguments, variables, expected) in [
            (&["--listen", "nowhere"][..], &[][..], "--listen: expected HOST:PORT"),
            (&["--readers", "0"], &[], "--readers: expected a number from 1 to 64"),
            (&["--frobnicate"], &[], "--frobnicate"),
            (&["extra"], &[], "extra"),
            (&["--db"], &[], "--db"),
            (&[], &[("RILL_LOG_LEVEL", "loud")], "RILL_LOG_LEVEL: expected off"),
            (&["--cors-origin", "a b"], &[], "--cors-origin"),
        ] {
            let error = serve(arguments, variables).unwrap_err();
            assert!(error.contains(expected), "{arguments:?}: {error}");
        }
    }

    #[test]
    fn every_flag_is_in_the_help() {
        for flag in FLAGS {
            assert!(HELP.contains(&format!("--{flag}")), "{flag}");
            assert!(HELP.contains(&variable_name(flag)), "{flag}");
        }
    }
}
