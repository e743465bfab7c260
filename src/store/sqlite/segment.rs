//! Owns the segments: indexes over consecutive events, written once and then only read, merged or
//! deleted. Here are their rows, how one is written, and how a value is looked up in one. Called by
//! folds and merges (to write), the writer (to look up) and readers (to list them).

use std::ops::Range;

use rusqlite::{Connection, OptionalExtension, params};

use super::block::{DigestBlock, Malformed, PostingBlock, digests, posting_key};
use super::bloom::Bloom;
use super::error::corrupt;
use crate::event::{Hash, Seq};
use crate::id::StorageKey;
use crate::store::StoreError;

/// The events `first..=last`. Its blocks carry its number; one without a row is unfinished or
/// merged into another, and its blocks are garbage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) number: i64,
    pub(super) level: u32,
    pub(super) first: Seq,
    pub(super) last: Seq,
}

impl Segment {
    pub(super) fn events(&self) -> usize {
        (self.last - self.first + 1) as usize
    }

    /// Of its blocks of each kind, in their order.
    pub(super) fn block_numbers(&self) -> Range<i64> {
        block_number(self.number, 0)..block_number(self.number + 1, 0)
    }

    pub(super) fn offset(&self, seq: Seq) -> u32 {
        u32::try_from(seq - self.first).expect("segments are limited to fewer than 2^32 events")
    }
}

/// What the nth block of a segment is numbered: a segment has fewer than 2^32, and there are fewer than
/// 2^31 segments.
pub(super) fn block_number(segment: i64, nth: u32) -> i64 {
    (segment << 32) + i64::from(nth)
}

impl From<Malformed> for StoreError {
    fn from(_: Malformed) -> StoreError {
        corrupt("a block of an index is malformed")
    }
}

/// Signed as SQLite has it; no `seq` in a store comes near the limit, but one asked for may.
pub(super) fn sql(seq: Seq) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

/// Flips the sign, so that SQLite's signed order is that of the digests.
fn sql_digest(digest: u64) -> i64 {
    (digest ^ (1 << 63)) as i64
}

/// All segments in `seq` order. They follow each other without a gap, from event 1.
pub(super) fn list(conn: &Connection) -> Result<Vec<Segment>, StoreError> {
    let mut statement =
        conn.prepare_cached("SELECT number, level, first, last FROM segment ORDER BY first")?;
    let rows = statement.query_map([], |row| {
        Ok(Segment {
            number: row.get(0)?,
            level: row.get(1)?,
            first: row.get::<_, i64>(2)? as Seq,
            last: row.get::<_, i64>(3)? as Seq,
        })
    })?;
    let segments = rows.collect::<Result<Vec<_>, _>>()?;
    let mut next = 1;
    for segment in &segments {
        if segment.first != next || segment.last < segment.first {
            return Err(corrupt("the segments do not follow each other"));
        }
        next = segment.last + 1;
    }
    Ok(segments)
}

/// Rises whenever the list of segments changes: every change inserts a row, and the newest row is
/// deleted only after a newer one was inserted.
pub(super) fn last_change(conn: &Connection) -> Result<i64, StoreError> {
    let mut statement = conn.prepare_cached("SELECT ifnull(max(change), 0) FROM segment")?;
    Ok(statement.query_row([], |row| row.get(0))?)
}

pub(super) fn delete_row(conn: &Connection, number: i64) -> Result<(), StoreError> {
    conn.prepare_cached("DELETE FROM segment WHERE number = ?1")?.execute([number])?;
    Ok(())
}

/// The filter that was stored with a segment, as large as such were then.
pub(super) fn load_filter(conn: &Connection, segment: &Segment) -> Result<Bloom, StoreError> {
    let malformed = || corrupt("a part of a filter is missing or malformed");
    let mut sizes =
        conn.prepare_cached("SELECT sum(length(data)) FROM filter WHERE segment = ?1")?;
    let bytes: Option<i64> = sizes.query_row([segment.number], |row| row.get(0))?;
    let bytes = bytes.and_then(|bytes| usize::try_from(bytes).ok()).ok_or_else(malformed)?;
    let mut filter = Bloom::stored(segment.events(), bytes).ok_or_else(malformed)?;
    let mut statement =
        conn.prepare_cached("SELECT data FROM filter WHERE segment = ?1 AND part = ?2")?;
    for part in 0..filter.parts() {
        let found = statement
            .query_row(params![segment.number, part as i64], |row| {
                Ok(row.get_ref(0)?.as_blob().is_ok_and(|data| filter.set_part(part, data)))
            })
            .optional()?;
        if found != Some(true) {
            return Err(malformed());
        }
    }
    Ok(filter)
}

/// The blocks of a segment that a digest may stand in, the likeliest first.
pub(super) const FIND_DIGEST: &str = "SELECT key, data FROM digest WHERE segment = ?1 AND key <= ?2 \
                                      ORDER BY key DESC, offset DESC";

/// Looks values up in one segment: many of them best in the order of their digests, as the block that
/// the last one was looked for in is kept.
pub(super) struct Lookup<'conn> {
    conn: &'conn Connection,
    segment: Segment,
    block: Vec<(u64, u32)>,
}

impl<'conn> Lookup<'conn> {
    pub(super) fn new(conn: &'conn Connection, segment: Segment) -> Lookup<'conn> {
        Lookup { conn, segment, block: Vec::new() }
    }

    /// The event of the segment that is the value `hash` of the storage `id`.
    pub(super) fn find(
        &mut self,
        digest: u64,
        id: &str,
        hash: &Hash,
    ) -> Result<Option<Seq>, StoreError> {
        if self.has_all(digest) {
            return self.find_in_block(digest, id, hash);
        }
        let mut statement = self.conn.prepare_cached(FIND_DIGEST)?;
        let key = sql_digest(digest);
        let mut rows = statement.query(params![self.segment.number, key])?;
        while let Some(row) = rows.next()? {
            self.block.clear();
            self.block.extend(digests(row.get_ref(1)?.as_blob().map_err(|_| Malformed)?)?);
            if let Some(seq) = self.find_in_block(digest, id, hash)? {
                return Ok(Some(seq));
            }
            // A block that begins with the digest may follow another that ends with it.
            if row.get::<_, i64>(0)? < key {
                break;
            }
        }
        Ok(None)
    }

    /// Whether no other block can have the digest: those beside it begin or end no further in than at
    /// this one's own ends.
    fn has_all(&self, digest: u64) -> bool {
        let ends = (self.block.first(), self.block.last());
        matches!(ends, (Some((first, _)), Some((last, _))) if *first < digest && digest < *last)
    }

    fn find_in_block(&self, digest: u64, id: &str, hash: &Hash) -> Result<Option<Seq>, StoreError> {
        let begin = self.block.partition_point(|(other, _)| *other < digest);
        for (_, offset) in self.block[begin..].iter().take_while(|(other, _)| *other == digest) {
            let seq = self.segment.first + Seq::from(*offset);
            if is_value(self.conn, seq, id, hash)? {
                return Ok(Some(seq));
            }
        }
        Ok(None)
    }
}

fn is_value(conn: &Connection, seq: Seq, id: &str, hash: &Hash) -> Result<bool, StoreError> {
    let mut statement = conn.prepare_cached("SELECT id, hash FROM log WHERE seq = ?1")?;
    let same = statement
        .query_row([sql(seq)], |row| {
            Ok(row.get_ref(0)?.as_str()? == id && row.get_ref(1)?.as_blob()? == hash.0)
        })
        .optional()?;
    same.ok_or_else(|| corrupt("an index names an event that the log does not hold"))
}

/// Writes a segment: first all postings by (storage, seq), then all digests by (digest, seq).
#[derive(Debug)]
pub(super) struct SegmentWriter {
    segment: Segment,
    postings: PostingBlock,
    /// Where the block being filled begins, once it holds something.
    postings_begin: (StorageKey, Seq),
    /// The newest storage, and how many of its events were written.
    counted: (StorageKey, u32),
    digests: DigestBlock,
    digests_begin: (u64, u32),
    filter: Bloom,
    filter_parts_written: usize,
    /// Blocks written, of both kinds.
    blocks: u32,
}

impl SegmentWriter {
    pub(super) fn new(segment: Segment) -> SegmentWriter {
        let none = StorageKey([0; 16]);
        SegmentWriter {
            segment,
            postings: PostingBlock::default(),
            postings_begin: (none, 0),
            counted: (none, 0),
            digests: DigestBlock::default(),
            digests_begin: (0, 0),
            filter: Bloom::for_keys(segment.events()),
            filter_parts_written: 0,
            blocks: 0,
        }
    }

    pub(super) fn segment(&self) -> Segment {
        self.segment
    }

    pub(super) fn posting(
        &mut self,
        conn: &Connection,
        storage: StorageKey,
        seq: Seq,
        hash: &Hash,
    ) -> Result<(), StoreError> {
        let before = if self.counted.0 == storage { self.counted.1 } else { 0 };
        let offset = self.segment.offset(seq);
        if !self.postings.push(storage, before, offset, hash) {
            self.write_postings(conn)?;
            let pushed = self.postings.push(storage, before, offset, hash);
            assert!(pushed, "an empty block has room for an event");
        }
        if self.postings.begins_with_its_newest() {
            self.postings_begin = (storage, seq);
        }
        self.counted = (storage, before + 1);
        Ok(())
    }

    fn write_postings(&mut self, conn: &Connection) -> Result<(), StoreError> {
        if self.postings.is_empty() {
            return Ok(());
        }
        let (storage, seq) = self.postings_begin;
        conn.prepare_cached(
            "INSERT INTO posting(block, segment, key, data) VALUES(?1, ?2, ?3, ?4)",
        )?
        .execute(params![
            block_number(self.segment.number, self.blocks),
            self.segment.number,
            posting_key(storage, seq),
            self.postings.bytes()
        ])?;
        self.blocks += 1;
        self.postings.clear();
        Ok(())
    }

    pub(super) fn digest(
        &mut self,
        conn: &Connection,
        digest: u64,
        seq: Seq,
    ) -> Result<(), StoreError> {
        let offset = self.segment.offset(seq);
        if !self.digests.push(digest, offset) {
            self.write_digests(conn)?;
            let pushed = self.digests.push(digest, offset);
            assert!(pushed, "an empty block has room for a digest");
        }
        if self.digests.begins_with_its_newest() {
            self.digests_begin = (digest, offset);
        }
        self.write_filter_before(conn, self.filter.part_of(digest))?;
        self.filter.insert(digest);
        Ok(())
    }

    fn write_digests(&mut self, conn: &Connection) -> Result<(), StoreError> {
        if self.digests.bytes().is_empty() {
            return Ok(());
        }
        let (digest, offset) = self.digests_begin;
        conn.prepare_cached(
            "INSERT INTO digest(block, segment, key, offset, data) VALUES(?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            block_number(self.segment.number, self.blocks),
            self.segment.number,
            sql_digest(digest),
            offset,
            self.digests.bytes()
        ])?;
        self.blocks += 1;
        self.digests.clear();
        Ok(())
    }

    /// Digests come in order, so the parts before the newest digest's are complete.
    fn write_filter_before(&mut self, conn: &Connection, end: usize) -> Result<(), StoreError> {
        while self.filter_parts_written < end {
            let part = self.filter_parts_written;
            conn.prepare_cached("INSERT INTO filter(segment, part, data) VALUES(?1, ?2, ?3)")?
                .execute(params![self.segment.number, part as i64, self.filter.part_bytes(part)])?;
            self.filter_parts_written += 1;
        }
        Ok(())
    }

    /// Writes what is left, and the row that makes the segment one: from the commit of this
    /// transaction on, readers use it.
    pub(super) fn finish(mut self, conn: &Connection) -> Result<(Segment, Bloom), StoreError> {
        self.write_postings(conn)?;
        self.write_digests(conn)?;
        self.write_filter_before(conn, self.filter.parts())?;
        let Segment { number, level, first, last } = self.segment;
        conn.prepare_cached(
            "INSERT INTO segment(number, level, first, last) VALUES(?1, ?2, ?3, ?4)",
        )?
        .execute(params![number, level, sql(first), sql(last)])?;
        Ok((self.segment, self.filter))
    }
}
