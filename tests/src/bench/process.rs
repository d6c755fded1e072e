//! What a process and all that it started have used, from `/proc`.

use std::collections::HashMap;
use std::path::Path;

/// Ticks per second in `/proc`: the same on every Linux that Rust runs on, whatever the kernel's own.
const USER_HZ: f64 = 100.0;

/// Used by one process and its descendants.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// User and system time, seconds, of the living and of children that were waited for.
    pub cpu_s: f64,
    /// Sum of each one's highest resident memory, MB. Pages that processes share count for each, so of
    /// a database with shared buffers this is too much; of a single process it is exact.
    pub peak_mb: f64,
}

/// What the process `pid` and its descendants have used until now; nothing if it has ended.
#[must_use]
pub fn usage(pid: u32) -> Usage {
    let family = family(pid);
    Usage {
        cpu_s: family.iter().filter_map(|pid| cpu_s(*pid)).sum(),
        peak_mb: family
            .iter()
            .filter_map(|pid| memory_kb(*pid, "status", "VmHWM"))
            .sum::<f64>()
            / 1024.0,
    }
}

/// A process and its descendants.
fn family(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for entry in entries {
        let pid = entry.file_name().to_string_lossy().parse::<u32>();
        if let Ok(pid) = pid
            && let Some(parent) = stat(pid).and_then(|s| s.get(1)?.parse().ok())
        {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut family = vec![root];
    let mut at = 0;
    while let Some(pid) = family.get(at) {
        family.extend(children.remove(pid).unwrap_or_default());
        at += 1;
    }
    family
}

/// The fields of `/proc/PID/stat` behind the program's name, from the state on.
fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

fn cpu_s(pid: u32) -> Option<f64> {
    let fields = stat(pid)?;
    // utime, stime, cutime, cstime: fields 14 to 17 of proc(5), where the state is field 3
    let ticks: u64 = fields
        .get(11..15)?
        .iter()
        .filter_map(|f| f.parse::<u64>().ok())
        .sum();
    #[allow(clippy::cast_precision_loss, reason = "ticks of minutes")]
    Some(ticks as f64 / USER_HZ)
}

/// A line of `/proc/PID/status` or `/proc/PID/smaps_rollup`, kB.
#[must_use]
pub fn memory_kb(pid: u32, file: &str, key: &str) -> Option<f64> {
    keyed(&format!("/proc/{pid}/{file}"), key)
}

/// Bytes that the process has sent to the disk (`write_bytes` of `/proc/PID/io`).
#[must_use]
pub fn written_bytes(pid: u32) -> Option<f64> {
    keyed(&format!("/proc/{pid}/io"), "write_bytes")
}

/// The machine's load of the last minute, as the kernel writes it.
#[must_use]
pub fn machine_load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn keyed(file: &str, key: &str) -> Option<f64> {
    let text = std::fs::read_to_string(Path::new(file)).ok()?;
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(k, _)| *k == key)
        .and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn what_children_use_counts() {
        // burns until its input is closed, in a child
        let mut parent = Command::new("sh")
            .args(["-c", "sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo; read x' & read y; wait"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let out = parent.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
        let own = cpu_s(parent.id()).unwrap();
        let all = usage(parent.id());
        drop(parent.stdin.take());
        parent.wait().unwrap();
        assert!(all.cpu_s > own, "{all:?} and {own}");
        assert!(all.peak_mb > 0.1, "{all:?}");
        assert_eq!(usage(parent.id()), Usage::default());
    }
}
