//! Reads the whole log, with the proof that it is whole (zk.md §15).

use tokio::io::{AsyncRead, AsyncWrite};

use super::command::Table;
use super::layout::{self, Layout, LayoutError};
use super::session::{Session, SessionError};
use super::time::LocalS;
use super::users::{self, Users};

/// Reads of the log until the counters prove one, or it is given out as incomplete.
const TRIES: u32 = 3;

/// A log as it was read.
#[derive(Debug)]
pub struct Pulled {
    body: Vec<u8>,
    /// The layout; none of an empty log.
    pub layout: Option<Layout>,
    /// Counter before.
    pub before: Option<u32>,
    /// Counter after.
    pub after: Option<u32>,
    /// Records read, plausible or not.
    pub records: u32,
    /// User ids by internal number, where the layout needs them.
    pub users: Users,
}

impl Pulled {
    /// Counter before ≤ records ≤ counter after. Without counters nothing is proven.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        matches!((self.before, self.after), (Some(b), Some(a)) if b <= self.records && self.records <= a)
    }

    /// The raw records, in the log's order.
    pub fn raw(&self) -> impl Iterator<Item = &[u8]> {
        let log = layout::records(&self.body).unwrap_or_default();
        self.layout.into_iter().flat_map(move |l| l.split(log))
    }
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The session cannot go on.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The log is in no known layout. The session is well.
    #[error("{error}")]
    Format {
        /// What was found.
        error: LayoutError,
        /// The log, for diagnosis; it holds no biometrics.
        body: Vec<u8>,
    },
}

/// Reads the log until it is provably complete, three times at most; then the longest read is
/// returned, and its counters say that it is incomplete. `newest` is the latest believable time.
///
/// # Errors
/// [`PullError`]; nothing of the log may be used.
pub async fn pull<S: AsyncRead + AsyncWrite + Unpin>(
    session: &mut Session<S>,
    newest: LocalS,
) -> Result<Pulled, PullError> {
    let mut best: Option<Pulled> = None;
    let mut refused = None;
    for _ in 0..TRIES {
        let before = session.sizes().await?.records;
        let body = session.table(Table::Attendance).await?;
        let after = session.sizes().await?.records;
        let (layout, records) = match measure(&body, [before, after], newest) {
            Ok(found) => found,
            Err(error) => {
                refused = Some((error, body));
                continue;
            }
        };
        let pulled = Pulled {
            body,
            layout,
            before,
            after,
            records,
            users: Users::new(),
        };
        let proven = pulled.is_complete() || before.is_none();
        if best.as_ref().is_none_or(|b| pulled.records >= b.records) {
            best = Some(pulled);
        }
        if proven {
            break;
        }
    }
    let Some(mut pulled) = best else {
        let (error, body) = refused.expect("a try without a log was refused");
        return Err(match error {
            LayoutError::Damaged { told, got } => SessionError::Partial {
                got,
                of: told,
                why: error.to_string(),
            }
            .into(),
            LayoutError::Unknown { .. } => PullError::Format { error, body },
        });
    };
    if pulled.layout.is_some_and(Layout::needs_users) {
        pulled.users = users(session).await?;
    }
    Ok(pulled)
}

fn measure(
    body: &[u8],
    counts: [Option<u32>; 2],
    newest: LocalS,
) -> Result<(Option<Layout>, u32), LayoutError> {
    let log = layout::records(body)?;
    if log.is_empty() {
        return Ok((None, 0));
    }
    let layout = layout::recognise(log, counts, newest)?;
    let records = u32::try_from(layout.split(log).len()).unwrap_or(u32::MAX);
    Ok((Some(layout), records))
}

/// The user ids. A table that cannot be read costs names, not punches.
async fn users<S: AsyncRead + AsyncWrite + Unpin>(
    session: &mut Session<S>,
) -> Result<Users, SessionError> {
    let count = session.sizes().await?.users;
    let body = session.table(Table::Users).await?;
    let found = layout::records(&body)
        .ok()
        .and_then(|records| users::parse(records, count));
    if found.is_none() {
        tracing::warn!(
            bytes = body.len(),
            "the user table is in no known layout; people keep their internal numbers"
        );
    }
    Ok(found.unwrap_or_default())
}
