//! Owns the events that are measured with: a storage of so many, filled once, of which every
//! measurement gets a copy; and the client's side of a difference to it. Called by `costs` and
//! `load`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rill::event::Hash;

use crate::client::Failure;
use crate::directory::Directory;
use crate::http::Http;
use crate::server::Server;

pub(crate) const STORAGE: &str = "measured";
const VALUES_A_REQUEST: usize = 10_000;

/// A storage with events, in a folder that is removed with it.
#[derive(Debug)]
pub(crate) struct Population {
    folder: PathBuf,
    rill: PathBuf,
    events: Vec<(Hash, Box<str>)>,
}

impl Population {
    pub(crate) fn fill(rill: &Path, folder: &Path, size: usize) -> Result<Population, Failure> {
        let folder = folder.join(std::process::id().to_string());
        fs::create_dir_all(&folder)?;
        let events = (0..size).map(event).collect();
        let population = Population { folder, rill: rill.to_owned(), events };
        let server = Server::start(rill, &population.filled())?;
        let mut http = Http::new(server.url())?;
        for events in population.events.chunks(VALUES_A_REQUEST) {
            let values: Vec<&str> = events.iter().map(|(_, value)| &**value).collect();
            let body = serde_json::json!({ "values": values }).to_string();
            let reply = http.post(&format!("/set/{STORAGE}"), &body)?;
            if reply.status != 201 {
                return Err(format!("filling is answered {}", reply.status).into());
            }
        }
        server.wait_until_quiet()?;
        server.stop()?;
        if population.folder.join("filled.db-wal").exists() {
            return Err("the server left a log beside its file, which alone would be copied".into());
        }
        Ok(population)
    }

    pub(crate) fn size(&self) -> usize {
        self.events.len()
    }

    /// A server on a fresh copy. What is copied is on disk, so that nothing has to wait for that.
    pub(crate) fn serve(&self) -> Result<Server, Failure> {
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(b"copy.db") {
                fs::remove_file(entry.path())?;
            }
        }
        let copy = self.folder.join("copy.db");
        fs::copy(self.filled(), &copy)?;
        File::open(&copy)?.sync_all()?;
        Server::start(&self.rill, &copy)
    }

    /// The client's side: half of the difference is what it lacks, evenly spread, and half, rounded
    /// up, what it alone has.
    pub(crate) fn client_side(&self, difference: usize) -> Directory {
        let lacked = difference / 2;
        let apart = self.size() / lacked.max(1);
        let is_lacked = |place: usize| place.is_multiple_of(apart) && place / apart < lacked;
        let shared = self.events.iter().enumerate().filter(|(place, _)| !is_lacked(*place));
        let own = (self.size()..self.size() + difference - lacked).map(event);
        Directory::new(shared.map(|(_, event)| event.clone()).chain(own))
    }

    fn filled(&self) -> PathBuf {
        self.folder.join("filled.db")
    }
}

impl Drop for Population {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            eprintln!("{} stays: {error}", self.folder.display());
        }
    }
}

/// 32 bytes: what is measured is not the sending of values.
fn event(number: usize) -> (Hash, Box<str>) {
    let value = format!("{number:032}").into_boxed_str();
    (Hash::of(&value), value)
}
