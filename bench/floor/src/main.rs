//! What the work costs at least: servers that understand nothing, and the store alone. Owns the
//! command line. `scripts/bench` runs it beside the contenders; nothing here is part of rill.

mod broadcast;
mod fixed;
mod rows;

use std::net::SocketAddr;
use std::process::ExitCode;

const HELP: &str = "\
floor fixed HOST:PORT BYTES      answers every read with the same BYTES of JSON, parses nothing
floor broadcast HOST:PORT        writes what is posted to everybody who ever asked for anything
floor rows FILE SECONDS STORAGES inserts an append's rows, 64 a commit, as rill's log has them
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        ["fixed", address, bytes] => number(bytes)
            .and_then(|bytes| Ok((socket(address)?, bytes)))
            .and_then(|(address, bytes)| fixed::serve(address, bytes).map_err(text)),
        ["broadcast", address] => {
            socket(address).and_then(|address| broadcast::serve(address).map_err(text))
        }
        ["rows", file, seconds, storages] => number(seconds)
            .and_then(|seconds| Ok((seconds, number(storages)?)))
            .and_then(|(seconds, storages)| {
                rows::insert(file.as_ref(), seconds as u64, storages).map_err(text)
            }),
        _ => Err(HELP.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn number(argument: &str) -> Result<usize, String> {
    argument.parse().map_err(|_| format!("{argument} is not a number"))
}

fn socket(argument: &str) -> Result<SocketAddr, String> {
    argument.parse().map_err(|_| format!("{argument} is not HOST:PORT"))
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
