//! Owns looking up the values of events in the log. Called by the reader, within its view. Does not know
//! which events are wanted, nor what becomes of their values.

use std::ops::ControlFlow;
use std::rc::Rc;

use rusqlite::types::Value;
use rusqlite::{Connection, Rows, params, vtab};

use super::error::corrupt;
use super::read::MALFORMED;
use super::segment::sql;
use crate::event::Seq;
use crate::store::StoreError;

/// Events that follow each other: nothing is passed over.
const OF_ALL_BETWEEN: &str = "SELECT seq, CASE WHEN octet_length(value) <= ?1 THEN value END \
                              FROM log WHERE seq BETWEEN ?2 AND ?3 ORDER BY seq";
/// Each of them is sought, which costs little where one follows the one before; a `CROSS JOIN` goes
/// through the array in its order. A query for each took a seventh more time for a storage among a
/// thousand, and to pass over what is between them half as much again for one among ten.
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
        let value = row.get_ref(1)?.as_blob_or_null().map_err(|_| corrupt(MALFORMED))?;
        let Some(value) = value else { return Ok(at) };
        let value = str::from_utf8(value).map_err(|_| corrupt("a value is not UTF-8"))?;
        if visit(at, value).is_break() {
            return Ok(at);
        }
    }
    Ok(seqs.len())
}
