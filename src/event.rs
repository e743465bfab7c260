//! Owns what an event is: its position, its hash, and the cursors and epochs that clients resume
//! with. Called by everything. Does not encode events for the wire (`sse`, `reader`) or store them.

use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::slice;
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// Server-wide position of an event, from 1, in commit order over all storages. 0 is "before all".
pub type Seq = u64;

/// SHA-256 of a value: the event's identity in its storage.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    pub fn of(value: &str) -> Hash {
        Hash(Sha256::digest(value.as_bytes()).into())
    }
}

/// Writes the bytes as two lower-case hexadecimal digits each. What every reply holds is written
/// without `fmt`, which takes nine times the instructions.
fn write_hexadecimal(text: &mut [u8], bytes: &[u8]) {
    const PAIRS: [[u8; 2]; 256] = {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut pairs = [[0; 2]; 256];
        let mut byte = 0;
        while byte < 256 {
            pairs[byte] = [DIGITS[byte >> 4], DIGITS[byte & 15]];
            byte += 1;
        }
        pairs
    };
    for (pair, byte) in text.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
        *pair = PAIRS[usize::from(*byte)];
    }
}

fn ascii(digits: &[u8]) -> &str {
    std::str::from_utf8(digits).expect("hexadecimal digits are ASCII")
}

impl Hash {
    /// 64 lower-case hexadecimal digits.
    pub fn digits(&self) -> [u8; 64] {
        let mut text = [0; 64];
        write_hexadecimal(&mut text, &self.0);
        text
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ascii(&self.digits()))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A value that a client asks to append, with its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewValue {
    pub hash: Hash,
    pub text: Box<str>,
}

impl NewValue {
    pub fn new(text: impl Into<Box<str>>) -> NewValue {
        let text = text.into();
        NewValue { hash: Hash::of(&text), text }
    }
}

/// The values that one request asks to append, as they were sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewValues {
    One(NewValue),
    List(Vec<NewValue>),
}

impl Deref for NewValues {
    type Target = [NewValue];

    fn deref(&self) -> &[NewValue] {
        match self {
            NewValues::One(value) => slice::from_ref(value),
            NewValues::List(values) => values,
        }
    }
}

/// Where a value that was asked for stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    pub seq: Seq,
    /// Whether this request put it there; otherwise it was there before, or earlier in the request.
    pub new: bool,
}

/// One life of the server: random, new at every start, durable before the first answer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Epoch(pub u32);

impl Epoch {
    /// 8 lower-case hexadecimal digits.
    pub fn digits(self) -> [u8; 8] {
        let mut text = [0; 8];
        write_hexadecimal(&mut text, &self.0.to_be_bytes());
        text
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ascii(&self.digits()))
    }
}

/// "I have everything I asked for up to here": `SEQ.EPOCH`, or a bare `SEQ` from a person.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cursor {
    pub seq: Seq,
    pub epoch: Option<Epoch>,
}

impl Cursor {
    /// Appends what `Display` shows.
    pub fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(itoa::Buffer::new().format(self.seq).as_bytes());
        if let Some(epoch) = self.epoch {
            out.push(b'.');
            out.extend_from_slice(&epoch.digits());
        }
    }
}

/// The text is neither `SEQ` nor `SEQ.EPOCH`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotACursor;

impl FromStr for Cursor {
    type Err = NotACursor;

    /// A number too large for any `seq` is well-formed, and valid nowhere.
    fn from_str(text: &str) -> Result<Cursor, NotACursor> {
        let (digits, epoch) = match text.split_once('.') {
            Some((digits, epoch)) => (digits, Some(parse_epoch(epoch)?)),
            None => (text, None),
        };
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(NotACursor);
        }
        let seq = digits.parse().unwrap_or(Seq::MAX);
        Ok(Cursor { seq, epoch })
    }
}

fn parse_epoch(text: &str) -> Result<Epoch, NotACursor> {
    let digits = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if text.len() != 8 || !digits {
        return Err(NotACursor);
    }
    u32::from_str_radix(text, 16).map(Epoch).map_err(|_| NotACursor)
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.epoch {
            Some(epoch) => write!(f, "{}.{epoch}", self.seq),
            None => write!(f, "{}", self.seq),
        }
    }
}

/// Every epoch on record with the `seq` it began at, the current one last.
#[derive(Clone, Debug)]
pub struct Epochs {
    current: Epoch,
    /// The last `seq` that each epoch but the current one may have given out.
    ends: HashMap<u32, Seq>,
}

impl Epochs {
    /// `begins` in order of time: each epoch with the last `seq` in the store when it began.
    ///
    /// # Panics
    /// When empty: a server records its epoch before it serves.
    pub fn new(begins: &[(Epoch, Seq)]) -> Epochs {
        let (current, _) = *begins.last().expect("a server records its epoch before it serves");
        let ends = begins.windows(2).map(|pair| (pair[0].0.0, pair[1].1)).collect();
        Epochs { current, ends }
    }

    pub fn current(&self) -> Epoch {
        self.current
    }

    pub fn cursor(&self, seq: Seq) -> Cursor {
        Cursor { seq, epoch: Some(self.current) }
    }

    /// Whether this server, whose newest event is `last`, could have given the cursor out.
    pub fn accepts(&self, cursor: Cursor, last: Seq) -> bool {
        let end = match cursor.epoch {
            None => Some(last),
            Some(epoch) if epoch == self.current => Some(last),
            Some(epoch) => self.ends.get(&epoch.0).copied(),
        };
        end.is_some_and(|end| cursor.seq <= end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_sha_256_in_lower_case() {
        // FIPS 180-4, the "abc" example.
        assert_eq!(
            Hash::of("abc").to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn cursors_parse_and_print() {
        let with = |seq, epoch| Ok(Cursor { seq, epoch });
        for (text, expected) in [
            ("0", with(0, None)),
            ("17", with(17, None)),
            ("17.9f3a2c1d", with(17, Some(Epoch(0x9f3a_2c1d)))),
            ("99999999999999999999999", with(Seq::MAX, None)),
            ("", Err(NotACursor)),
            ("-1", Err(NotACursor)),
            ("+1", Err(NotACursor)),
            ("1.", Err(NotACursor)),
            (".9f3a2c1d", Err(NotACursor)),
            ("1.9F3A2C1D", Err(NotACursor)),
            ("1.9f3a2c1", Err(NotACursor)),
            ("1.9f3a2c1d0", Err(NotACursor)),
            ("1.+f3a2c1d", Err(NotACursor)),
            (" 1", Err(NotACursor)),
        ] {
            assert_eq!(text.parse::<Cursor>(), expected, "{text:?}");
        }
        for (cursor, text) in [
            (Cursor { seq: 4, epoch: Some(Epoch(0xa)) }, "4.0000000a"),
            (Cursor { seq: 10, epoch: Some(Epoch(0x9f3a_2c1d)) }, "10.9f3a2c1d"),
            (Cursor { seq: 0, epoch: None }, "0"),
        ] {
            let mut written = Vec::new();
            cursor.write(&mut written);
            assert_eq!((cursor.to_string().as_str(), written.as_slice()), (text, text.as_bytes()));
        }
    }

    #[test]
    fn a_cursor_is_valid_up_to_the_end_of_its_epoch() {
        let epochs = Epochs::new(&[(Epoch(1), 0), (Epoch(2), 10), (Epoch(3), 10)]);
        let at = |seq, epoch| Cursor { seq, epoch: Some(Epoch(epoch)) };
        for (cursor, valid) in [
            (at(10, 1), true),
            (at(11, 1), false),
            (at(10, 2), true),
            (at(11, 2), false),
            (at(20, 3), true),
            (at(21, 3), false),
            (at(0, 4), false),
            (Cursor { seq: 20, epoch: None }, true),
            (Cursor { seq: 21, epoch: None }, false),
            (Cursor { seq: 0, epoch: None }, true),
        ] {
            assert_eq!(epochs.accepts(cursor, 20), valid, "{cursor}");
        }
    }
}
