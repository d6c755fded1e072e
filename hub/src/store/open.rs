//! Opening the database: pragmas and migrations.
//!
//! `user_version` counts the steps of [`STEPS`] that the file has. A step, once released, is never
//! changed; a change of the schema is a new step.

use std::cmp::Ordering;
use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::{StoreError, present};

const STEPS: [&str; 8] = [
    include_str!("schema.sql"),
    include_str!("schema_2.sql"),
    include_str!("schema_3.sql"),
    include_str!("schema_4.sql"),
    include_str!("schema_5.sql"),
    include_str!("schema_6.sql"),
    include_str!("schema_7.sql"),
    include_str!("schema_8.sql"),
];

/// How long a statement waits for another process (a command on the same machine) before it fails.
const PATIENCE: Duration = Duration::from_secs(5);

/// Memory of the writer for pages of the database, KiB: enough for the ends of the indices that a fleet
/// of a hundred agents writes to at once. `SQLite`'s own 2 MB make it read them again and again.
const CACHE_KIB: i64 = 16 * 1024;

/// Pages of the log (4 KiB each) before it is written back: each time costs two fsyncs and every page
/// once, however often it has changed meanwhile.
const CHECKPOINT_PAGES: i64 = 4_000;

/// The one connection that writes, with the schema up to date.
pub(super) fn writer(path: &Path) -> Result<Connection, StoreError> {
    let refused = |e: std::io::Error| StoreError::open(path, e.to_string());
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(folder).map_err(refused)?;
    }
    present::not_lost(path)?;
    private(path).map_err(refused)?;
    let prepare = || -> rusqlite::Result<Connection> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(PATIENCE)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", "ON")?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(connection)
    };
    let mut connection = prepare().map_err(|e| StoreError::open(path, e.to_string()))?;
    migrate(&mut connection, path)?;
    present::begun(path).map_err(refused)?;
    Ok(connection)
}

/// Makes the file, if there is none, for nobody else to read: punches and password hashes are in it.
/// What `SQLite` puts beside it gets the same mode.
pub(super) fn private(path: &Path) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map(drop)
}

/// That there is a database that this program can read as it stands.
pub(super) fn readable(path: &Path) -> Result<(), StoreError> {
    if !path.exists() {
        return Err(StoreError::Missing(path.to_path_buf()));
    }
    let known = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
    let found: i64 = reader(path)
        .and_then(|c| c.pragma_query_value(None, "user_version", |row| row.get(0)))
        .map_err(|e| StoreError::open(path, e.to_string()))?;
    let file = path.to_path_buf();
    match found.cmp(&known) {
        Ordering::Equal => Ok(()),
        Ordering::Less => Err(StoreError::TooOld { file, found, known }),
        Ordering::Greater => Err(StoreError::TooNew { file, found, known }),
    }
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
    fn an_older_file_keeps_what_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hub.sqlite");
        let old = Connection::open(&path).unwrap();
        old.execute_batch(STEPS[0]).unwrap();
        old.execute_batch(
            "PRAGMA user_version = 1;
             INSERT INTO record (id, agent, epoch, stream, seq, sum, size, readable, declared, received_ms, body)
               VALUES (1, 'rsud', 7, 2, 1, x'', 0, 1, 1, 0, x'');
             INSERT INTO punch VALUES ('rsud', 'loket', 'CGKK1', '10036', 848000000, 0, 1, 0, '2026-11-14',
               'pull', x'00', 1, 5);
             INSERT INTO lane VALUES ('rsud', 7, 2, 1, 2, 3, 0);
             INSERT INTO device_state VALUES ('rsud', 'pintu', 9, 'camera', 'up', NULL, 'x', 8);",
        )
        .unwrap();
        drop(old);
        let new = writer(&path).unwrap();
        let kept: (String, String, i64) = new
            .query_row("SELECT agent, day, received_ms FROM punch", [], |r| {
                Ok((r.get(0)?, r.get(1)?, r.get(2)?))
            })
            .unwrap();
        assert_eq!(kept, ("rsud".into(), "2026-11-14".into(), 5));
        let lane: (i64, Option<i64>) = new
            .query_row("SELECT told_next, told_ms FROM lane", [], |r| {
                Ok((r.get(0)?, r.get(1)?))
            })
            .unwrap();
        assert_eq!(lane, (2, None));
        let state: (i64, i64, String, i64) = new
            .query_row(
                "SELECT changed_ms, record, detail, last_good_ms FROM device_state",
                [],
                |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?)),
            )
            .unwrap();
        assert_eq!(state, (9, 0, "x".into(), 8));
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
