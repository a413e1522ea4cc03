//! Connections: one that writes, a few that read. Invariant: a reader can change nothing, and nobody waits for a
//! reader.

use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, config::DbConfig};
use sagahost_private as private;

use super::{
    OpenOptions,
    fault::{Outcome, failed},
};

/// Statements kept prepared by each connection.
const STATEMENTS_MAX: usize = 64;

pub(super) fn writer(file: &Path, options: &OpenOptions) -> Outcome<Connection> {
    // What SQLite makes beside the file has its mode. If this fails so does SQLite, and says why.
    let _ = private::create_empty(file);
    let conn = Connection::open_with_flags(file, flags() | OpenFlags::SQLITE_OPEN_CREATE)?;
    prepare(&conn, options, options.page_cache_bytes)?;
    let mode: String = conn.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    if mode != "wal" {
        return Err(failed(format!(
            "{} cannot have a write-ahead log (mode {mode}): the data directory must be on a local file system",
            file.display()
        )));
    }
    conn.pragma_update(None, "synchronous", "full")?;
    conn.pragma_update(None, "wal_autocheckpoint", options.wal_pages_max)?;
    // What a burst made of the log is given back to the file system at the next checkpoint.
    conn.pragma_update(None, "journal_size_limit", options.wal_bytes_kept)?;
    Ok(conn)
}

fn flags() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NOFOLLOW | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

fn prepare(conn: &Connection, options: &OpenOptions, cache_bytes: usize) -> Outcome<()> {
    conn.busy_timeout(options.busy_wait)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    let kibibytes = i64::try_from(cache_bytes / 1024).unwrap_or(i64::MAX);
    conn.pragma_update(None, "cache_size", -kibibytes)?;
    conn.pragma_update(None, "temp_store", "memory")?;
    // A plan does not hang on what is bound: otherwise a statement with a bound LIMIT is parsed again each time.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

/// Readers that are not in use.
pub(super) struct Readers {
    file: PathBuf,
    options: OpenOptions,
    /// None: closed.
    idle: Mutex<Option<Vec<Connection>>>,
}

impl Readers {
    pub(super) fn new(file: PathBuf, options: OpenOptions) -> Self {
        Self { file, options, idle: Mutex::new(Some(Vec::new())) }
    }

    pub(super) fn with<T>(&self, read: impl FnOnce(&Connection) -> Outcome<T>) -> Outcome<T> {
        let idle = self.idle.lock().as_mut().ok_or_else(closed)?.pop();
        let conn = match idle {
            Some(conn) => conn,
            None => self.open()?,
        };
        let answer = read(&conn);
        if let Some(idle) = self.idle.lock().as_mut()
            && idle.len() < self.options.readers_max
        {
            idle.push(conn);
        }
        answer
    }

    pub(super) fn close(&self) {
        self.idle.lock().take();
    }

    fn open(&self) -> Outcome<Connection> {
        let conn = Connection::open_with_flags(&self.file, flags())?;
        prepare(&conn, &self.options, self.options.reader_cache_bytes)?;
        conn.pragma_update(None, "query_only", true)?;
        Ok(conn)
    }
}

pub(super) fn closed() -> super::fault::Fault {
    failed("the journal is closed")
}
