//! A small card: a test runs again, as a process of its own that may mount, with a tmpfs of some MiB
//! under a folder. The unit tests of the agent's buffer use this file too, by its path.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;

/// Set where a test may go on without what this machine cannot do.
const ALLOW_SKIP: &str = "SCC_ALLOW_SKIP";

/// Runs the test `name` of this very program again on a card of `mib` MiB, whose folder is in the
/// variable `folder`. What it said; none if this machine lets nobody mount and [`ALLOW_SKIP`] is set.
///
/// # Errors
/// That it failed or could not be run, with what it said.
pub fn run_again(name: &str, folder: &str, mib: u32) -> io::Result<Option<String>> {
    let dir = tempfile::tempdir()?;
    let script = format!("mount -t tmpfs -o size={mib}m none \"${folder}\" && exec \"$@\"");
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        // root needs none, and where it is confined (a chroot) it may not make one
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "sh", "-c", &script, "sh"]);
    command.arg(std::env::current_exe()?);
    command.args(["--exact", "--nocapture", name]);
    let output = command.env(folder, dir.path()).output()?;
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    if text.contains("running 1 test") {
        return match output.status.success() {
            true => Ok(Some(text.into_owned())),
            false => Err(io::Error::other(text.into_owned())),
        };
    }
    let why = format!("no mount namespace here, so nothing was tested: {text}");
    if std::env::var_os(ALLOW_SKIP).is_none() {
        let hint = format!("{why} ({ALLOW_SKIP}=1 goes on without)");
        return Err(io::Error::other(hint));
    }
    writeln!(io::stdout().lock(), "SKIPPED: {why}")?;
    Ok(None)
}

/// Lets a file grow until the card is full.
///
/// # Errors
/// That it could not be opened; that there is no more room is what is wanted.
pub fn take_all(file: &Path) -> io::Result<()> {
    let mut file = File::options().create(true).append(true).open(file)?;
    while file.write_all(&[1; 16 << 10]).is_ok() {}
    Ok(())
}
