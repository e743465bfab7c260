//! Owns the bytes of a segment's blocks: postings (which events a storage has) and digests (which
//! event a key may stand for). Written by the segment writer, read by readers, look-ups and merges.
//! Knows nothing of tables. What is parsed comes from a file: malformed bytes are an error.
//!
//! A posting block holds groups in storage order, and a storage goes on in the next block where one
//! does not hold it: `storage 16 | before u32 | count u16 | count × (offset u32 | hash 32)`. `before`
//! is the number of the storage's events in the segment before the group; an offset counts from the
//! segment's first `seq`. A digest block holds `key u64 | offset u32`, in order. Little-endian.

use std::fmt::Debug;
use std::ops::Range;

use crate::event::{Hash, Seq};
use crate::id::StorageKey;

/// A row with such a block fills a page and stays in it: SQLite moves what is above 4,061 bytes of a
/// 4,096-byte page elsewhere, and the other columns take up to 36. Former blocks have up to 944.
const BLOCK_BYTES_MAX: usize = 4_000;

const GROUP_HEAD_BYTES: usize = 16 + 4 + 2;
const ENTRY_BYTES: usize = 4 + 32;
const DIGEST_KEY_BYTES: usize = 8;
const DIGEST_BYTES: usize = DIGEST_KEY_BYTES + 4;

/// What the blocks of both indexes are to a merge: groups, each of a key and its entries.
pub(super) trait Index {
    type Key: Copy + Debug + Ord;
    /// What an entry says of an event.
    type Detail;

    const ENTRY_BYTES: usize;

    /// The first group's key, and where its entries are, of which there is one at least.
    fn first_group(block: &[u8]) -> Result<(Self::Key, Range<usize>), Malformed>;

    /// An event's offset, and what is said of it.
    fn entry(bytes: &[u8]) -> (u32, Self::Detail);
}

#[derive(Debug)]
pub(super) struct Postings;

impl Index for Postings {
    type Key = StorageKey;
    type Detail = Hash;

    const ENTRY_BYTES: usize = ENTRY_BYTES;

    fn first_group(block: &[u8]) -> Result<(StorageKey, Range<usize>), Malformed> {
        let (group, rest) = first_group(block)?;
        Ok((group.storage, GROUP_HEAD_BYTES..block.len() - rest.len()))
    }

    fn entry(bytes: &[u8]) -> (u32, Hash) {
        let hash = bytes[4..].try_into().expect("an entry ends with 32 bytes of hash");
        (u32_at(bytes, 0), Hash(hash))
    }
}

#[derive(Debug)]
pub(super) struct Digests;

impl Index for Digests {
    type Key = u64;
    type Detail = ();

    const ENTRY_BYTES: usize = DIGEST_BYTES - DIGEST_KEY_BYTES;

    fn first_group(block: &[u8]) -> Result<(u64, Range<usize>), Malformed> {
        let digest = block.get(..DIGEST_BYTES).ok_or(Malformed)?;
        Ok((u64_at(digest, 0), DIGEST_KEY_BYTES..DIGEST_BYTES))
    }

    fn entry(bytes: &[u8]) -> (u32, ()) {
        (u32_at(bytes, 0), ())
    }
}

/// The bytes are no block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Where a posting block stands: its first storage and that storage's first `seq` in it, in an
/// order that comparing bytes keeps.
pub(super) type PostingKey = [u8; 24];

pub(super) fn posting_key(storage: StorageKey, seq: Seq) -> PostingKey {
    let mut key = [0; 24];
    key[..16].copy_from_slice(&storage.0);
    key[16..].copy_from_slice(&seq.to_be_bytes());
    key
}

/// A posting block being filled.
#[derive(Debug, Default)]
pub(super) struct PostingBlock {
    bytes: Vec<u8>,
    /// Where the last group begins.
    group: usize,
}

impl PostingBlock {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.group = 0;
    }

    pub(super) fn begins_with_its_newest(&self) -> bool {
        self.bytes.len() == GROUP_HEAD_BYTES + ENTRY_BYTES
    }

    /// Adds an event, which follows all others; false when there is no room.
    pub(super) fn push(
        &mut self,
        storage: StorageKey,
        before: u32,
        offset: u32,
        hash: &Hash,
    ) -> bool {
        let joins = !self.is_empty() && self.bytes[self.group..][..16] == storage.0;
        let added = ENTRY_BYTES + if joins { 0 } else { GROUP_HEAD_BYTES };
        if self.bytes.len() + added > BLOCK_BYTES_MAX {
            return false;
        }
        if !joins {
            self.group = self.bytes.len();
            self.bytes.extend_from_slice(&storage.0);
            self.bytes.extend_from_slice(&before.to_le_bytes());
            self.bytes.extend_from_slice(&[0, 0]);
        }
        self.bytes.extend_from_slice(&offset.to_le_bytes());
        self.bytes.extend_from_slice(&hash.0);
        let count = (self.bytes.len() - self.group - GROUP_HEAD_BYTES) / ENTRY_BYTES;
        self.bytes[self.group + 20..][..2].copy_from_slice(&(count as u16).to_le_bytes());
        true
    }
}

/// One storage's events in a posting block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group<'a> {
    pub(super) storage: StorageKey,
    pub(super) before: u32,
    pub(super) entries: Entries<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entries<'a>(&'a [u8]);

impl<'a> Entries<'a> {
    pub(super) fn iter(self) -> impl DoubleEndedIterator<Item = (u32, Hash)> + 'a {
        self.0.chunks_exact(ENTRY_BYTES).map(Postings::entry)
    }
}

/// Takes the first group off a posting block, and returns it with what follows.
pub(super) fn first_group(block: &[u8]) -> Result<(Group<'_>, &[u8]), Malformed> {
    let (head, rest) = block.split_at_checked(GROUP_HEAD_BYTES).ok_or(Malformed)?;
    let storage = StorageKey(head[..16].try_into().expect("16 of 22 bytes"));
    let count = usize::from(u16::from_le_bytes([head[20], head[21]]));
    let (entries, rest) = rest.split_at_checked(count * ENTRY_BYTES).ok_or(Malformed)?;
    if entries.is_empty() {
        return Err(Malformed);
    }
    Ok((Group { storage, before: u32_at(head, 16), entries: Entries(entries) }, rest))
}

/// Where a storage's group is in a posting block, or where it would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place<'a> {
    /// `ends`: another storage follows in the block, so this one does not go on in the next.
    Here { group: Group<'a>, ends: bool },
    /// A later storage stands here.
    Passed,
    /// All storages of the block are earlier ones.
    Beyond,
}

pub(super) fn find_group(mut block: &[u8], storage: StorageKey) -> Result<Place<'_>, Malformed> {
    while !block.is_empty() {
        let (group, rest) = first_group(block)?;
        match group.storage.cmp(&storage) {
            std::cmp::Ordering::Less => block = rest,
            std::cmp::Ordering::Equal => {
                return Ok(Place::Here { group, ends: !rest.is_empty() });
            }
            std::cmp::Ordering::Greater => return Ok(Place::Passed),
        }
    }
    Ok(Place::Beyond)
}

/// A digest block being filled.
#[derive(Debug, Default)]
pub(super) struct DigestBlock {
    bytes: Vec<u8>,
}

impl DigestBlock {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
    }

    pub(super) fn begins_with_its_newest(&self) -> bool {
        self.bytes.len() == DIGEST_BYTES
    }

    /// Adds a digest, which follows all others; false when there is no room.
    pub(super) fn push(&mut self, key: u64, offset: u32) -> bool {
        if self.bytes.len() + DIGEST_BYTES > BLOCK_BYTES_MAX {
            return false;
        }
        self.bytes.extend_from_slice(&key.to_le_bytes());
        self.bytes.extend_from_slice(&offset.to_le_bytes());
        true
    }
}

/// A digest block's keys and offsets, in order; at least one.
pub(super) fn digests(block: &[u8]) -> Result<impl Iterator<Item = (u64, u32)> + '_, Malformed> {
    if block.is_empty() || !block.len().is_multiple_of(DIGEST_BYTES) {
        return Err(Malformed);
    }
    Ok(block
        .chunks_exact(DIGEST_BYTES)
        .map(|digest| (u64_at(digest, 0), u32_at(digest, DIGEST_KEY_BYTES))))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage(n: u8) -> StorageKey {
        StorageKey([n; 16])
    }

    fn hash(n: u32) -> Hash {
        Hash::of(&n.to_string())
    }

    #[test]
    fn postings_come_back_group_by_group() {
        let mut block = PostingBlock::default();
        for (name, before, offset) in [(1, 7, 3), (1, 8, 9), (3, 0, 1), (4, 2, 2), (4, 3, 70_000)] {
            assert!(block.push(storage(name), before, offset, &hash(offset)));
        }
        let found = |name| match find_group(block.bytes(), storage(name)) {
            Ok(Place::Here { group, ends }) => {
                let entries: Vec<_> = group.entries.iter().collect();
                assert!(entries.iter().all(|(offset, found)| *found == hash(*offset)));
                let offsets = entries.iter().map(|(offset, _)| *offset).collect::<Vec<_>>();
                Ok((group.before, offsets, ends))
            }
            other => Err(format!("{other:?}")),
        };
        assert_eq!(found(0), Err("Ok(Passed)".to_owned()));
        assert_eq!(found(1), Ok((7, vec![3, 9], true)));
        assert_eq!(found(2), Err("Ok(Passed)".to_owned()));
        assert_eq!(found(3), Ok((0, vec![1], true)));
        assert_eq!(found(4), Ok((2, vec![2, 70_000], false)));
        assert_eq!(found(5), Err("Ok(Beyond)".to_owned()));
    }

    #[test]
    fn a_full_block_refuses_and_stays_whole() {
        let mut block = PostingBlock::default();
        let pushed = (0..1_000).take_while(|&n| block.push(storage(1), n, n, &hash(n))).count();
        assert_eq!(pushed, (BLOCK_BYTES_MAX - GROUP_HEAD_BYTES) / ENTRY_BYTES);
        let (group, rest) = first_group(block.bytes()).unwrap();
        assert_eq!((group.entries.iter().count(), rest.len()), (pushed, 0));
        let mut digest = DigestBlock::default();
        let pushed = (0..1_000).take_while(|&n| digest.push(u64::from(n), n)).count();
        assert_eq!(pushed, BLOCK_BYTES_MAX / DIGEST_BYTES);
        assert!(digests(digest.bytes()).unwrap().eq((0..pushed as u32).map(|n| (u64::from(n), n))));
    }

    #[test]
    fn malformed_blocks_are_refused() {
        let mut block = PostingBlock::default();
        block.push(storage(1), 0, 0, &hash(0));
        let whole = block.bytes();
        assert_eq!(Postings::first_group(whole), Ok((storage(1), GROUP_HEAD_BYTES..whole.len())));
        for cut in 0..whole.len() {
            assert_eq!(first_group(&whole[..cut]), Err(Malformed), "{cut} bytes");
            assert_eq!(Postings::first_group(&whole[..cut]), Err(Malformed), "{cut} bytes");
        }
        assert_eq!(first_group(&[0; GROUP_HEAD_BYTES]), Err(Malformed), "a group of no events");
        for length in [0, 1, 11, 13] {
            assert!(digests(&vec![0; length]).is_err(), "{length} bytes");
        }
        assert_eq!(Digests::first_group(&[0; 13]), Ok((0, 8..12)));
        assert_eq!(Digests::first_group(&[0; 11]), Err(Malformed));
    }

    #[test]
    fn posting_keys_sort_by_storage_then_seq() {
        let keys =
            [(1, 255), (1, 256), (1, 1 << 40), (2, 1)].map(|(n, s)| posting_key(storage(n), s));
        assert!(keys.is_sorted());
    }
}
