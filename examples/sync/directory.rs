//! Owns the client's events: every file's content is one. Files are only ever added, each at once
//! under its final name, so that whatever ends the client, the directory holds whole values.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use rill::config::VALUE_BYTES_MAX;
use rill::event::Hash;

pub(crate) struct Directory {
    path: PathBuf,
    /// Files of the same content are one event.
    events: BTreeMap<Hash, PathBuf>,
    /// What does not go to the server, and why.
    pub(crate) refused: Vec<String>,
}

impl Directory {
    /// Reads every file once. Those whose names begin with a dot are none of ours.
    pub(crate) fn open(path: &Path) -> io::Result<Directory> {
        let (mut events, mut refused) = (BTreeMap::new(), Vec::new());
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            match read(&entry.path()) {
                Ok(value) => {
                    events.insert(Hash::of(&value), entry.path());
                }
                Err(error) => refused.push(format!("{}: {error}", entry.path().display())),
            }
        }
        refused.sort();
        Ok(Directory { path: path.to_owned(), events, refused })
    }

    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }

    pub(crate) fn hashes(&self) -> impl Iterator<Item = &Hash> {
        self.events.keys()
    }

    /// The value of an event that it has.
    pub(crate) fn value(&self, hash: &Hash) -> io::Result<String> {
        let path = &self.events[hash];
        let value = read(path)?;
        if Hash::of(&value) == *hash {
            Ok(value)
        } else {
            Err(io::Error::other(format!("{} changed meanwhile; run again", path.display())))
        }
    }

    /// Whether the value was not there yet.
    pub(crate) fn add(&mut self, value: &str) -> io::Result<bool> {
        let hash = Hash::of(value);
        let Entry::Vacant(vacant) = self.events.entry(hash) else { return Ok(false) };
        if value.len() > VALUE_BYTES_MAX {
            return Err(io::Error::other(format!("the server's value {hash} is over 1 MiB")));
        }
        let path = free_name(&self.path, &hash)?;
        let temporary = self.path.join(format!(".{hash}.tmp"));
        let mut file = File::create(&temporary)?;
        file.write_all(value.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        vacant.insert(path);
        Ok(true)
    }
}

fn read(path: &Path) -> io::Result<String> {
    let wrong = |what: &str| io::Error::new(ErrorKind::InvalidData, what);
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(wrong("not a file"));
    }
    if metadata.len() > VALUE_BYTES_MAX as u64 {
        return Err(wrong("over 1 MiB"));
    }
    String::from_utf8(fs::read(path)?).map_err(|_| wrong("not UTF-8 text"))
}

/// A name that no file has yet: somebody may have edited the one that came with this hash.
fn free_name(directory: &Path, hash: &Hash) -> io::Result<PathBuf> {
    let digits = hash.to_string();
    let mut names = (16..=64).step_by(8).map(|length| directory.join(&digits[..length]));
    let free = names.find_map(|name| {
        let name = name.with_extension("txt");
        (!name.exists()).then_some(name)
    });
    free.ok_or_else(|| io::Error::other(format!("every name for {digits} is taken")))
}
