//! A reference client: makes a directory and a storage hold the same events, sending little more
//! than the difference. Owns the command line and what is printed.
//!
//! ```text
//! cargo run --example sync -- http://127.0.0.1:7400 STORAGE DIRECTORY
//! ```
//!
//! | file | is |
//! | --- | --- |
//! | `client.rs` | the algorithm: what to write again in another language |
//! | `directory.rs` | files as events |
//! | `http.rs` | HTTP/1.1 without a library |
//!
//! It keeps no state of its own. Nothing is ever deleted: a file that was removed comes back from
//! the server, and an edited one is a further event.

mod client;
mod directory;
mod http;

use std::path::Path;
use std::process::ExitCode;

use client::{Client, Failure};
use directory::Directory;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [url, storage, path] = args.as_slice() else {
        eprintln!("usage: sync http://HOST:PORT STORAGE DIRECTORY");
        return ExitCode::from(2);
    };
    match sync(url, storage, Path::new(path)) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("sync: {error}");
            ExitCode::FAILURE
        }
    }
}

/// How many files were refused.
fn sync(url: &str, storage: &str, path: &Path) -> Result<usize, Failure> {
    let mut directory =
        Directory::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    for refused in &directory.refused {
        eprintln!("not synced: {refused}");
    }
    let mut client = Client::new(url, storage, || getrandom::u64().expect("the system has seeds"))?;
    client.sync(&mut directory)?;
    println!("{} events on both sides", directory.len());
    let traffic = client.traffic();
    println!(
        "{} bytes up, {} bytes down, {} round trips",
        traffic.up_bytes, traffic.down_bytes, traffic.round_trips
    );
    Ok(directory.refused.len())
}
