//! Owns filters: what one party sends so that the other finds the difference between their events.
//! Text in, answers about hashes out. The router decodes them, the readers ask them and make the
//! server's own. Reads no store, draws no random numbers, and does not say what a request may do.
//!
//! | version | | cost | answers |
//! | --- | --- | --- | --- |
//! | 1 | [`InverseBloom`] | 6.3 bytes an event | at once, for any event |
//! | 2 | [`Sketch`] | 12 bytes a cell, 1.5 cells a difference | after all events were added |

use std::fmt;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::config::{FILTER_EVENTS_MAX, SKETCH_CELLS_MAX};
use crate::event::Hash;

mod base64url;
mod inverse_bloom;
mod sketch;
#[cfg(test)]
mod tests;

pub use inverse_bloom::{InverseBloom, Matching};
pub use sketch::{Difference, Peeled, Sketch, next_cells};

const HEAD_BYTES: usize = 24;

/// A filter as a client sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    InverseBloom(InverseBloom),
    Sketch(Sketch),
}

impl Filter {
    /// Reads a filter. Allocates nothing before the text was found to be as long as its head says.
    pub fn decode(text: &str) -> Result<Filter, FilterError> {
        let (head, body) = split(text)?;
        let head = Head::decode(&head)?;
        let bytes = head.body_bytes();
        if body.len() != bytes / 3 * 4 {
            let length = bytes_in(text.len());
            return Err(FilterError::Length { length, size: head.size });
        }
        let mut decoded = vec![0; bytes];
        decode_letters(text, text.len() - body.len(), &mut decoded)?;
        Ok(match head.version {
            Version::InverseBloom => Filter::InverseBloom(InverseBloom::from_parts(&head, decoded)),
            Version::Sketch => Filter::Sketch(Sketch::from_parts(&head, &decoded)),
        })
    }

    /// The number of events its maker says it was made for.
    pub fn count(&self) -> u64 {
        match self {
            Filter::InverseBloom(filter) => filter.count(),
            Filter::Sketch(sketch) => sketch.count(),
        }
    }

    pub fn seed(&self) -> u64 {
        match self {
            Filter::InverseBloom(filter) => filter.seed(),
            Filter::Sketch(sketch) => sketch.seed(),
        }
    }

    /// What it holds in memory, near enough.
    pub fn bytes(&self) -> usize {
        match self {
            Filter::InverseBloom(filter) => filter.bytes(),
            Filter::Sketch(sketch) => sketch.bytes(),
        }
    }
}

/// What a filter knows of an event: a fingerprint of an inverse Bloom filter, `a` of a sketch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry(pub u64);

/// 16 hexadecimal digits, the most significant first.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// An event's two hashes under a filter's seed. A fresh seed makes collisions that somebody
/// prepared useless.
#[derive(Clone, Copy)]
struct Key {
    a: u64,
    b: u64,
}

impl Key {
    fn of(hash: &Hash, seed: u64) -> Key {
        Key::from_a(xxh3_64_with_seed(&hash.0, seed), seed)
    }

    fn from_a(a: u64, seed: u64) -> Key {
        Key { a, b: xxh3_64_with_seed(&a.to_le_bytes(), seed) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    InverseBloom = 1,
    Sketch = 2,
}

/// What every filter begins with.
struct Head {
    version: Version,
    /// Buckets of an inverse Bloom filter, cells of a sketch.
    size: u32,
    count: u64,
    seed: u64,
}

impl Head {
    fn decode(bytes: &[u8; HEAD_BYTES]) -> Result<Head, FilterError> {
        let version = match bytes[0] {
            1 => Version::InverseBloom,
            2 => Version::Sketch,
            version => return Err(FilterError::Version(version)),
        };
        if bytes[1] != 0 {
            return Err(FilterError::Flags(bytes[1]));
        }
        let reserved = u16::from_le_bytes(field(bytes, 2));
        if reserved != 0 {
            return Err(FilterError::Reserved(reserved));
        }
        let size = u32::from_le_bytes(field(bytes, 4));
        let count = u64::from_le_bytes(field(bytes, 8));
        match version {
            Version::InverseBloom => check_buckets(size, count)?,
            Version::Sketch => check_cells(size)?,
        }
        Ok(Head { version, size, count, seed: u64::from_le_bytes(field(bytes, 16)) })
    }

    fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[0] = self.version as u8;
        bytes[4..8].copy_from_slice(&self.size.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.count.to_le_bytes());
        bytes[16..].copy_from_slice(&self.seed.to_le_bytes());
        bytes
    }

    fn body_bytes(&self) -> usize {
        let unit = match self.version {
            Version::InverseBloom => inverse_bloom::BUCKET_BYTES,
            Version::Sketch => sketch::CELL_BYTES,
        };
        self.size as usize * unit
    }

    /// The whole filter as text.
    fn encode_with(&self, body: &[u8]) -> String {
        let mut text = String::with_capacity((HEAD_BYTES + body.len()) / 3 * 4);
        base64url::encode(&self.encode(), &mut text);
        base64url::encode(body, &mut text);
        text
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("every field lies within what holds it")
}

fn check_buckets(size: u32, count: u64) -> Result<(), FilterError> {
    if count > FILTER_EVENTS_MAX {
        return Err(FilterError::CountOverLimit(count));
    }
    if u64::from(size) != inverse_bloom::buckets_for(count) {
        return Err(FilterError::Size { size, count });
    }
    Ok(())
}

/// A sketch without cells would decode whatever the difference, and say that there is none.
fn check_cells(size: u32) -> Result<(), FilterError> {
    match size {
        0 => Err(FilterError::NoCells),
        1..=SKETCH_CELLS_MAX => Ok(()),
        _ => Err(FilterError::CellsOverLimit(size)),
    }
}

/// The head, decoded, and the letters after it.
fn split(text: &str) -> Result<([u8; HEAD_BYTES], &[u8]), FilterError> {
    if text.is_empty() {
        return Err(FilterError::Empty);
    }
    if text.ends_with('=') {
        return Err(FilterError::Padding);
    }
    if text.len() % 4 == 1 {
        return Err(FilterError::Letters(text.len()));
    }
    let mut head = [0; HEAD_BYTES];
    let Some((_, body)) = text.as_bytes().split_at_checked(HEAD_BYTES / 3 * 4) else {
        return Err(FilterError::NoHead(bytes_in(text.len())));
    };
    decode_letters(text, 0, &mut head)?;
    Ok((head, body))
}

/// Fills `bytes` from the letters of `text` that begin at `from`.
fn decode_letters(text: &str, from: usize, bytes: &mut [u8]) -> Result<(), FilterError> {
    let letters = &text.as_bytes()[from..from + bytes.len() / 3 * 4];
    base64url::decode(letters, bytes)
        .map_err(|at| FilterError::Letter { letter: letters[at], at: from + at })
}

/// The whole bytes that so many letters stand for.
fn bytes_in(letters: usize) -> usize {
    letters / 4 * 3 + letters % 4 * 3 / 4
}

/// Why a text is not a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterError {
    Empty,
    Padding,
    Letters(usize),
    Letter { letter: u8, at: usize },
    NoHead(usize),
    Version(u8),
    Flags(u8),
    Reserved(u16),
    CountOverLimit(u64),
    Size { size: u32, count: u64 },
    NoCells,
    CellsOverLimit(u32),
    Length { length: usize, size: u32 },
}

/// Lengths are those of the decoded bytes; of the text only where it is no base64url at all.
impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FilterError::Empty => write!(f, "an empty filter is malformed"),
            FilterError::Padding => write!(f, "base64url stands here without padding"),
            FilterError::Letters(letters) => {
                write!(f, "{letters} letters of base64url are no whole number of bytes")
            }
            FilterError::Letter { letter, at } => {
                write!(f, "'{}' at {at} is not of base64url", letter.escape_ascii())
            }
            FilterError::NoHead(length) => {
                write!(f, "length {length} is less than the head's {HEAD_BYTES}")
            }
            FilterError::Version(version) => write!(f, "version {version} is not known"),
            FilterError::Flags(flags) => write!(f, "flags {flags} are not known"),
            FilterError::Reserved(reserved) => write!(f, "reserved {reserved} is not 0"),
            FilterError::CountOverLimit(count) => {
                write!(f, "count {count} is over the limit of {FILTER_EVENTS_MAX}")
            }
            FilterError::Size { size, count } => {
                write!(f, "size {size} does not follow from count {count}")
            }
            FilterError::NoCells => write!(f, "size 0 is below the least of 1"),
            FilterError::CellsOverLimit(size) => {
                write!(f, "size {size} is over the limit of {SKETCH_CELLS_MAX}")
            }
            FilterError::Length { length, size } => {
                write!(f, "length {length} does not follow from size {size}")
            }
        }
    }
}

impl std::error::Error for FilterError {}
