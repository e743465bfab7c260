//! Owns the writing side of the log: the one connection that appends, and what it must remember to
//! do so. Called by the writer thread through `WriteLog`. Its memory says what is committed, and
//! changes only once it is.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, Statement, params};

use super::bloom::Probe;
use super::log_file::LogFile;
use super::segment::{Lookup, sql};
use super::unfolded::{Unfolded, digest_of};
use super::upkeep::Indexes;
use super::wal::{Copied, WriteAheadLog, checkpoint};
use super::{OpenError, Tuning, record_epoch, wal};
use crate::config;
use crate::event::{Epoch, NewValue, Placed, Seq};
use crate::id::{Id, StorageKey};
use crate::store::{Batch, StoreError, StoreGauges, Transaction, Upkeep, WriteLog};

/// How long the last checkpoint waits for readers; what it leaves is copied at the next start.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

pub(super) struct Writer {
    conn: Connection,
    tuning: Tuning,
    last: Seq,
    unfolded: Unfolded,
    indexes: Indexes,
    wal: WriteAheadLog,
    log_file: Option<Arc<LogFile>>,
    /// Whether a transaction that indexes ahead is open, for whoever begins next. The connection does
    /// not say: one that could not be rolled back is open too, and nobody may go on with it.
    is_ahead: bool,
    /// Held until the connection above is closed.
    _lock: File,
}

impl Writer {
    pub(super) fn load(
        mut conn: Connection,
        lock: File,
        tuning: Tuning,
    ) -> Result<Writer, StoreError> {
        let indexes = Indexes::load(&conn, &tuning)?;
        let unfolded = load_unfolded(&conn, indexes.mark())?;
        let last = indexes.mark() + unfolded.len() as Seq;
        let wal = WriteAheadLog::watch(&mut conn, &tuning)?;
        let (log_file, is_ahead) = (None, false);
        Ok(Writer { conn, tuning, last, unfolded, indexes, wal, log_file, is_ahead, _lock: lock })
    }

    /// Records a new epoch, and copies the log into the database: what a crash left in it may never
    /// have been synced, and must be before anyone sees it.
    pub(super) fn begin_epoch(&self) -> Result<Vec<(Epoch, Seq)>, StoreError> {
        let epochs = record_epoch(&self.conn, self.last)?;
        match checkpoint(&self.conn, "TRUNCATE")? {
            Copied::All => Ok(epochs),
            Copied::Some => Err(StoreError::Failed(wal::HELD.to_owned())),
        }
    }

    /// From now on SQLite syncs the log before it is copied and when it begins anew, and the database
    /// after that, but not what commits write. Not while a start may fail, and close the connection, which
    /// copies what was committed: a sync of it that failed would be taken for one that did not.
    pub(super) fn leave_syncs_to_syncer(&self) -> Result<(), StoreError> {
        Ok(self.conn.execute_batch("PRAGMA synchronous = NORMAL;")?)
    }

    /// From now on the file of the log is longer than what stands in it, which is nothing yet.
    pub(super) fn lengthen_log(&mut self, path: &Path) -> Result<Arc<LogFile>, OpenError> {
        let file = Arc::new(LogFile::open(path, self.tuning.wal_spare_bytes as u64)?);
        file.lengthen(self.wal.file_bytes())?;
        self.log_file = Some(Arc::clone(&file));
        Ok(file)
    }

    /// Ends the transaction that indexes ahead; false where there is none.
    fn commit_ahead(&mut self) -> Result<bool, StoreError> {
        let is_ahead = self.is_ahead;
        if is_ahead {
            Box::new(Open::begin(self)?).commit()?;
        }
        Ok(is_ahead)
    }

    /// Runs `work` as one transaction.
    fn transact(
        &mut self,
        work: impl FnOnce(&mut Writer) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut open = Open::begin(self)?;
        work(open.writer())?;
        Box::new(open).commit()
    }

    /// All that is appended in one go has one statement, and is looked up many values at a time.
    fn append(&mut self, batches: &[Batch<'_>]) -> Result<Vec<Box<[Placed]>>, StoreError> {
        let Writer { conn, unfolded, indexes, .. } = self;
        let mut insert =
            conn.prepare_cached("INSERT INTO log(seq, id, hash, value) VALUES(?1, ?2, ?3, ?4)")?;
        let mut all_placed = Vec::with_capacity(batches.len());
        let mut rest = batches;
        while !rest.is_empty() {
            let (together, later) = rest.split_at(looked_up_together(rest));
            let mut sent = sent(together);
            find_indexed(conn, indexes, &mut sent)?;
            let mut sent = sent.iter();
            for batch in together {
                let mut placed = Vec::with_capacity(batch.values.len());
                for value in sent.by_ref().take(batch.values.len()) {
                    placed.push(place(&mut insert, unfolded, value)?);
                }
                all_placed.push(placed.into());
            }
            rest = later;
        }
        Ok(all_placed)
    }
}

/// How many of the batches: as far as the one that makes the values as many as are looked up together.
fn looked_up_together(batches: &[Batch<'_>]) -> usize {
    let mut values = 0;
    let full = batches.iter().position(|batch| {
        values += batch.values.len();
        values >= config::LOOKED_UP_VALUES
    });
    full.map_or(batches.len(), |last| last + 1)
}

/// Adds a value to the log, unless it stands there: in a segment, or past them, where it may be one of
/// those before it.
fn place(
    insert: &mut Statement<'_>,
    unfolded: &mut Unfolded,
    &Sent { id, storage, value, ref probe, indexed }: &Sent<'_>,
) -> Result<Placed, StoreError> {
    let known = indexed.or_else(|| unfolded.find(storage, probe.key(), &value.hash));
    if let Some(seq) = known {
        return Ok(Placed { seq, new: false });
    }
    let seq = unfolded.push(storage, probe.key(), value.hash);
    insert.execute(params![sql(seq), id.as_str(), value.hash.0, value.text.as_bytes()])?;
    Ok(Placed { seq, new: true })
}

/// A value that was sent, and where it stands in a segment.
struct Sent<'a> {
    id: &'a Id,
    storage: StorageKey,
    value: &'a NewValue,
    probe: Probe,
    indexed: Option<Seq>,
}

const _: () = assert!(
    size_of::<Sent<'_>>() + size_of::<bool>() + size_of::<&mut Sent<'_>>()
        <= config::LOOKED_UP_VALUE_BYTES,
    "it is counted with whether a filter claims it, and once more in the order of those"
);

fn sent<'a>(batches: &[Batch<'a>]) -> Vec<Sent<'a>> {
    let mut sent = Vec::with_capacity(batches.iter().map(|batch| batch.values.len()).sum());
    for &Batch { id, values } in batches {
        let storage = id.key();
        sent.extend(values.iter().map(|value| {
            let probe = Probe::new(digest_of(storage, &value.hash));
            Sent { id, storage, value, probe, indexed: None }
        }));
    }
    sent
}

/// First all filters are asked for all values, one after the other: most of that is to wait for memory, and so
/// it is waited for together. What no filter claims, which is nearly all, is new.
fn find_indexed(
    conn: &Connection,
    indexes: &Indexes,
    sent: &mut [Sent<'_>],
) -> Result<(), StoreError> {
    let mut claimed = vec![false; sent.len()];
    for live in indexes.live() {
        for (claimed, sent) in claimed.iter_mut().zip(&*sent) {
            *claimed |= live.may_contain(&sent.probe);
        }
    }
    let claimed = sent.iter_mut().zip(claimed).filter(|(_, claimed)| *claimed);
    let mut claimed: Vec<_> = claimed.map(|(sent, _)| sent).collect();
    claimed.sort_unstable_by_key(|sent| sent.probe.key());
    for live in indexes.live() {
        let mut lookup = Lookup::new(conn, live.segment);
        for Sent { id, value, probe, indexed, .. } in &mut claimed {
            if indexed.is_none() && live.may_contain(probe) {
                *indexed = lookup.find(probe.key(), id.as_str(), &value.hash)?;
            }
        }
    }
    Ok(())
}

impl WriteLog for Writer {
    fn last(&self) -> Seq {
        self.last
    }

    fn begin(&mut self) -> Result<Box<dyn Transaction + '_>, StoreError> {
        if self.wal.is_full() {
            self.commit_ahead()?;
            self.wal.make_room(&self.conn)?;
        }
        while self.unfolded.len() >= self.tuning.unfolded_events_max {
            self.commit_ahead()?;
            self.transact(|writer| {
                writer.indexes.fold_now(&writer.conn, &writer.unfolded, &writer.tuning)
            })?;
        }
        Ok(Box::new(Open::begin(self)?))
    }

    fn index_ahead(&mut self) -> Result<bool, StoreError> {
        if !self.indexes.is_owed(&self.unfolded, &self.tuning) || self.wal.is_full() {
            return Ok(false);
        }
        let events = self.indexes.take_owed(self.tuning.index_ahead_events);
        let mut open = Open::begin(self)?;
        let Writer { conn, unfolded, indexes, tuning, .. } = open.writer();
        indexes.work_off(conn, unfolded, tuning, events)?;
        open.leave();
        Ok(true)
    }

    fn upkeep(&mut self, at_rest: bool) -> Result<Upkeep, StoreError> {
        let committed = self.commit_ahead()?;
        let upkeep = self.indexes.upkeep(&self.unfolded, &self.tuning);
        if committed || upkeep == Upkeep::Done || (upkeep == Upkeep::AtRest && !at_rest) {
            return Ok(upkeep);
        }
        // Nobody waits for upkeep, so it does not wait for room either; a commit does.
        if self.wal.is_full() {
            return Ok(Upkeep::Done);
        }
        self.transact(|writer| {
            writer.indexes.slice(&writer.conn, &writer.unfolded, &writer.tuning)
        })?;
        // Of the pages that it passed, few are those that appends need.
        self.conn.execute_batch("PRAGMA shrink_memory")?;
        Ok(self.indexes.upkeep(&self.unfolded, &self.tuning))
    }

    fn checkpoint_due(&mut self) -> bool {
        self.wal.checkpoint_due()
    }

    fn lengthening_due(&mut self) -> Option<u64> {
        self.wal.lengthening_due()
    }

    fn restart_log(&mut self, copied_bytes: u64) -> Result<(), StoreError> {
        let committed = self.commit_ahead().map(drop);
        if let Err(StoreError::Fatal(_)) = committed {
            return committed;
        }
        // Whether that succeeded or not: without it no checkpoint would be due again. Of two errors its
        // own is the worse.
        self.wal.restart_after(copied_bytes, &self.conn).and(committed)
    }

    fn is_restarting(&self) -> bool {
        self.wal.is_restarting()
    }

    fn gauges(&self) -> StoreGauges {
        StoreGauges {
            last: self.last,
            unfolded: self.unfolded.len() as u64,
            segments: self.indexes.live().len() as u64,
            wal_bytes: self.wal.bytes(),
        }
    }

    fn close(self: Box<Self>) -> Result<(), StoreError> {
        // Of what indexes ahead nothing is missed.
        rollback(&self.conn);
        if let Some(log_file) = &self.log_file {
            log_file.end();
        }
        self.conn.busy_timeout(CLOSE_PATIENCE)?;
        let copied = checkpoint(&self.conn, "TRUNCATE")?;
        self.conn.close().map_err(|(_, error)| error)?;
        if copied == Copied::Some {
            log::warn!("the next start copies the write-ahead log: {}", wal::HELD);
        }
        Ok(())
    }
}

/// A transaction under way; whatever ends it but its commit, memory is as it was before.
struct Open<'a> {
    /// None once it is committed, or left.
    writer: Option<&'a mut Writer>,
}

impl<'a> Open<'a> {
    /// Goes on with the one that was left, if there is one.
    fn begin(writer: &'a mut Writer) -> Result<Open<'a>, StoreError> {
        if !writer.is_ahead {
            writer.conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        }
        writer.is_ahead = false;
        Ok(Open { writer: Some(writer) })
    }

    /// Whoever begins next goes on with it.
    fn leave(mut self) {
        self.writer().is_ahead = true;
        self.writer = None;
    }

    fn writer(&mut self) -> &mut Writer {
        self.writer.as_mut().expect("it is neither committed nor left")
    }
}

impl Transaction for Open<'_> {
    fn append(&mut self, batches: &[Batch<'_>]) -> Result<Vec<Box<[Placed]>>, StoreError> {
        self.writer().append(batches)
    }

    /// Does the share of the indexes' work, too, that is due: once, as what it finishes counts from the
    /// commit on.
    fn commit(mut self: Box<Self>) -> Result<(), StoreError> {
        let writer = self.writer();
        let rows = (writer.unfolded.last() - writer.last) as usize;
        if rows > 0 {
            writer.indexes.ride_along(&writer.conn, &writer.unfolded, &writer.tuning, rows)?;
        }
        writer.conn.prepare_cached("COMMIT")?.execute([])?;
        let writer = self.writer.take().expect("it is committed once");
        writer.last = writer.unfolded.last();
        writer.indexes.settle(&mut writer.unfolded, &writer.tuning);
        Ok(())
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            rollback(&writer.conn);
            writer.indexes.abandon();
            writer.unfolded.truncate(writer.last);
        }
    }
}

/// Some errors have rolled back already. One that cannot be makes the next `begin` fail.
fn rollback(conn: &Connection) {
    if !conn.is_autocommit()
        && let Err(error) = conn.execute_batch("ROLLBACK")
    {
        log::error!("a failed transaction could not be rolled back: {error}");
    }
}

fn load_unfolded(conn: &Connection, mark: Seq) -> Result<Unfolded, StoreError> {
    let mut unfolded = Unfolded::after(mark);
    super::for_each_in_log(conn, mark, |storage, hash| {
        unfolded.push(storage, digest_of(storage, &hash), hash)
    })?;
    Ok(unfolded)
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::super::segment::FIND_DIGEST;
    use super::super::tests::commit;
    use super::*;
    use crate::id::Id;

    fn load(folder: &super::super::tests::Folder) -> Writer {
        let (conn, lock) = super::super::file::open(&folder.file("db")).unwrap();
        Writer::load(conn, lock, Tuning::default()).unwrap()
    }

    /// The database becomes no larger.
    fn limit_pages(writer: &Writer, pages: i64) {
        let sql = format!("PRAGMA max_page_count = {pages}");
        writer.conn.query_row(&sql, [], |_| Ok(())).unwrap();
    }

    fn append(writer: &mut Writer, count: Seq) {
        let from = writer.last;
        let values: Vec<_> = (0..count).map(|n| NewValue::new((from + n).to_string())).collect();
        commit(writer, &[Batch { id: &Id::new("a").unwrap(), values: &values }]).unwrap();
    }

    /// So that there is something to index ahead. Returns the events of a fold and of a share.
    fn leave_something_owed(writer: &mut Writer) -> (Seq, Seq) {
        let Tuning { fold_events, index_share_events, .. } = writer.tuning;
        let (fold_events, share) = (fold_events as Seq, index_share_events as Seq);
        (0..fold_events / share).for_each(|_| append(writer, share));
        append(writer, share - 1);
        (fold_events, share)
    }

    #[test]
    fn what_a_statement_is_bound_to_does_not_prepare_it_again() {
        let folder = super::super::tests::Folder::new();
        let writer = load(&folder);
        let mut statement = writer.conn.prepare(FIND_DIGEST).unwrap();
        for key in 0..3 {
            assert!(statement.query(params![1, key]).unwrap().next().unwrap().is_none());
        }
        assert_eq!(statement.get_status(StatementStatus::RePrepare), 0);
    }

    #[test]
    fn a_value_is_known_again_whether_it_is_looked_up_with_the_first_or_later() {
        let folder = super::super::tests::Folder::new();
        let mut writer = load(&folder);
        let id = Id::new("a").unwrap();
        let values: Vec<_> = (0..1_200).map(|n: u32| NewValue::new(n.to_string())).collect();
        let batches = [0..600, 300..900, 600..1_200, 0..1_200]
            .map(|range| Batch { id: &id, values: &values[range] });
        assert_eq!((looked_up_together(&batches), looked_up_together(&batches[2..])), (2, 2));
        assert_eq!((looked_up_together(&batches[..1]), looked_up_together(&batches[3..])), (1, 1));
        let begins = [(0, 0), (300, 300), (600, 300), (0, 1_200)];
        for are_known in [false, true] {
            let placed = commit(&mut writer, &batches).unwrap();
            for ((placed, batch), (begin, known)) in placed.iter().zip(&batches).zip(begins) {
                let known = if are_known { batch.values.len() } else { known };
                let expected = (0..batch.values.len())
                    .map(|n| Placed { seq: (begin + n + 1) as Seq, new: n >= known });
                assert!(placed.iter().copied().eq(expected), "from {begin}");
            }
            while writer.upkeep(true).unwrap() != Upkeep::Done {}
            assert_eq!((writer.gauges().unfolded, writer.gauges().segments), (0, 1));
        }
    }

    #[test]
    fn a_full_disk_takes_nothing_and_leaves_reads_alone() {
        let folder = super::super::tests::Folder::new();
        let mut writer = load(&folder);
        let id = Id::new("a").unwrap();
        let commit = |writer: &mut Writer, values: &[NewValue]| {
            commit(writer, &[Batch { id: &id, values }]).map(|placed| placed[0].to_vec())
        };
        let small = [NewValue::new("small")];
        let first = Placed { seq: 1, new: true };
        assert_eq!(commit(&mut writer, &small), Ok(vec![first]));
        let pages: i64 = writer.conn.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        limit_pages(&writer, pages + 10);
        let before = writer.gauges();
        let large: Vec<_> = (0..8).map(|n| NewValue::new(n.to_string().repeat(10_000))).collect();
        assert!(matches!(commit(&mut writer, &large), Err(StoreError::Full(_))));
        assert_eq!(writer.gauges(), before);
        assert_eq!(commit(&mut writer, &small), Ok(vec![Placed { new: false, ..first }]));
        limit_pages(&writer, 1_000);
        let seqs: Vec<_> = (2..10).map(|seq| Placed { seq, new: true }).collect();
        assert_eq!(commit(&mut writer, &large), Ok(seqs));
    }

    #[test]
    fn a_full_disk_ends_what_is_indexed_ahead_and_nothing_else() {
        let folder = super::super::tests::Folder::new();
        let mut writer = load(&folder);
        let (fold_events, share) = leave_something_owed(&mut writer);
        // As many as it has already.
        limit_pages(&writer, 1);
        let before = writer.gauges();
        let failed = std::iter::repeat_with(|| writer.index_ahead())
            .find(|result| *result != Ok(true))
            .expect("it ends");
        assert!(matches!(failed, Err(StoreError::Full(_))), "{failed:?}");
        assert!(writer.conn.is_autocommit() && writer.gauges() == before);
        limit_pages(&writer, 100_000);
        append(&mut writer, fold_events - share + 1);
        while writer.upkeep(true).unwrap() != Upkeep::Done {}
        assert_eq!((writer.gauges().unfolded, writer.gauges().segments), (0, 1));
    }

    #[test]
    fn the_log_starts_over_although_what_was_indexed_ahead_is_lost() {
        for (is_log_cut, expected) in [(false, "constraint failed"), (true, "disk I/O error")] {
            let folder = super::super::tests::Folder::new();
            let mut writer = load(&folder);
            leave_something_owed(&mut writer);
            assert_eq!(writer.index_ahead(), Ok(true));
            writer.conn.commit_hook(Some(|| true)).unwrap();
            if is_log_cut {
                File::options()
                    .write(true)
                    .open(folder.file("db-wal"))
                    .unwrap()
                    .set_len(0)
                    .unwrap();
            }
            let error = writer.restart_log(0).unwrap_err();
            assert!(
                matches!(&error, StoreError::Failed(why) if why.contains(expected)),
                "{error:?}"
            );
            assert_eq!(writer.wal.bytes() == 0, !is_log_cut);
        }
    }
}
