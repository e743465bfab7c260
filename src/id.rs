//! Owns the storage identifier: its rules, and the key that stands for it in the store's indexes.
//! Called by everything that names a storage. Knows nothing of URLs or JSON.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::config::ID_BYTES_MAX;

/// A storage's name: 1 to 512 bytes of UTF-8 without control characters, not `.` or `..`.
/// Knowing it is the capability to use the storage, so `Debug` shortens it, and log lines use that.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(Arc<str>);

/// Why a string is not an identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdError {
    Empty,
    TooLong(usize),
    Control(char),
    Dots,
}

impl Id {
    pub fn new(text: &str) -> Result<Id, IdError> {
        if text.is_empty() {
            return Err(IdError::Empty);
        }
        if text.len() > ID_BYTES_MAX {
            return Err(IdError::TooLong(text.len()));
        }
        if let Some(control) = text.chars().find(|c| c.is_control()) {
            return Err(IdError::Control(control));
        }
        if text == "." || text == ".." {
            return Err(IdError::Dots);
        }
        Ok(Id(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The storage's place in the store's indexes.
    pub fn key(&self) -> StorageKey {
        let digest = Sha256::digest(self.0.as_bytes());
        let mut key = [0; 16];
        key.copy_from_slice(&digest[..16]);
        StorageKey(key)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = (self.0.chars().count() / 4).min(4);
        let head: String = self.0.chars().take(shown).collect();
        write!(f, "{head}…({})", self.0.len())
    }
}

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IdError::Empty => write!(f, "an identifier has at least 1 byte"),
            IdError::TooLong(bytes) => {
                write!(f, "an identifier has at most {ID_BYTES_MAX} bytes, this one has {bytes}")
            }
            IdError::Control(c) => {
                write!(
                    f,
                    "an identifier has no control characters, this one has U+{:04X}",
                    *c as u32
                )
            }
            IdError::Dots => write!(f, "an identifier is not '.' or '..'"),
        }
    }
}

/// The first 128 bits of SHA-256 over the identifier. Two names with one key would take 2^64 work
/// to find, and finding one for a given name 2^128, so the key is taken for the name: the indexes
/// need neither names nor numbers for them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct StorageKey(pub [u8; 16]);

/// As the bytes are ordered, by one comparison of numbers: indexes are made by sorting.
impl Ord for StorageKey {
    fn cmp(&self, other: &StorageKey) -> Ordering {
        u128::from_be_bytes(self.0).cmp(&u128::from_be_bytes(other.0))
    }
}

impl PartialOrd for StorageKey {
    fn partial_cmp(&self, other: &StorageKey) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_follow_their_rules() {
        let long = "x".repeat(512);
        let too_long = "x".repeat(513);
        for (text, expected) in [
            ("a", Ok(())),
            (long.as_str(), Ok(())),
            ("ä/b c?+%", Ok(())),
            ("...", Ok(())),
            ("", Err(IdError::Empty)),
            (too_long.as_str(), Err(IdError::TooLong(513))),
            ("a\nb", Err(IdError::Control('\n'))),
            ("a\u{85}", Err(IdError::Control('\u{85}'))),
            (".", Err(IdError::Dots)),
            ("..", Err(IdError::Dots)),
        ] {
            assert_eq!(Id::new(text).map(|_| ()), expected, "{text:?}");
        }
    }

    #[test]
    fn debug_output_does_not_give_the_capability_away() {
        let id = Id::new("secret-capability").unwrap();
        assert_eq!(format!("{id:?}"), "secr…(17)");
    }
}
