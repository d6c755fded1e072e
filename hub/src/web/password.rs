//! Passwords: argon2id, slow on purpose, so never on an async thread and never many at a time.

use std::sync::LazyLock;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use tokio::sync::Semaphore;

/// Shortest password that `user add` and `user passwd` accept, characters.
pub const MIN_LEN: usize = 10;

/// Longest password that is looked at, bytes: nobody may make the hub hash a novel.
pub const MAX_LEN: usize = 256;

/// Why a password was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Too short or too long.
    #[error("a password needs {MIN_LEN} to {MAX_LEN} characters")]
    Length,
    /// The hash function refused (no randomness, no memory).
    #[error("the password could not be hashed")]
    Hash,
}

/// Each hash takes 19 MiB for some tens of milliseconds; two at a time leave the machine to ingest.
static AT_A_TIME: Semaphore = Semaphore::const_new(2);

/// Verified when there is no such user, so that the answer takes as long as for a real one.
static NOBODY: LazyLock<String> =
    LazyLock::new(|| hash("the password of nobody").unwrap_or_default());

/// The PHC string to store.
///
/// # Errors
/// [`PasswordError`] if the length is not accepted or the hash function refuses.
pub fn hash(password: &str) -> Result<String, PasswordError> {
    if password.chars().count() < MIN_LEN || password.len() > MAX_LEN {
        return Err(PasswordError::Length);
    }
    Argon2::default()
        .hash_password(password.as_bytes())
        .map(|phc: PasswordHash| phc.to_string())
        .map_err(|_| PasswordError::Hash)
}

/// Whether this is the password behind `stored`; without `stored` it takes as long and says no.
pub(crate) async fn verify(password: String, stored: Option<String>) -> bool {
    let Ok(_permit) = AT_A_TIME.acquire().await else {
        return false;
    };
    tokio::task::spawn_blocking(move || {
        let known = stored.is_some();
        let phc = stored.as_deref().unwrap_or(&NOBODY);
        let Ok(phc) = PasswordHash::new(phc) else {
            return false;
        };
        let fits = password.len() <= MAX_LEN
            && Argon2::default()
                .verify_password(password.as_bytes(), &phc)
                .is_ok();
        fits && known
    })
    .await
    .unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_right_password_of_a_known_user_opens() {
        let phc = hash("kopi susu gula aren").unwrap();
        assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
        assert!(verify("kopi susu gula aren".into(), Some(phc.clone())).await);
        assert!(!verify("kopi susu gula batu".into(), Some(phc)).await);
        assert!(!verify("the password of nobody".into(), None).await);
        assert!(!verify("x".into(), Some("not a hash".into())).await);
    }

    #[test]
    fn short_and_endless_passwords_are_refused() {
        assert_eq!(hash("pendek"), Err(PasswordError::Length));
        assert_eq!(hash(&"a".repeat(257)), Err(PasswordError::Length));
    }
}
