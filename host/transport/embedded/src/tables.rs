//! The tables behind the embedded topics, and how a record lies in them. Invariant: a row of `records` never changes;
//! it is only ever inserted at its partition's end and deleted at its beginning.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, TransactionBehavior, config::DbConfig};
use sagahost_private as private;
use sagahost_transport::TransportError;
use sagahost_wire::{Headers, TopicId, header_bytes};

/// Raised with each change of the tables, or of what a cell holds. Version 2: values of headers may be null.
const SCHEMA_VERSION: i64 = 2;
/// `SAGT`, so that tools tell what the file is.
const APPLICATION_ID: i64 = 0x5341_4754;

/// `records.id` = partition's id · 2^40 + offset: one integer-keyed tree, each partition a stretch of it.
const OFFSET_BITS: u32 = 40;
pub(super) const OFFSET_MAX: i64 = (1 << OFFSET_BITS) - 1;

const SCHEMA: &str = "
CREATE TABLE topics (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;
CREATE TABLE partitions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used again, so that a topic made anew is another one
    topic INTEGER NOT NULL REFERENCES topics (id),
    number INTEGER NOT NULL,
    first_offset INTEGER NOT NULL DEFAULT 0,
    next_offset INTEGER NOT NULL DEFAULT 0,
    UNIQUE (topic, number)
) STRICT;
CREATE TABLE records (
    id INTEGER PRIMARY KEY,  -- partitions.id << 40 | offset
    timestamp_ms INTEGER NOT NULL,
    key BLOB,
    value BLOB,
    headers BLOB
) STRICT;
CREATE TABLE committed (
    app TEXT NOT NULL,
    partition_id INTEGER NOT NULL REFERENCES partitions (id),
    next_offset INTEGER NOT NULL,
    metadata TEXT NOT NULL,
    PRIMARY KEY (app, partition_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE claims (
    app TEXT PRIMARY KEY,
    epoch INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE VIEW readable AS
    SELECT t.name AS topic, p.number AS partition_number, r.id & 0xffffffffff AS record_offset,
        datetime(r.timestamp_ms / 1000, 'unixepoch') AS at, CAST(r.key AS TEXT) AS key, CAST(r.value AS TEXT) AS value
    FROM records r JOIN partitions p ON p.id = r.id >> 40 JOIN topics t ON t.id = p.topic;
";

/// Beside the tables of a version, since an older host does not miss it. Ids of rows do not tell topics apart for good:
/// they begin again in a database that was recreated.
const TOPIC_IDS: &str = "
CREATE TABLE topic_ids (
    topic INTEGER PRIMARY KEY,
    id TEXT NOT NULL
) STRICT;
CREATE TRIGGER topic_made AFTER INSERT ON topics BEGIN
    INSERT OR REPLACE INTO topic_ids (topic, id) VALUES (new.id, lower(hex(randomblob(16))));
END;
CREATE TRIGGER topic_deleted AFTER DELETE ON topics BEGIN
    DELETE FROM topic_ids WHERE topic = old.id;
END;
INSERT INTO topic_ids (topic, id) SELECT id, lower(hex(randomblob(16))) FROM topics;
";

pub(super) fn record_id(partition_id: i64, offset: i64) -> i64 {
    (partition_id << OFFSET_BITS) | offset.clamp(0, OFFSET_MAX)
}

pub(super) fn offset_of(record_id: i64) -> i64 {
    record_id & OFFSET_MAX
}

/// Opens the database, making the tables where it is new.
pub(super) fn open(path: &Path, busy: Duration) -> Result<Connection, TransportError> {
    let failed = |error: rusqlite::Error| explain(path, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let flags = flags | OpenFlags::SQLITE_OPEN_NOFOLLOW | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    // What SQLite makes beside the file has its mode. If this fails so does SQLite, and says why.
    let _ = private::create_empty(path);
    let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(busy).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(32);
    // A plan does not hang on what is bound: otherwise a statement with a bound LIMIT is parsed again each time.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(failed)?;
    into_wal(&connection, busy).map_err(failed)?;
    connection
        .execute_batch(
            "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 4000; PRAGMA journal_size_limit = 67108864;",
        )
        .map_err(failed)?;
    let version = migrate(&mut connection).map_err(failed)?;
    add_topic_ids(&mut connection).map_err(failed)?;
    if version != SCHEMA_VERSION {
        return Err(TransportError::Refused(format!(
            "{} has tables of version {version}, this host knows version {SCHEMA_VERSION}: use the newer host that wrote it",
            path.display()
        )));
    }
    Ok(connection)
}

/// Two processes may make the same file at once, and the switch does not wait for locks as other statements do.
fn into_wal(connection: &Connection, busy: Duration) -> rusqlite::Result<()> {
    let mut waited = Duration::ZERO;
    loop {
        match connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0)) {
            Err(error) if is_busy(&error) && waited < busy => {
                std::thread::sleep(Duration::from_millis(5));
                waited += Duration::from_millis(5);
            }
            Err(error) => return Err(error),
            Ok(_) => return Ok(()),
        }
    }
}

/// Makes the tables, or brings older ones up to date. Returns their version.
fn migrate(connection: &mut Connection) -> rusqlite::Result<i64> {
    let version = |connection: &Connection| connection.pragma_query_value(None, "user_version", |row| row.get(0));
    let found: i64 = version(connection)?;
    if found >= SCHEMA_VERSION {
        return Ok(found);
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: i64 = version(&transaction)?;
    if found == 0 {
        transaction.execute_batch(SCHEMA)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    }
    // What version 1 wrote is read as it is: only a host that does not know null values must be kept out.
    if found < SCHEMA_VERSION {
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    }
    let made = version(&transaction)?;
    transaction.commit()?;
    Ok(made)
}

fn add_topic_ids(connection: &mut Connection) -> rusqlite::Result<()> {
    let missing = |connection: &Connection| {
        let sql = "SELECT NOT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'topic_ids')";
        connection.query_row(sql, [], |row| row.get::<_, bool>(0))
    };
    if !missing(connection)? {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have been quicker.
    if missing(&transaction)? {
        transaction.execute_batch(TOPIC_IDS)?;
    }
    transaction.commit()
}

/// None: there is no such topic.
pub(super) fn topic_id(connection: &Connection, topic: &str) -> rusqlite::Result<Option<TopicId>> {
    connection
        .prepare_cached("SELECT i.id FROM topics t JOIN topic_ids i ON i.topic = t.id WHERE t.name = ?1")?
        .query_row([topic], |row| Ok(TopicId(row.get(0)?)))
        .optional()
}

pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// What an error of the database means to whoever runs the host.
pub(super) fn explain(path: &Path, error: &rusqlite::Error) -> TransportError {
    let at = path.display();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            TransportError::Away(format!("{at} has been locked by another process for too long: {error}"))
        }
        Some(ErrorCode::DiskFull) => {
            TransportError::Away(format!("the disk of {at} is full: free some space; the host continues by itself"))
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            TransportError::Broken(format!("{at} is corrupt: {error}; restore it from a copy"))
        }
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            TransportError::Refused(format!(
                "{at} cannot be opened for writing: {error}; check that its directory exists and belongs to this user"
            ))
        }
        _ => TransportError::Broken(format!("{at}: {error}")),
    }
}

/// The length of a value that is null.
const NULL: u32 = u32::MAX;

/// Headers as one blob: (name's length, name, value's length, value)*, lengths as 32 bits little-endian. NULL: none.
pub(super) fn pack_headers(headers: &Headers) -> Option<Vec<u8>> {
    if headers.is_empty() {
        return None;
    }
    let mut blob = Vec::with_capacity(header_bytes(headers) + 8 * headers.len());
    for (name, value) in headers {
        for part in [Some(name.as_bytes()), value.as_deref()] {
            let length = part.map_or(NULL, |part| u32::try_from(part.len()).unwrap_or(NULL));
            blob.extend_from_slice(&length.to_le_bytes());
            blob.extend_from_slice(part.unwrap_or_default());
        }
    }
    Some(blob)
}

/// None: the blob is damaged.
pub(super) fn unpack_headers(blob: Option<&[u8]>) -> Option<Headers> {
    let mut rest = blob.unwrap_or_default();
    let mut headers = Headers::new();
    while !rest.is_empty() {
        let name = part(&mut rest)??;
        let value = part(&mut rest)?;
        headers.push((String::from_utf8(name.to_vec()).ok()?, value.map(<[u8]>::to_vec)));
    }
    Some(headers)
}

/// Outer None: the blob is damaged. Inner None: null.
fn part<'b>(rest: &mut &'b [u8]) -> Option<Option<&'b [u8]>> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let (part, after) = match u32::from_le_bytes(*length) {
        NULL => (None, after),
        length => {
            let (part, after) = after.split_at_checked(length as usize)?;
            (Some(part), after)
        }
    };
    *rest = after;
    Some(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_survive_and_damage_is_noticed() {
        let headers: Headers = vec![
            ("a".into(), Some(vec![0, 255])),
            ("a".into(), Some(vec![])),
            ("a".into(), None),
            (String::new(), Some(b"x".to_vec())),
        ];
        let blob = pack_headers(&headers).expect("headers");
        assert_eq!(unpack_headers(Some(&blob)), Some(headers));
        assert_eq!(unpack_headers(Some(&blob[..blob.len() - 1])), None);
        assert_eq!(unpack_headers(Some(&u32::MAX.to_le_bytes())), None, "a name is never null");
        assert_eq!(unpack_headers(None), Some(vec![]));
        assert_eq!(pack_headers(&vec![]), None);
    }

    /// What was written is read for as long as there are such files.
    #[test]
    fn the_formats_of_headers_stay() {
        let version_1 = b"\x01\0\0\0h\x02\0\0\0\0\xff\x01\0\0\0e\0\0\0\0";
        let mut headers: Headers = vec![("h".into(), Some(vec![0, 255])), ("e".into(), Some(vec![]))];
        assert_eq!(unpack_headers(Some(version_1)).as_ref(), Some(&headers));
        assert_eq!(pack_headers(&headers).as_deref(), Some(&version_1[..]));
        headers.push(("n".into(), None));
        let version_2 = [&version_1[..], b"\x01\0\0\0n\xff\xff\xff\xff"].concat();
        assert_eq!(pack_headers(&headers).as_ref(), Some(&version_2));
        assert_eq!(unpack_headers(Some(&version_2)), Some(headers));
    }

    #[test]
    fn older_tables_are_brought_up_to_date_and_newer_ones_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("topics.db");
        let busy = Duration::from_secs(1);
        let version_1 = Connection::open(&file).expect("it opens");
        version_1.execute_batch(SCHEMA).expect("the tables are made");
        version_1.pragma_update(None, "user_version", 1).expect("it is set");
        drop(version_1);
        let opened = open(&file, busy).expect("version 1 is brought up to date");
        let version: i64 = opened.pragma_query_value(None, "user_version", |row| row.get(0)).expect("it has a version");
        assert_eq!(version, SCHEMA_VERSION);
        opened.pragma_update(None, "user_version", SCHEMA_VERSION + 1).expect("it is set");
        drop(opened);
        let refused = open(&file, busy).expect_err("a newer host wrote it").to_string();
        assert!(refused.contains("version 3, this host knows version 2"), "{refused}");
    }

    #[test]
    fn ids_are_clustered_by_partition() {
        assert!(record_id(1, OFFSET_MAX) < record_id(2, 0));
        assert_eq!(offset_of(record_id(7, 123)), 123);
    }
}
