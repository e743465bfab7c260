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

/// Reading on costs less than a new seek while the next value is at most so many rows away.
const STEPS_MAX: Seq = 12;

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
    let bytes_max = i64::try_from(bytes_max).unwrap_or(i64::MAX);
    let mut at = 0;
    while at < seqs.len() {
        let query = Query::of_first(&seqs[at..]);
        let mut visit = |place: usize, value: &str| visit(at + place, value);
        let visited = query.visit(conn, bytes_max, &mut visit)?;
        at += visited;
        if visited < query.seqs().len() {
            break;
        }
    }
    Ok(at)
}

/// Takes an event's place among those asked for, and its value.
type VisitValue<'a> = dyn FnMut(usize, &str) -> ControlFlow<()> + 'a;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Query<'a> {
    /// Of one event, or some near each other: what stands between them is passed over.
    Near(&'a [Seq]),
    /// Of events each of which is sought. To begin and end a query for each took a seventh of the time
    /// of reading a storage among a thousand.
    Apart(&'a [Seq]),
}

impl<'a> Query<'a> {
    /// For as many of the events, from the first on, as one query is good for.
    fn of_first(seqs: &'a [Seq]) -> Query<'a> {
        let is_near = |pair: &&[Seq]| pair[1].saturating_sub(pair[0]) <= STEPS_MAX;
        let near = 1 + seqs.windows(2).take_while(is_near).count();
        let apart = seqs.windows(2).take_while(|pair| !is_near(pair)).count();
        // The one after these is apart from them, but may be near its own next.
        let apart = if apart + 1 == seqs.len() { seqs.len() } else { apart };
        if apart > 1 { Query::Apart(&seqs[..apart]) } else { Query::Near(&seqs[..near]) }
    }

    fn seqs(self) -> &'a [Seq] {
        match self {
            Query::Near(seqs) | Query::Apart(seqs) => seqs,
        }
    }

    fn visit(
        self,
        conn: &Connection,
        bytes_max: i64,
        visit: &mut VisitValue<'_>,
    ) -> Result<usize, StoreError> {
        let mut statement = conn.prepare_cached(match self {
            Query::Near(_) => {
                "SELECT seq, CASE WHEN octet_length(value) <= ?3 THEN value END FROM log \
                 WHERE seq BETWEEN ?1 AND ?2 ORDER BY seq"
            }
            Query::Apart(_) => {
                "SELECT seq, CASE WHEN octet_length(log.value) <= ?2 THEN log.value END \
                 FROM rarray(?1) AS asked CROSS JOIN log ON seq = asked.value"
            }
        })?;
        let rows = match self {
            Query::Near(seqs) => {
                let (first, last) = (sql(seqs[0]), sql(seqs[seqs.len() - 1]));
                statement.query(params![first, last, bytes_max])?
            }
            Query::Apart(seqs) => {
                let asked: Vec<Value> = seqs.iter().map(|seq| sql(*seq).into()).collect();
                statement.query(params![Rc::new(asked), bytes_max])?
            }
        };
        visit_rows(rows, self.seqs(), visit)
    }
}

/// The rows have the events in order, and perhaps others between them; no value where it is too long.
fn visit_rows(
    mut rows: Rows<'_>,
    seqs: &[Seq],
    visit: &mut VisitValue<'_>,
) -> Result<usize, StoreError> {
    for (at, &seq) in seqs.iter().enumerate() {
        let row = loop {
            let Some(row) = rows.next()? else {
                return Err(corrupt("an index names an event that the log does not hold"));
            };
            if row.get::<_, i64>(0)? == sql(seq) {
                break row;
            }
        };
        let value = row.get_ref(1)?.as_blob_or_null().map_err(|_| corrupt(MALFORMED))?;
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
    fn a_query_is_of_events_near_each_other_or_of_those_apart() {
        for (seqs, expected) in [
            (&[7][..], Query::Near(&[7])),
            (&[7, 8], Query::Near(&[7, 8])),
            (&[7, 19, 32], Query::Near(&[7, 19])),
            (&[7, 20], Query::Apart(&[7, 20])),
            (&[7, 20, 33, 40], Query::Apart(&[7, 20])),
            (&[7, 20, 21], Query::Near(&[7])),
            (&[7, u64::MAX], Query::Apart(&[7, u64::MAX])),
        ] {
            assert_eq!(Query::of_first(seqs), expected, "of {seqs:?}");
        }
    }
}
