//! Owns what is queued for one connection: pieces, owned or shared with other connections, and how
//! much of the first was sent. The hub fills it; the reactor writes from it. Does not limit itself:
//! the hub asks for room before it queues.

use std::collections::VecDeque;
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

    /// The next bytes, from the front and `most` at best: the first piece as it is where that is
    /// all or long enough for a write of its own, else pieces gathered in `buffer`.
    pub fn next<'a>(&'a self, buffer: &'a mut [u8], most: usize) -> &'a [u8] {
        let Some(first) = self.pieces.front() else { return &[] };
        let first = &first.as_slice()[self.sent..];
        if self.pieces.len() == 1 || first.len() >= buffer.len() {
            return &first[..first.len().min(most)];
        }
        let room = buffer.len().min(most);
        let (mut filled, mut skip) = (0, self.sent);
        for piece in &self.pieces {
            let piece = &piece.as_slice()[skip..];
            let taken = piece.len().min(room - filled);
            buffer[filled..filled + taken].copy_from_slice(&piece[..taken]);
            filled += taken;
            skip = 0;
            if filled == room {
                break;
            }
        }
        &buffer[..filled]
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
        for (step, gathered) in (1..20).flat_map(|step| (1..8).map(move |size| (step, size))) {
            let mut outbox = Outbox::default();
            outbox.push(b"abc".to_vec());
            outbox.push_shared(&shared, 2..5);
            outbox.push(Vec::new());
            outbox.push_shared(&shared, 3..3);
            outbox.push(b"xyz".to_vec());
            assert_eq!(outbox.bytes(), 9);
            let mut sent = Vec::new();
            while !outbox.is_empty() {
                let mut buffer = vec![0; gathered];
                let next = outbox.next(&mut buffer, 4);
                assert!((1..=4).contains(&next.len()), "some, and no more than asked for");
                let part = next[..step.min(next.len())].to_vec();
                sent.extend_from_slice(&part);
                outbox.advance(part.len());
            }
            assert_eq!(sent, b"abc234xyz", "in steps of {step}, {gathered} gathered");
        }
    }
}
