//! Owns looking up the values of events in the log. Called by the reader, within its view. Does not know
//! which events are wanted, nor what becomes of their values.

use std::ops::ControlFlow;
use std::rc::Rc;

use rusqlite::types::Value;
use rusqlite::{Connection, Rows, params, vtab};

use super::error::corrupt;
use super::segment::sql;
use crate::event::Seq;
use crate::store::StoreError;

/// Events that follow each other: nothing is passed over.
const OF_ALL_BETWEEN: &str = "SELECT seq, CASE WHEN octet_length(value) <= ?1 THEN value END \
                              FROM log WHERE seq BETWEEN ?2 AND ?3 ORDER BY seq";
/// Each of them is sought, which costs little where one follows the one before; a `CROSS JOIN` goes
/// through the array in its order. A query for each took a seventh more time for a storage among a
/// thousand, and to pass over what is between them a quarter to a half more for one among ten.
const OF_THESE: &str = "SELECT seq, CASE WHEN octet_length(log.value) <= ?1 THEN log.value END \
                        FROM rarray(?2) AS asked CROSS JOIN log ON seq = asked.value";

/// What a connection needs before its first query here.
pub(super) fn prepare(conn: &Connection) -> Result<(), StoreError> {
    Ok(vtab::array::load_module(conn)?)
}

/// Visits the values of `seqs`, which ascend, up to the first that is longer than `bytes_max` or whose
/// visit ends it. Returns how many came before that.
pub(super) fn visit(
    conn: &Connection,
    seqs: &[Seq],
    bytes_max: usize,
    visit: &mut VisitValue<'_>,
) -> Result<usize, StoreError> {
    let (Some(&first), Some(&last)) = (seqs.first(), seqs.last()) else { return Ok(0) };
    let bytes_max = i64::try_from(bytes_max).unwrap_or(i64::MAX);
    if last - first + 1 == seqs.len() as Seq {
        let mut statement = conn.prepare_cached(OF_ALL_BETWEEN)?;
        let rows = statement.query(params![bytes_max, sql(first), sql(last)])?;
        return visit_rows(rows, seqs, visit);
    }
    let asked: Vec<Value> = seqs.iter().map(|seq| sql(*seq).into()).collect();
    let mut statement = conn.prepare_cached(OF_THESE)?;
    visit_rows(statement.query(params![bytes_max, Rc::new(asked)])?, seqs, visit)
}

/// Takes an event's place among those asked for, and its value.
type VisitValue<'a> = dyn FnMut(usize, &str) -> ControlFlow<()> + 'a;

/// The rows are the events' in their order, without the value where it is too long.
fn visit_rows(
    mut rows: Rows<'_>,
    seqs: &[Seq],
    visit: &mut VisitValue<'_>,
) -> Result<usize, StoreError> {
    for (at, &seq) in seqs.iter().enumerate() {
        let row = rows.next()?.filter(|row| row.get(0) == Ok(sql(seq)));
        let row =
            row.ok_or_else(|| corrupt("an index names an event that the log does not hold"))?;
        let value = row.get_ref(1)?.as_blob_or_null().map_err(|_| corrupt("a value is no BLOB"))?;
        let Some(value) = value else { return Ok(at) };
        let value = str::from_utf8(value).map_err(|_| corrupt("a value is not UTF-8"))?;
        if visit(at, value).is_break() {
            return Ok(at);
        }
    }
    Ok(seqs.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_up_to_the_first_that_is_too_long_and_one_that_is_missing_is_an_error() {
        let conn = Connection::open_in_memory().unwrap();
        prepare(&conn).unwrap();
        conn.execute_batch(
            "CREATE TABLE log(seq INTEGER PRIMARY KEY, value BLOB); \
             INSERT INTO log VALUES (1, x'61'), (2, x'6262'), (3, x'63'), (5, x'64'), (6, x'65'), \
             (9, x'6666')",
        )
        .unwrap();
        for (seqs, bytes_max, expected, is_error) in [
            (&[][..], 2, "", false),
            (&[2], 2, "2bb ", false),
            (&[1, 2, 3], 2, "1a 2bb 3c ", false),
            (&[1, 2, 3], 1, "1a ", false),
            (&[1, 3, 5, 6, 9], 2, "1a 3c 5d 6e 9ff ", false),
            (&[1, 3, 5, 6, 9], 1, "1a 3c 5d 6e ", false),
            (&[4], 2, "", true),
            (&[3, 4, 5], 2, "3c ", true),
            (&[1, 4, 5], 2, "1a ", true),
            (&[1, 9, 10], 2, "1a 9ff ", true),
        ] {
            let mut values = String::new();
            let visited = visit(&conn, seqs, bytes_max, &mut |at, value| {
                values += &format!("{}{value} ", seqs[at]);
                ControlFlow::Continue(())
            });
            assert_eq!(values, expected, "of {seqs:?}");
            match visited {
                Ok(count) => assert!(!is_error && count == values.split_terminator(' ').count()),
                Err(error) => assert!(is_error && matches!(error, StoreError::Fatal(_))),
            }
        }
    }
}
