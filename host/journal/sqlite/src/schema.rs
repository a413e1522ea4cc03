//! The tables, by version. Invariant: a journal is made by the same steps that bring an older one up to date, so the
//! two cannot differ.

use rusqlite::{Connection, TransactionBehavior};
use sagahost_journal::JournalError;

use super::fault::{Fault, Outcome};

/// Each step brings a journal from the version before it to its own. A step that was released is never edited.
const STEPS: [&str; 10] = [
    include_str!("schema/1.sql"),
    include_str!("schema/2.sql"),
    include_str!("schema/3.sql"),
    include_str!("schema/4.sql"),
    include_str!("schema/5.sql"),
    include_str!("schema/6.sql"),
    include_str!("schema/7.sql"),
    include_str!("schema/8.sql"),
    include_str!("schema/9.sql"),
    include_str!("schema/10.sql"),
];

/// The version that this host writes.
pub(super) const VERSION: usize = STEPS.len();

/// "SAGA": tells a journal from other databases.
const APPLICATION: i64 = 0x5341_4741;

/// Makes the tables, or brings older ones up to date, in one transaction. A newer journal is left alone.
pub(super) fn prepare(conn: &mut Connection, file: &str) -> Outcome<()> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let application: i64 = tx.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: i64 = tx.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let tables: i64 = tx.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables > 0 && application != APPLICATION {
        return Err(unusable(format!(
            "{file} is a database of another program: give the host a data directory of its own"
        )));
    }
    let version = usize::try_from(version).unwrap_or(usize::MAX);
    if version > VERSION {
        return Err(unusable(format!(
            "{file} has schema version {version}, this host knows versions up to {VERSION}: it was written by a newer \
             sagahost; run that one, or restore the backup made before the upgrade"
        )));
    }
    if version == VERSION {
        return Ok(());
    }
    for step in &STEPS[version..] {
        tx.execute_batch(step)?;
    }
    tx.pragma_update(None, "application_id", APPLICATION)?;
    tx.pragma_update(None, "user_version", i64::try_from(VERSION).unwrap_or(i64::MAX))?;
    tx.commit()?;
    if version > 0 {
        tracing::info!(file, from = version, to = VERSION, "the journal's schema was brought up to date");
    }
    Ok(())
}

fn unusable(text: String) -> Fault {
    Fault::Journal(JournalError::Unusable(text))
}
