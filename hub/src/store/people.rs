//! Users, their sessions, and the audit of what they did.
//!
//! Invariants: a password is stored as an argon2id PHC string only; of a session's token only the
//! SHA-256 is stored, so a copy of the database opens no door; changing a password ends that user's
//! sessions in the same transaction.

use rusqlite::{OptionalExtension, Transaction, params};
use scc_common::clock::WallMs;
use scc_common::id::AgencyId;

use super::{Store, StoreError};

/// What a person may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Operator,
    /// The sites of these agencies.
    Agency(Vec<AgencyId>),
}

impl Role {
    /// The word in the database, on the command line and in the API.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Agency(_) => "agency",
        }
    }
}

/// A user, for lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name that they log in with.
    pub name: String,
    /// What they may see.
    pub role: Role,
    /// When the account was made.
    pub created_ms: WallMs,
}

/// A session that is still good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Whose.
    pub user: String,
    /// What they may see, as of now.
    pub role: Role,
    /// What each form of this session must repeat.
    pub csrf: String,
    /// When it was last used, to the minute.
    pub seen_ms: WallMs,
}

/// A session that nobody used for this long has ended, milliseconds.
pub const IDLE_MS: i64 = 12 * 3_600_000;

/// A session ends after this long whatever happens, milliseconds.
pub const LIFE_MS: i64 = 7 * 24 * 3_600_000;

impl Store {
    /// Adds a user; false if the name is taken.
    ///
    /// # Errors
    /// [`StoreError`] if the database refuses.
    pub async fn add_user(
        &self,
        name: String,
        phc: String,
        role: Role,
        now_ms: WallMs,
    ) -> Result<bool, StoreError> {
        self.write(move |tx| {
            let added = tx.execute(
                "INSERT INTO user (name, password, role, created_ms, changed_ms) VALUES (?1, ?2, ?3, ?4, ?4)
                 ON CONFLICT (name) DO NOTHING",
                params![name, phc, role.name(), now_ms],
            )?;
            if added == 0 {
                return Ok(false);
            }
            if let Role::Agency(agencies) = &role {
                for agency in agencies {
                    tx.execute(
                        "INSERT OR IGNORE INTO user_agency (user, agency) VALUES (?1, ?2)",
                        params![name, agency.as_str()],
                    )?;
                }
            }
            audit(tx, now_ms, "terminal", "user add", &name)?;
            Ok(true)
        })
        .await
    }

    /// Gives a user another password and ends their sessions; false if there is no such user.
    ///
    /// # Errors
    /// [`StoreError`] if the database refuses.
    pub async fn set_password(
        &self,
        name: String,
        phc: String,
        now_ms: WallMs,
    ) -> Result<bool, StoreError> {
        self.write(move |tx| {
            let changed = tx.execute(
                "UPDATE user SET password = ?2, changed_ms = ?3 WHERE name = ?1",
                params![name, phc, now_ms],
            )?;
            tx.execute("DELETE FROM session WHERE user = ?1", [&name])?;
            if changed > 0 {
                audit(tx, now_ms, "terminal", "user passwd", &name)?;
            }
            Ok(changed > 0)
        })
        .await
    }

    /// All users, by name.
    ///
    /// # Errors
    /// [`StoreError`] if the database cannot be read.
    pub async fn users(&self) -> Result<Vec<User>, StoreError> {
        self.read(|db| {
            let rows = db
                .prepare("SELECT name, role, created_ms FROM user ORDER BY name")?
                .query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?
                .collect::<rusqlite::Result<Vec<(String, String, WallMs)>>>()?;
            rows.into_iter()
                .map(|(name, role, created_ms)| {
                    let role = role_of(db, &name, &role)?;
                    Ok(User {
                        name,
                        role,
                        created_ms,
                    })
                })
                .collect()
        })
        .await
    }

    /// The stored password hash of a user.
    ///
    /// # Errors
    /// [`StoreError`] if the database cannot be read.
    pub async fn password_of(&self, name: String) -> Result<Option<String>, StoreError> {
        self.read(move |db| {
            db.query_row("SELECT password FROM user WHERE name = ?1", [name], |r| {
                r.get(0)
            })
            .optional()
        })
        .await
    }

    /// Begins a session and records that the user came in. Ended sessions are swept out on the way.
    ///
    /// # Errors
    /// [`StoreError`] if the database refuses.
    pub async fn begin_session(
        &self,
        token_sha256: [u8; 32],
        user: String,
        csrf: String,
        from: String,
        now_ms: WallMs,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "DELETE FROM session WHERE seen_ms < ?1 OR created_ms < ?2",
                params![now_ms - IDLE_MS, now_ms - LIFE_MS],
            )?;
            tx.execute(
                "INSERT INTO session (token_sha256, user, csrf, created_ms, seen_ms) VALUES (?1, ?2, ?3, ?4, ?4)",
                params![token_sha256, user, csrf, now_ms],
            )?;
            audit(tx, now_ms, &user, "login", &from)
        })
        .await
    }

    /// The session of this token, if it is still good.
    ///
    /// # Errors
    /// [`StoreError`] if the database cannot be read.
    pub async fn session(
        &self,
        token_sha256: [u8; 32],
        now_ms: WallMs,
    ) -> Result<Option<Session>, StoreError> {
        self.read(move |db| {
            let row = db
                .query_row(
                    "SELECT user, role, csrf, seen_ms FROM session JOIN user ON user.name = session.user
                     WHERE token_sha256 = ?1 AND seen_ms >= ?2 AND session.created_ms >= ?3",
                    params![token_sha256, now_ms - IDLE_MS, now_ms - LIFE_MS],
                    |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?)),
                )
                .optional()?;
            let Some((user, role, csrf, seen_ms)) = row else {
                return Ok(None);
            };
            let (user, role): (String, String) = (user, role);
            let role = role_of(db, &user, &role)?;
            Ok(Some(Session { user, role, csrf, seen_ms }))
        })
        .await
    }

    /// Notes that a session was used.
    ///
    /// # Errors
    /// [`StoreError`] if the database refuses.
    pub async fn touch_session(
        &self,
        token_sha256: [u8; 32],
        now_ms: WallMs,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "UPDATE session SET seen_ms = max(seen_ms, ?2) WHERE token_sha256 = ?1",
                params![token_sha256, now_ms],
            )
            .map(drop)
        })
        .await
    }

    /// Ends a session and records that the user went.
    ///
    /// # Errors
    /// [`StoreError`] if the database refuses.
    pub async fn end_session(
        &self,
        token_sha256: [u8; 32],
        user: String,
        now_ms: WallMs,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "DELETE FROM session WHERE token_sha256 = ?1",
                params![token_sha256],
            )?;
            audit(tx, now_ms, &user, "logout", "")
        })
        .await
    }

    /// Records something that a person did or tried.
    ///
    /// # Errors
    /// [`StoreError`] if the database refuses.
    pub async fn note(
        &self,
        now_ms: WallMs,
        who: String,
        action: &'static str,
        what: String,
    ) -> Result<(), StoreError> {
        self.write(move |tx| audit(tx, now_ms, &who, action, &what))
            .await
    }
}

fn role_of(db: &rusqlite::Connection, user: &str, role: &str) -> rusqlite::Result<Role> {
    if role == "operator" {
        return Ok(Role::Operator);
    }
    let agencies = db
        .prepare_cached("SELECT agency FROM user_agency WHERE user = ?1 ORDER BY agency")?
        .query_map([user], |r| r.get::<_, String>(0))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(Role::Agency(
        agencies
            .into_iter()
            .filter_map(|a| AgencyId::new(a).ok())
            .collect(),
    ))
}

pub(super) fn audit(
    tx: &Transaction<'_>,
    at_ms: WallMs,
    who: &str,
    action: &str,
    what: &str,
) -> rusqlite::Result<()> {
    tx.execute(
        "INSERT INTO audit (at_ms, who, action, what) VALUES (?1, ?2, ?3, ?4)",
        params![at_ms, who, action, what],
    )
    .map(drop)
}
