//! Where a partition begins and ends, and whether it can be read from a given position. Invariant: whatever does
//! not fit is reported with what to do about it, and nothing is read past it.

use rusqlite::{Connection, OptionalExtension as _};

use super::tables;

pub(super) const DELETED: &str = "the topic was deleted while it was read; create it again, then resume";

/// First offset kept and end (exclusive); None: the partition is gone.
pub(super) fn bounds(connection: &Connection, partition_id: i64) -> rusqlite::Result<Option<(i64, i64)>> {
    connection
        .prepare_cached("SELECT first_offset, next_offset FROM partitions WHERE id = ?1")?
        .query_row([partition_id], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
}

/// Where a partition that can be read from `position` ends, or why it cannot.
pub(super) fn check_position(
    connection: &Connection,
    partition_id: i64,
    position: i64,
) -> rusqlite::Result<Result<i64, String>> {
    let Some((first, end)) = bounds(connection, partition_id)? else {
        return Ok(Err(DELETED.to_owned()));
    };
    if position > end {
        return Ok(Err(format!(
            "the position {position} is beyond the end {end}: the topic was recreated, or the database is an older \
             copy; restore the right one, or resume from `earliest` as with a new topic"
        )));
    }
    if position < first {
        return Ok(Err(format!(
            "the position {position} is below the first record still kept, {first}: records were deleted before they \
             were read; resume from `earliest` to read what is left"
        )));
    }
    Ok(Ok(end))
}

/// Is the record that was handled last still the one at that offset? An absent one proves nothing.
pub(super) fn check_last(
    connection: &Connection,
    partition_id: i64,
    last: Option<(i64, u64)>,
) -> rusqlite::Result<Option<String>> {
    let Some((offset, then)) = last else {
        return Ok(None);
    };
    let now: Option<i64> = connection
        .prepare_cached("SELECT timestamp_ms FROM records WHERE id = ?1")?
        .query_row([tables::record_id(partition_id, offset)], |row| row.get(0))
        .optional()?;
    let differs = now.is_some_and(|now| u64::try_from(now).ok() != Some(then));
    Ok(differs.then(|| {
        format!(
            "the record at {offset} has another timestamp than the one handled there: the topic was recreated; \
             from `earliest` it is read from its beginning"
        )
    }))
}

pub(super) fn newest_partition(connection: &Connection) -> rusqlite::Result<i64> {
    let newest: Option<i64> =
        connection.prepare_cached("SELECT max(id) FROM partitions")?.query_row([], |row| row.get(0))?;
    Ok(newest.unwrap_or(0))
}
