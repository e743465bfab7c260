//! Owns what is queued for one connection: pieces, owned or shared with other connections, and how
//! much of the first was sent; and the room of what was sent, for what is queued next. The hub fills it;
//! the reactor writes from it. Does not limit itself:
//! the hub asks for room before it queues.

use std::collections::VecDeque;
use std::mem;
use std::ops::Range;
use std::sync::Arc;

use crate::config;
use crate::held::Held;

#[derive(Debug, Default)]
pub struct Outbox {
    pieces: Pieces,
    /// Bytes of the first piece that were sent.
    sent: usize,
    bytes: usize,
}

/// One piece, which is what an idle subscriber gets, needs no queue of its own.
#[derive(Debug, Default)]
enum Pieces {
    #[default]
    None,
    One(Piece),
    Many(VecDeque<Piece>),
}

impl Pieces {
    fn push_back(&mut self, piece: Piece) {
        *self = match mem::take(self) {
            Pieces::None => Pieces::One(piece),
            Pieces::One(first) => {
                let mut pieces = VecDeque::with_capacity(8);
                pieces.extend([first, piece]);
                Pieces::Many(pieces)
            }
            Pieces::Many(mut pieces) => {
                pieces.push_back(piece);
                Pieces::Many(pieces)
            }
        }
    }

    fn front(&self) -> Option<&Piece> {
        match self {
            Pieces::None => None,
            Pieces::One(piece) => Some(piece),
            Pieces::Many(pieces) => pieces.front(),
        }
    }

    fn pop_front(&mut self) -> Option<Piece> {
        match self {
            Pieces::Many(pieces) if pieces.len() > 1 => pieces.pop_front(),
            _ => match mem::take(self) {
                Pieces::None => None,
                Pieces::One(piece) => Some(piece),
                Pieces::Many(mut pieces) => pieces.pop_front(),
            },
        }
    }
}

/// Room of small replies that were sent, for others: of many that are answered at once the
/// allocator keeps few at hand.
#[derive(Debug, Default)]
pub struct Buffers(Vec<Vec<u8>>);

impl Buffers {
    /// An empty one with room for so much.
    pub fn take(&mut self, bytes: usize) -> Vec<u8> {
        let mut buffer = self.0.pop().unwrap_or_default();
        buffer.reserve(bytes);
        buffer
    }

    /// Unless it is large, or there are many.
    pub fn keep(&mut self, mut buffer: Vec<u8>) {
        if self.0.len() < config::BUFFERS_KEPT && buffer.capacity() <= config::BUFFER_KEPT_BYTES_MAX
        {
            buffer.clear();
            self.0.push(buffer);
        }
    }
}

#[derive(Debug)]
enum Piece {
    Owned(Vec<u8>, #[expect(dead_code, reason = "gives its memory back when dropped")] Held),
    Shared(Arc<Shared>, Range<u32>),
}

/// Bytes that stand in several outboxes, and count once in what all of them hold.
#[derive(Debug)]
pub struct Shared {
    bytes: Vec<u8>,
    _held: Held,
}

impl Shared {
    pub fn new(bytes: Vec<u8>, held: Held) -> Shared {
        Shared { bytes, _held: held }
    }
}

impl Piece {
    fn as_slice(&self) -> &[u8] {
        match self {
            Piece::Owned(bytes, _) => bytes,
            Piece::Shared(shared, range) => &shared.bytes[range.start as usize..range.end as usize],
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

    /// `held` is what the bytes take of the memory of all outboxes.
    pub fn push(&mut self, bytes: Vec<u8>, held: Held) {
        if !bytes.is_empty() {
            self.bytes += bytes.len();
            self.pieces.push_back(Piece::Owned(bytes, held));
        }
    }

    pub fn push_shared(&mut self, shared: &Arc<Shared>, range: Range<u32>) {
        if !range.is_empty() {
            self.bytes += range.len();
            self.pieces.push_back(Piece::Shared(Arc::clone(shared), range));
        }
    }

    /// The next bytes, from the front and `most` at best: the first piece as it is where that is
    /// all or long enough for a write of its own, else pieces gathered in `buffer`.
    pub fn next<'a>(&'a self, buffer: &'a mut [u8], most: usize) -> &'a [u8] {
        let Some(first) = self.pieces.front() else { return &[] };
        let first = &first.as_slice()[self.sent..];
        let pieces = match &self.pieces {
            Pieces::Many(pieces) if first.len() < buffer.len() => pieces,
            _ => return &first[..first.len().min(most)],
        };
        let room = buffer.len().min(most);
        let (mut filled, mut skip) = (0, self.sent);
        for piece in pieces {
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

    /// Forgets the first `bytes`, which were sent, and keeps the room of what is sent whole.
    pub fn advance(&mut self, bytes: usize, buffers: &mut Buffers) {
        assert!(bytes <= self.bytes, "no more is sent than was queued");
        self.bytes -= bytes;
        let mut left = self.sent + bytes;
        while let Some(piece) = self.pieces.front() {
            let length = piece.as_slice().len();
            if left < length {
                break;
            }
            left -= length;
            if let Some(Piece::Owned(bytes, _)) = self.pieces.pop_front() {
                buffers.keep(bytes);
            }
        }
        self.sent = left;
    }

    pub fn clear(&mut self) {
        *self = Outbox::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::held::Counter;

    #[test]
    fn whatever_the_sizes_of_the_writes_the_bytes_leave_in_order() {
        let counter = Counter::default();
        let shared = Arc::new(Shared::new(b"0123456789".to_vec(), counter.hold(10)));
        for (step, gathered) in (1..20).flat_map(|step| (1..8).map(move |size| (step, size))) {
            let mut outbox = Outbox::default();
            outbox.push(b"abc".to_vec(), counter.hold(3));
            outbox.push_shared(&shared, 2..5);
            outbox.push(Vec::new(), counter.hold(0));
            outbox.push_shared(&shared, 3..3);
            outbox.push(b"xyz".to_vec(), counter.hold(3));
            assert_eq!((outbox.bytes(), counter.get()), (9, 16));
            let mut sent = Vec::new();
            while !outbox.is_empty() {
                let mut buffer = vec![0; gathered];
                let next = outbox.next(&mut buffer, 4);
                assert!((1..=4).contains(&next.len()), "some, and no more than asked for");
                let part = next[..step.min(next.len())].to_vec();
                sent.extend_from_slice(&part);
                outbox.advance(part.len(), &mut Buffers::default());
            }
            assert_eq!(sent, b"abc234xyz", "in steps of {step}, {gathered} gathered");
            assert_eq!(counter.get(), 10, "what is sent is held no longer");
        }
    }

    #[test]
    fn what_is_sent_leaves_its_room_within_limits() {
        let counter = Counter::default();
        let small = || Vec::with_capacity(config::BUFFER_KEPT_BYTES_MAX);
        let large = Vec::with_capacity(config::BUFFER_KEPT_BYTES_MAX + 1);
        let mut outbox = Outbox::default();
        let mut buffers = Buffers::default();
        let pieces = std::iter::repeat_with(small).take(config::BUFFERS_KEPT + 1);
        for mut bytes in std::iter::once(large).chain(pieces) {
            bytes.push(b'x');
            outbox.push(bytes, counter.hold(1));
            outbox.advance(1, &mut buffers);
        }
        assert_eq!(counter.get(), 0);
        let kept: Vec<_> = (0..=config::BUFFERS_KEPT).map(|_| buffers.take(1)).collect();
        let (last, kept) = kept.split_last().expect("several were taken");
        assert!(
            kept.iter().all(|buffer| buffer.is_empty() && buffer.capacity() == small().capacity())
        );
        assert!(last.capacity() < small().capacity(), "neither the large one nor one too many");
    }
}
