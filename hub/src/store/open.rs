//! Opening the database: pragmas and migrations.
//!
//! `user_version` counts the steps of [`STEPS`] that the file has. A step, once released, is never
//! changed; a change of the schema is a new step.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::StoreError;

const STEPS: [&str; 2] = [include_str!("schema.sql"), include_str!("schema_2.sql")];

/// How long a statement waits for another process (a command on the same machine) before it fails.
const PATIENCE: Duration = Duration::from_secs(5);

/// The one connection that writes, with the schema up to date.
pub(super) fn writer(path: &Path) -> Result<Connection, StoreError> {
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|e| StoreError::open(path, e.to_string()))?;
    }
    let prepare = || -> rusqlite::Result<Connection> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(PATIENCE)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", "ON")?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(connection)
    };
    let mut connection = prepare().map_err(|e| StoreError::open(path, e.to_string()))?;
    migrate(&mut connection, path)?;
    Ok(connection)
}

/// A connection that cannot write, to a database that must exist.
pub(super) fn reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(PATIENCE)?;
    // Not SQLITE_OPEN_READ_ONLY: a reader of a WAL database may have to create its index.
    connection.pragma_update(None, "query_only", "ON")?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let known = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: i64 = tx.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > known {
        return Err(StoreError::TooNew {
            file: path.to_path_buf(),
            found,
            known,
        });
    }
    if found == known {
        // Nothing is written, so that a hub starts on a full disk and can say so on its pages.
        return Ok(());
    }
    for step in STEPS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        tx.execute_batch(step)?;
    }
    tx.pragma_update(None, "user_version", known)?;
    tx.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_gets_the_schema_and_a_second_start_leaves_it_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hub.sqlite");
        for _ in 0..2 {
            let connection = writer(&path).unwrap();
            let mode: String = connection
                .pragma_query_value(None, "journal_mode", |r| r.get(0))
                .unwrap();
            let sync: i64 = connection
                .pragma_query_value(None, "synchronous", |r| r.get(0))
                .unwrap();
            assert_eq!((mode.as_str(), sync), ("wal", 2));
            connection
                .execute("DELETE FROM record WHERE id < 0", [])
                .unwrap();
        }
        assert!(
            reader(&path)
                .unwrap()
                .execute("DELETE FROM record", [])
                .is_err()
        );
    }

    #[test]
    fn a_database_of_the_future_is_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hub.sqlite");
        writer(&path)
            .unwrap()
            .pragma_update(None, "user_version", 99)
            .unwrap();
        assert!(matches!(
            writer(&path),
            Err(StoreError::TooNew { found: 99, .. })
        ));
    }
}
