//! Whose buffer this is: `agent` in the buffer's folder holds the agent's id, so that a card that is
//! pulled out of a dead box can say where its records belong.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use scc_common::id::AgentId;

use super::sync_dir;

const NAME: &str = "agent";

/// The id in a buffer's folder; none on a card that was last written before ids were noted, or if
/// what is there is no id.
///
/// # Errors
/// What the system said.
pub fn read(root: &Path) -> io::Result<Option<AgentId>> {
    match fs::read(root.join(NAME)) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            Ok(AgentId::new(text.trim()).ok())
        }
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Notes the id, durably; does nothing if it is there already.
///
/// # Errors
/// What the system said; then the former one stands.
pub fn note(root: &Path, agent: &AgentId) -> io::Result<()> {
    let former = read(root)?;
    if former.as_ref() == Some(agent) {
        return Ok(());
    }
    if let Some(former) = former {
        tracing::warn!(%former, %agent, "the buffer was another agent's; its records go out as this one's");
    }
    let new = root.join("agent.new");
    let mut file = File::create(&new)?;
    writeln!(file, "{agent}")?;
    file.sync_all()?;
    fs::rename(&new, root.join(NAME))?;
    sync_dir(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_kept_replaced_and_absent_where_there_is_none_or_no_id() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), None);
        for id in ["salotungo", "salotungo", "rsud"] {
            let agent = AgentId::new(id).unwrap();
            note(dir.path(), &agent).unwrap();
            assert_eq!(read(dir.path()).unwrap(), Some(agent));
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        fs::write(dir.path().join("agent"), [0; 512]).unwrap();
        assert_eq!(read(dir.path()).unwrap(), None);
    }
}
