//! Owns what is queued for one connection: pieces, owned or shared with other connections, and how
//! much of the first was sent. The hub fills it; the reactor writes from it. Does not limit itself:
//! the hub asks for room before it queues.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::Range;
use std::sync::Arc;

#[derive(Debug, Default)]
pub struct Outbox {
    pieces: VecDeque<Piece>,
    /// Bytes of the first piece that were sent.
    sent: usize,
    bytes: usize,
}

#[derive(Debug)]
enum Piece {
    Owned(Vec<u8>),
    Shared(Arc<[u8]>, Range<u32>),
}

impl Piece {
    fn as_slice(&self) -> &[u8] {
        match self {
            Piece::Owned(bytes) => bytes,
            Piece::Shared(bytes, range) => &bytes[range.start as usize..range.end as usize],
        }
    }
}

impl Outbox {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    pub fn push(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.bytes += bytes.len();
            self.pieces.push_back(Piece::Owned(bytes));
        }
    }

    pub fn push_shared(&mut self, bytes: &Arc<[u8]>, range: Range<u32>) {
        if !range.is_empty() {
            self.bytes += range.len();
            self.pieces.push_back(Piece::Shared(Arc::clone(bytes), range));
        }
    }

    /// Fills `slices` from the front, with `most` bytes at most; returns how many it filled.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>], most: usize) -> usize {
        let mut skip = self.sent;
        let mut left = most;
        let mut filled = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            if left == 0 {
                break;
            }
            let piece = &piece.as_slice()[skip..];
            let taken = piece.len().min(left);
            *slice = IoSlice::new(&piece[..taken]);
            left -= taken;
            skip = 0;
            filled += 1;
        }
        filled
    }

    /// Forgets the first `bytes`, which were sent.
    pub fn advance(&mut self, bytes: usize) {
        assert!(bytes <= self.bytes, "no more is sent than was queued");
        self.bytes -= bytes;
        let mut left = self.sent + bytes;
        while let Some(piece) = self.pieces.front() {
            let length = piece.as_slice().len();
            if left < length {
                break;
            }
            left -= length;
            self.pieces.pop_front();
        }
        self.sent = left;
        if self.pieces.is_empty() {
            // An idle subscriber keeps no queue.
            self.pieces = VecDeque::new();
        }
    }

    pub fn clear(&mut self) {
        *self = Outbox::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_sizes_of_the_writes_the_bytes_leave_in_order() {
        let shared: Arc<[u8]> = Arc::from(&b"0123456789"[..]);
        for step in 1..20 {
            let mut outbox = Outbox::default();
            outbox.push(b"abc".to_vec());
            outbox.push_shared(&shared, 2..5);
            outbox.push(Vec::new());
            outbox.push_shared(&shared, 3..3);
            outbox.push(b"xyz".to_vec());
            assert_eq!(outbox.bytes(), 9);
            let mut sent = Vec::new();
            while !outbox.is_empty() {
                let mut slices = [IoSlice::new(&[]); 2];
                let filled = outbox.slices(&mut slices, 4);
                let flat: Vec<u8> = slices[..filled].iter().flat_map(|s| s.to_vec()).collect();
                assert!((1..=4).contains(&flat.len()), "some, and no more than asked for");
                let part = &flat[..step.min(flat.len())];
                sent.extend_from_slice(part);
                outbox.advance(part.len());
            }
            assert_eq!(sent, b"abc234xyz", "in steps of {step}");
        }
    }
}
