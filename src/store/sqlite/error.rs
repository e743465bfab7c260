//! Owns how SQLite's result codes become the store's errors. Called by every module of the SQLite
//! store through `?`. Decides nothing about what is done next.

use rusqlite::{Error, ErrorCode, ffi};

use crate::store::StoreError;

impl From<Error> for StoreError {
    fn from(error: Error) -> StoreError {
        let why = error.to_string();
        let Some(sqlite) = error.sqlite_error() else { return StoreError::Failed(why) };
        match (sqlite.code, sqlite.extended_code) {
            (ErrorCode::DiskFull, _) => StoreError::Full(why),
            // A full disk again, but the index grows after its transaction was written and synced:
            // a crash makes a transaction of it that a 507 would have called not stored.
            (_, ffi::SQLITE_IOERR_SHMSIZE) => StoreError::Failed(format!(
                "the index of the write-ahead log could not grow (is the disk full?): {why}"
            )),
            // After a failed sync the kernel may call pages clean that never reached the disk.
            (_, ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC)
            | (ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase, _) => StoreError::Fatal(why),
            _ => StoreError::Failed(why),
        }
    }
}

/// The database holds what this program never writes.
pub(super) fn corrupt(what: &str) -> StoreError {
    StoreError::Fatal(format!("the database is damaged: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_codes_say_what_may_be_tried_again() {
        let full: fn(String) -> StoreError = StoreError::Full;
        let failed: fn(String) -> StoreError = StoreError::Failed;
        let fatal: fn(String) -> StoreError = StoreError::Fatal;
        for (code, expected) in [
            (ffi::SQLITE_FULL, full),
            (ffi::SQLITE_IOERR_FSYNC, fatal),
            (ffi::SQLITE_IOERR_DIR_FSYNC, fatal),
            (ffi::SQLITE_CORRUPT, fatal),
            (ffi::SQLITE_CORRUPT_INDEX, fatal),
            (ffi::SQLITE_NOTADB, fatal),
            (ffi::SQLITE_IOERR_WRITE, failed),
            (ffi::SQLITE_IOERR_READ, failed),
            (ffi::SQLITE_BUSY, failed),
            (ffi::SQLITE_NOMEM, failed),
        ] {
            let error = Error::SqliteFailure(ffi::Error::new(code), Some("why".to_owned()));
            assert_eq!(StoreError::from(error), expected("why".to_owned()), "code {code}");
        }
        let error = Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR_SHMSIZE), None);
        assert!(matches!(StoreError::from(error), StoreError::Failed(_)));
    }
}
