//! `agent.toml`: what this box is, where its hub is, what it reads.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use scc_common::config::{ConfigError, Content, Document};
use scc_common::id::{AgentId, DeviceId};
use scc_common::stream::Stream;
use serde::Deserialize;
use toml::Spanned;

use crate::capture::camera::{credentials_fit, host_and_port};
use crate::uplink::budget::Budget;

pub(crate) mod grounds;
mod uplink;

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// This agent.
    pub agent: AgentId,
    /// Where the buffer and everything else that must survive lives.
    pub state_dir: PathBuf,
    /// The hub.
    pub hub: Hub,
    /// This agent's certificate and whom it trusts.
    pub identity: Identity,
    /// Limits of the buffer.
    pub buffer: BufferLimits,
    /// How much of the link may be used, and when.
    pub budget: Budget,
    /// Seconds between two health records.
    pub health_every_s: u32,
    /// Cameras, in the order of the file.
    pub cameras: Vec<Camera>,
    /// Terminals, in the order of the file.
    pub terminals: Vec<Terminal>,
}

/// Where the hub is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hub {
    /// Host name or address.
    pub host: String,
    /// Port of the gate.
    pub port: u16,
}

/// Files of this agent's identity (see [`scc_common::identity`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// PEM, leaf first.
    pub certificate: PathBuf,
    /// PEM, mode 0600.
    pub key: PathBuf,
    /// PEM: the hub's issuing level, the only trust anchor.
    pub hub_ca: PathBuf,
}

/// Limits of the buffer: how much of each stream may stay, and what goes first when not all can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BufferLimits {
    /// State changes and verdicts.
    pub event: StreamLimits,
    /// Punches.
    pub attendance: StreamLimits,
    /// Counts of the agencies' applications.
    pub warehouse: StreamLimits,
    /// The box's own measurements.
    pub health: StreamLimits,
    /// Pictures.
    pub snapshot: StreamLimits,
    /// Video.
    pub segment: StreamLimits,
    /// Every stream once, the first to go first. A stream never drops one that stands behind it.
    pub drop_order: [Stream; 6],
    /// Appends are refused when the file system would have less room than this, bytes.
    pub min_free_bytes: u64,
}

/// Limits of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamLimits {
    /// Room of its files, bytes. A [protected](BufferLimits::is_protected) stream may grow beyond it
    /// into the room of the others.
    pub max_bytes: u64,
    /// What is older is dropped, hours; of a protected stream only what the hub has.
    pub max_hours: u32,
}

/// Two weeks.
const USUAL_HOURS: u32 = 14 * 24;

impl Default for BufferLimits {
    fn default() -> Self {
        let limits = |max_bytes, max_hours| StreamLimits {
            max_bytes,
            max_hours,
        };
        Self {
            event: limits(256 << 20, USUAL_HOURS),
            attendance: limits(256 << 20, USUAL_HOURS),
            warehouse: limits(256 << 20, USUAL_HOURS),
            // unlike the three above it ages without the hub too, so it gets longer
            health: limits(256 << 20, 30 * 24),
            snapshot: limits(1 << 30, USUAL_HOURS),
            segment: limits(7 << 30, USUAL_HOURS),
            drop_order: [
                Stream::Segment,
                Stream::Snapshot,
                Stream::Health,
                Stream::Event,
                Stream::Warehouse,
                Stream::Attendance,
            ],
            min_free_bytes: 256 << 20,
        }
    }
}

impl BufferLimits {
    /// Largest and smallest size of a file of records, bytes; between them it is 1/16 of the cap.
    const FILE_SIZE: std::ops::RangeInclusive<u64> = 64 << 10..=16 << 20;

    /// The limits of one stream.
    #[must_use]
    pub const fn of(&self, stream: Stream) -> StreamLimits {
        match stream {
            Stream::Event => self.event,
            Stream::Attendance => self.attendance,
            Stream::Warehouse => self.warehouse,
            Stream::Health => self.health,
            Stream::Snapshot => self.snapshot,
            Stream::Segment => self.segment,
        }
    }

    /// Room of all streams together, bytes.
    #[must_use]
    pub fn all_bytes(&self) -> u64 {
        let caps = Stream::ALL.iter().map(|s| self.of(*s).max_bytes);
        caps.fold(0, u64::saturating_add)
    }

    /// The stream's place in the order of dropping: 0 goes first.
    #[must_use]
    pub fn rank(&self, stream: Stream) -> usize {
        let place = self.drop_order.iter().position(|s| *s == stream);
        // an order that names it nowhere never drops it before another
        place.unwrap_or(self.drop_order.len())
    }

    /// Whether a stream's records that the hub has not go only after all media has gone.
    #[must_use]
    pub const fn is_protected(stream: Stream) -> bool {
        matches!(
            stream,
            Stream::Event | Stream::Attendance | Stream::Warehouse
        )
    }

    /// Size at which a stream's file is full, bytes. Files are dropped whole.
    #[must_use]
    pub fn file_size(&self, stream: Stream) -> u64 {
        let share = self.of(stream).max_bytes / 16;
        share.clamp(*Self::FILE_SIZE.start(), *Self::FILE_SIZE.end())
    }
}

/// A camera.
#[derive(Clone, PartialEq, Eq)]
pub struct Camera {
    /// Its id in the register.
    pub id: DeviceId,
    /// `rtsp://…` without user and password.
    pub url: String,
    /// User name, if the camera wants one.
    pub user: Option<String>,
    /// Password, read from `password_file`. Never logged, never in a process list.
    pub password: Option<String>,
    /// Seconds between two stills.
    pub snapshot_every_s: u32,
    /// Whether segments are recorded and sent.
    pub segments: bool,
    /// Length of a segment, seconds; it is cut at the next keyframe.
    pub segment_s: u32,
}

impl std::fmt::Debug for Camera {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Camera")
            .field("id", &self.id)
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// An attendance terminal of the ZKTeco family.
#[derive(Clone, PartialEq, Eq)]
pub struct Terminal {
    /// Its id in the register.
    pub id: DeviceId,
    /// Host name or address.
    pub host: String,
    /// TCP port, 4370 unless the terminal was told otherwise.
    pub port: u16,
    /// Comm key, read from `comm_key_file`; 0 = none. Never logged.
    pub comm_key: u32,
    /// Minutes that the terminal's wall clock is ahead of UTC.
    pub utc_offset_min: i16,
    /// Seconds between two reads of the whole log while live events arrive.
    pub full_read_every_s: u32,
}

impl std::fmt::Debug for Terminal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Terminal")
            .field("id", &self.id)
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shape {
    agent: AgentId,
    state_dir: Spanned<PathBuf>,
    hub: HubShape,
    identity: IdentityShape,
    #[serde(default)]
    buffer: BufferShape,
    #[serde(default)]
    uplink: uplink::UplinkShape,
    #[serde(default = "thirty")]
    health_every_s: Spanned<u32>,
    #[serde(default)]
    camera: Vec<CameraShape>,
    #[serde(default)]
    terminal: Vec<TerminalShape>,
}

impl Content for Shape {
    const EXAMPLE: &'static str = include_str!("../../systemd/agent.toml.example");
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HubShape {
    address: Spanned<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentityShape {
    certificate: Spanned<PathBuf>,
    key: Spanned<PathBuf>,
    hub_ca: Spanned<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct BufferShape {
    event: StreamShape,
    attendance: StreamShape,
    warehouse: StreamShape,
    health: StreamShape,
    snapshot: StreamShape,
    segment: StreamShape,
    drop_order: Option<Spanned<Vec<Spanned<String>>>>,
    min_free_bytes: Option<Spanned<u64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct StreamShape {
    max_bytes: Option<Spanned<u64>>,
    max_hours: Option<Spanned<u32>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CameraShape {
    id: Spanned<DeviceId>,
    url: Spanned<String>,
    user: Option<Spanned<String>>,
    password_file: Option<Spanned<PathBuf>>,
    #[serde(default = "thirty")]
    snapshot_every_s: Spanned<u32>,
    #[serde(default = "yes")]
    segments: bool,
    #[serde(default = "ten")]
    segment_s: Spanned<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TerminalShape {
    id: Spanned<DeviceId>,
    address: Spanned<String>,
    comm_key_file: Option<Spanned<PathBuf>>,
    #[serde(default = "wita")]
    utc_offset: Spanned<String>,
    #[serde(default = "quarter")]
    full_read_every_s: Spanned<u32>,
}

fn thirty() -> Spanned<u32> {
    Spanned::new(0..0, 30)
}
fn ten() -> Spanned<u32> {
    Spanned::new(0..0, 10)
}
fn quarter() -> Spanned<u32> {
    Spanned::new(0..0, 900)
}
fn wita() -> Spanned<String> {
    Spanned::new(0..0, "+08:00".into())
}
const fn yes() -> bool {
    true
}

/// Port of the hub's gate.
pub const GATE_PORT: u16 = 8883;

/// Port of the terminals' own protocol.
pub const TERMINAL_PORT: u16 = 4370;

/// Port of RTSP (RFC 2326).
pub const RTSP_PORT: u16 = 554;

/// Less would not hold four of the largest records.
const LEAST_MEDIA: u64 = 64 << 20;

/// Years of punches of one office.
const LEAST_SMALL: u64 = 4 << 20;

/// 16 TiB: whoever writes more has miscounted the zeros.
const MOST_BYTES: u64 = 16 << 40;

impl Config {
    /// Reads and checks `agent.toml` and the secret files that it names.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line and key.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        Self::build(&Document::load(file)?)
    }

    /// As [`load`](Self::load), and checks what the file points to as well: whether this box can run
    /// with it. A certificate's dates are not looked at: a box with an expired one still captures.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line and key.
    pub fn load_to_run(file: &Path) -> Result<Self, ConfigError> {
        let doc = Document::load(file)?;
        let config = Self::build(&doc)?;
        grounds::check(&doc, &config)?;
        Ok(config)
    }

    fn build(doc: &Document<Shape>) -> Result<Self, ConfigError> {
        let shape = &doc.value;
        let (host, port) = address(doc, &shape.hub.address, "address", GATE_PORT)?;
        let mut seen = std::collections::BTreeSet::new();
        let mut unique = |id: &Spanned<DeviceId>| {
            if seen.insert(id.get_ref().clone()) {
                Ok(id.get_ref().clone())
            } else {
                Err(doc.wrong(
                    id.span().start,
                    "id",
                    format!(
                        "there is already a device `{}`; give this one another id",
                        id.get_ref()
                    ),
                ))
            }
        };
        let mut cameras = Vec::new();
        for c in &shape.camera {
            cameras.push(camera(doc, c, unique(&c.id)?)?);
        }
        let mut terminals = Vec::new();
        for t in &shape.terminal {
            let terminal = terminal(doc, t, unique(&t.id)?)?;
            let same =
                |other: &&Terminal| (&other.host, other.port) == (&terminal.host, terminal.port);
            if let Some(other) = terminals.iter().find(same) {
                let what = format!(
                    "is that of `{}` too, and a terminal talks to one reader only; give each its own",
                    other.id
                );
                return Err(doc.wrong(t.address.span().start, "address", what));
            }
            terminals.push(terminal);
        }
        Ok(Self {
            agent: shape.agent.clone(),
            state_dir: shape.state_dir.get_ref().clone(),
            hub: Hub { host, port },
            identity: Identity {
                certificate: shape.identity.certificate.get_ref().clone(),
                key: shape.identity.key.get_ref().clone(),
                hub_ca: shape.identity.hub_ca.get_ref().clone(),
            },
            buffer: limits(doc, &shape.buffer)?,
            budget: uplink::budget(doc, &shape.uplink)?,
            health_every_s: within(doc, &shape.health_every_s, "health_every_s", 1, 3_600)?,
            cameras,
            terminals,
        })
    }
}

/// What commands need that touch no device and no hub.
#[derive(Debug)]
pub struct State {
    /// Where the buffer is.
    pub dir: PathBuf,
    /// Limits of the buffer.
    pub buffer: BufferLimits,
    /// How much of the link may be used, and when.
    pub budget: Budget,
}

/// The state directory and the limits alone, for commands that need no secret: the files that the
/// configuration names need not be readable.
///
/// # Errors
/// As [`Config::load`], as far as these go.
pub fn state(file: &Path) -> Result<State, ConfigError> {
    let doc = Document::<Shape>::load(file)?;
    Ok(State {
        buffer: limits(&doc, &doc.value.buffer)?,
        budget: uplink::budget(&doc, &doc.value.uplink)?,
        dir: doc.value.state_dir.into_inner(),
    })
}

fn limits(doc: &Document<Shape>, b: &BufferShape) -> Result<BufferLimits, ConfigError> {
    let usual = BufferLimits::default();
    let of = |stream: Stream, given: &StreamShape| {
        let usual = usual.of(stream);
        let least = if stream.is_media() {
            LEAST_MEDIA
        } else {
            LEAST_SMALL
        };
        let max_bytes = given.max_bytes.as_ref();
        let max_bytes = max_bytes.map(|n| within(doc, n, "max_bytes", least, MOST_BYTES));
        let max_hours = given.max_hours.as_ref();
        let max_hours = max_hours.map(|n| within(doc, n, "max_hours", 1, 10 * 366 * 24));
        Ok(StreamLimits {
            max_bytes: max_bytes.transpose()?.unwrap_or(usual.max_bytes),
            max_hours: max_hours.transpose()?.unwrap_or(usual.max_hours),
        })
    };
    let drop_order = b.drop_order.as_ref().map(|given| drop_order(doc, given));
    let min_free = b.min_free_bytes.as_ref();
    let min_free = min_free.map(|n| within(doc, n, "min_free_bytes", 0, MOST_BYTES));
    Ok(BufferLimits {
        event: of(Stream::Event, &b.event)?,
        attendance: of(Stream::Attendance, &b.attendance)?,
        warehouse: of(Stream::Warehouse, &b.warehouse)?,
        health: of(Stream::Health, &b.health)?,
        snapshot: of(Stream::Snapshot, &b.snapshot)?,
        segment: of(Stream::Segment, &b.segment)?,
        drop_order: drop_order.transpose()?.unwrap_or(usual.drop_order),
        min_free_bytes: min_free.transpose()?.unwrap_or(usual.min_free_bytes),
    })
}

/// Every stream once, and media before what is protected.
fn drop_order(
    doc: &Document<Shape>,
    given: &Spanned<Vec<Spanned<String>>>,
) -> Result<[Stream; 6], ConfigError> {
    let names = BufferLimits::default().drop_order.map(Stream::name);
    let right = format!(
        "write [\"{}\"] or another order of these",
        names.join("\", \"")
    );
    let wrong = |at: usize, what: String| doc.wrong(at, "drop_order", format!("{what}; {right}"));
    let mut order = Vec::new();
    for word in given.get_ref() {
        let (at, name) = (word.span().start, word.get_ref());
        let Some(stream) = Stream::ALL.into_iter().find(|s| s.name() == name) else {
            return Err(wrong(at, format!("`{name}` is no stream")));
        };
        if order.contains(&stream) {
            return Err(wrong(at, format!("names `{name}` twice")));
        }
        let early = order.iter().find(|s| BufferLimits::is_protected(**s));
        if let Some(early) = early.filter(|_| stream.is_media()) {
            let what = format!("`{early}` may go only after all of `{name}` has gone");
            return Err(wrong(at, what));
        }
        order.push(stream);
    }
    let missing = Stream::ALL.into_iter().find(|s| !order.contains(s));
    order.try_into().map_err(|_| {
        let missing = missing.map_or("", Stream::name);
        wrong(given.span().start, format!("`{missing}` is missing in it"))
    })
}

fn camera(doc: &Document<Shape>, c: &CameraShape, id: DeviceId) -> Result<Camera, ConfigError> {
    let url = c.url.get_ref();
    let at = c.url.span().start;
    let Some(rest) = url.strip_prefix("rtsp://") else {
        return Err(doc.wrong(at, "url", "must begin with rtsp://"));
    };
    // wherever it stands: a password may hold a slash and a question mark
    if rest.contains('@') {
        let what = "must not hold a user or password; give `user` and `password_file` instead \
                    (an `@` of the path itself is written `%40`)";
        return Err(doc.wrong(at, "url", what));
    }
    if host_and_port(url).is_none() {
        let what = "names no host that can be reached; write rtsp://HOST[:PORT]/PATH";
        return Err(doc.wrong(at, "url", what));
    }
    let user = c.user.as_ref().map(|user| user.get_ref().clone());
    let password = match &c.password_file {
        None => None,
        Some(file) if user.is_none() => {
            let what = "is of no use without `user`; give the user name too";
            return Err(doc.wrong(file.span().start, "password_file", what));
        }
        Some(file) => Some(secret(doc, file, "password_file")?),
    };
    if let Some(given) = &c.user
        && !credentials_fit(given.get_ref(), password.as_deref())
    {
        let what = "and its password are too long for FFmpeg together (127 characters); give the \
                    camera a shorter password";
        return Err(doc.wrong(given.span().start, "user", what));
    }
    Ok(Camera {
        id,
        url: url.clone(),
        user,
        password,
        snapshot_every_s: within(doc, &c.snapshot_every_s, "snapshot_every_s", 1, 3_600)?,
        segments: c.segments,
        segment_s: within(doc, &c.segment_s, "segment_s", 1, 60)?,
    })
}

fn terminal(
    doc: &Document<Shape>,
    t: &TerminalShape,
    id: DeviceId,
) -> Result<Terminal, ConfigError> {
    let (host, port) = address(doc, &t.address, "address", TERMINAL_PORT)?;
    let comm_key = match &t.comm_key_file {
        None => 0,
        Some(file) => secret(doc, file, "comm_key_file")?
            .parse()
            .ok()
            .filter(|key| *key <= 999_999)
            .ok_or_else(|| {
                doc.wrong(
                    file.span().start,
                    "comm_key_file",
                    "the file must hold one number from 0 to 999999",
                )
            })?,
    };
    Ok(Terminal {
        id,
        host,
        port,
        comm_key,
        utc_offset_min: offset(doc, &t.utc_offset)?,
        full_read_every_s: within(doc, &t.full_read_every_s, "full_read_every_s", 5, 86_400)?,
    })
}

fn within<N: PartialOrd + Copy + std::fmt::Display>(
    doc: &Document<Shape>,
    value: &Spanned<N>,
    key: &str,
    least: N,
    most: N,
) -> Result<N, ConfigError> {
    let n = *value.get_ref();
    if (least..=most).contains(&n) {
        Ok(n)
    } else {
        Err(doc.wrong(
            value.span().start,
            key,
            format!("{n} is out of range; give {least} to {most}"),
        ))
    }
}

/// Splits `HOST[:PORT]`; an IPv6 address stands in brackets.
fn address(
    doc: &Document<Shape>,
    text: &Spanned<String>,
    key: &str,
    default_port: u16,
) -> Result<(String, u16), ConfigError> {
    split_address(text.get_ref(), default_port).ok_or_else(|| {
        doc.wrong(
            text.span().start,
            key,
            format!(
                "`{}` is no address; write HOST or HOST:PORT, an IPv6 address in brackets",
                text.get_ref()
            ),
        )
    })
}

/// Splits `HOST[:PORT]`; none if it is neither.
pub(crate) fn split_address(text: &str, default_port: u16) -> Option<(String, u16)> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        (host, after)
    } else {
        match text.find(':') {
            Some(at) => text.split_at(at),
            None => (text, ""),
        }
    };
    let port = match port {
        "" => default_port,
        given => given.strip_prefix(':')?.parse().ok().filter(|p| *p != 0)?,
    };
    let named = host.parse::<IpAddr>().is_ok()
        || (!host.is_empty()
            && host.len() <= 253
            && host
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.' || b == b'_'));
    named.then(|| (host.to_owned(), port))
}

/// Minutes ahead of UTC, of `utc_offset`.
fn offset(doc: &Document<Shape>, text: &Spanned<String>) -> Result<i16, ConfigError> {
    offset_minutes(text.get_ref()).ok_or_else(|| {
        doc.wrong(
            text.span().start,
            "utc_offset",
            "must look like \"+08:00\" (WITA) or \"-03:30\"",
        )
    })
}

fn offset_minutes(text: &str) -> Option<i16> {
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let digits = |s: &str| s.len() == 2 && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(hours) || !digits(minutes) {
        return None;
    }
    let (h, m): (i16, i16) = (hours.parse().ok()?, minutes.parse().ok()?);
    (h <= 14 && m < 60).then_some(sign * (h * 60 + m))
}

fn secret(
    doc: &Document<Shape>,
    file: &Spanned<PathBuf>,
    key: &str,
) -> Result<String, ConfigError> {
    use std::os::unix::fs::PermissionsExt;
    let path = file.get_ref();
    let wrong = |what: String| doc.wrong(file.span().start, key, what);
    let meta = std::fs::metadata(path)
        .map_err(|e| wrong(format!("{} cannot be read: {e}", path.display())))?;
    if meta.permissions().mode() & 0o077 != 0 {
        return Err(wrong(format!(
            "others may read {}; run `chmod 600` on it",
            path.display()
        )));
    }
    let text = std::fs::read_to_string(path)
        .map_err(|e| wrong(format!("{} cannot be read: {e}", path.display())))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"
agent = "rsud"
state_dir = "/var/lib/scc-agent"
[hub]
address = "hub.scc"
[identity]
certificate = "a.pem"
key = "a.key"
hub_ca = "hub-ca.pem"
[[camera]]
id = "apotek"
url = "rtsp://10.0.0.5/stream1"
[[terminal]]
id = "absensi"
address = "10.0.0.9"
"#;

    fn parse(text: &str) -> Result<Config, String> {
        Document::parse(Path::new("agent.toml"), text.into())
            .and_then(|doc| Config::build(&doc))
            .map_err(|e| e.to_string())
    }

    #[test]
    fn defaults_are_those_of_the_county() {
        let config = parse(SMALL).unwrap();
        assert_eq!(
            (config.hub.host.as_str(), config.hub.port),
            ("hub.scc", GATE_PORT)
        );
        assert_eq!(config.health_every_s, 30);
        let terminal = &config.terminals[0];
        assert_eq!(
            (terminal.port, terminal.utc_offset_min, terminal.comm_key),
            (4370, 480, 0)
        );
        let camera = &config.cameras[0];
        assert_eq!(
            (camera.snapshot_every_s, camera.segment_s, camera.segments),
            (30, 10, true)
        );
    }

    #[test]
    fn each_mistake_is_named_with_its_line_and_what_would_be_right() {
        for (from, to, expected) in [
            (
                "\"hub.scc\"",
                "\"hub.scc:99999\"",
                "agent.toml:5: `address`: `hub.scc:99999` is no address",
            ),
            (
                "rtsp://10",
                "http://10",
                "agent.toml:12: `url`: must begin with rtsp://",
            ),
            (
                "rtsp://10",
                "rtsp://u:p@10",
                "agent.toml:12: `url`: must not hold a user or password",
            ),
            (
                "id = \"absensi\"",
                "id = \"apotek\"",
                "agent.toml:14: `id`: there is already a device `apotek`",
            ),
            (
                "\"10.0.0.9\"",
                "\"10.0.0.9\"\nutc_offset = \"8\"",
                "agent.toml:16: `utc_offset`: must look like",
            ),
            (
                "\"10.0.0.9\"",
                "\"10.0.0.9\"\nfull_read_every_s = 1",
                "agent.toml:16: `full_read_every_s`: 1 is out of range",
            ),
            (
                "agent = \"rsud\"",
                "agent = \"RSUD\"",
                "agent.toml:2: `agent`: ",
            ),
            (
                "[hub]",
                "[uplink]\nbytes_per_s = 12\n[hub]",
                "agent.toml:5: `bytes_per_s`: 12 is out of range; give 4000 to 1000000000, or 0 for no limit",
            ),
            (
                "[hub]",
                "[uplink]\nbudget = [{ days = \"senin\", from = \"07:30\", to = \"16:00\", bytes_per_s = 40000 }]\n[hub]",
                "agent.toml:5: `days`: `senin` is no day; write \"mon-fri\"",
            ),
            (
                "[hub]",
                "[uplink]\nbudget = [{ days = \"mon\", from = \"7.30\", to = \"16:00\", bytes_per_s = 40000 }]\n[hub]",
                "agent.toml:5: `from`: `7.30` is no time of day; write 00:00 to 23:59",
            ),
            ("[hub]", "[hubb]", "agent.toml:4: "),
            (
                "10.0.0.5/stream1",
                "op:12?4@10.0.0.5/stream1",
                "agent.toml:12: `url`: must not hold a user or password",
            ),
            (
                "10.0.0.5/stream1",
                "op:12/4@10.0.0.5/stream1",
                "agent.toml:12: `url`: must not hold a user or password",
            ),
            (
                "10.0.0.5/stream1",
                "op:12/4?5@10.0.0.5/stream1",
                "agent.toml:12: `url`: must not hold a user or password",
            ),
            (
                "10.0.0.5/stream1",
                "10.0.0.5:x/stream1",
                "agent.toml:12: `url`: names no host",
            ),
            (
                "stream1\"",
                "stream1\"\npassword_file = \"/x\"",
                "agent.toml:13: `password_file`: is of no use without `user`",
            ),
            (
                "\"10.0.0.9\"",
                "\"10.0.0.9\"\n[[terminal]]\nid = \"b\"\naddress = \"10.0.0.9:4370\"",
                "agent.toml:18: `address`: is that of `absensi` too",
            ),
            (
                "[identity]",
                "[buffer]\nsegment = { max_bytes = 0 }\n[identity]",
                "agent.toml:7: `max_bytes`: 0 is out of range; give 67108864 to",
            ),
            (
                "[identity]",
                "[buffer]\nevent = { max_bytes = 4194303 }\n[identity]",
                "agent.toml:7: `max_bytes`: 4194303 is out of range; give 4194304 to",
            ),
            (
                "[identity]",
                "[buffer]\nhealth = { max_hours = 0 }\n[identity]",
                "agent.toml:7: `max_hours`: 0 is out of range; give 1 to",
            ),
            (
                "[identity]",
                "[buffer]\ndrop_order = [\"video\"]\n[identity]",
                "agent.toml:7: `drop_order`: `video` is no stream; write [\"segment\", \"snapshot\", ",
            ),
            (
                "[identity]",
                "[buffer]\ndrop_order = [\"segment\", \"snapshot\"]\n[identity]",
                "agent.toml:7: `drop_order`: `event` is missing in it; write [",
            ),
            (
                "[identity]",
                "[buffer]\ndrop_order = [\"segment\", \"segment\"]\n[identity]",
                "agent.toml:7: `drop_order`: names `segment` twice; write [",
            ),
            (
                "[identity]",
                "[buffer]\ndrop_order = [\"segment\", \"attendance\", \"snapshot\"]\n[identity]",
                "agent.toml:7: `drop_order`: `attendance` may go only after all of `snapshot` has gone",
            ),
            (
                "[identity]",
                "[buffer]\nmedia_bytes = 1\n[identity]",
                "agent.toml:7: `media_bytes`: is no key of this table; expected one of",
            ),
            (
                "[identity]",
                "[buffer]\nmin_free_bytes = -1\n[identity]",
                "agent.toml:7: `min_free_bytes`: ",
            ),
            (
                "[identity]",
                "[identity]\nca = \"x\"",
                "agent.toml:7: `ca`: ",
            ),
        ] {
            let error = parse(&SMALL.replacen(from, to, 1)).unwrap_err();
            assert!(error.starts_with(expected), "{error}\nexpected {expected}");
        }
    }

    #[test]
    fn each_stream_has_its_limits_and_what_is_not_written_is_as_usual() {
        let text = SMALL.replacen(
            "[identity]",
            "[buffer]\nsegment = { max_bytes = 67108864 }\nevent = { max_hours = 48 }\n\
             drop_order = [\"health\", \"snapshot\", \"segment\", \"event\", \"attendance\", \
             \"warehouse\"]\n[identity]",
            1,
        );
        let (usual, limits) = (BufferLimits::default(), parse(&text).unwrap().buffer);
        assert_eq!(limits.segment.max_bytes, 64 << 20);
        assert_eq!(limits.segment.max_hours, usual.segment.max_hours);
        assert_eq!(limits.event.max_hours, 48);
        assert_eq!(limits.snapshot, usual.snapshot);
        assert_eq!(
            (limits.rank(Stream::Health), limits.rank(Stream::Warehouse)),
            (0, 5)
        );
        assert_eq!(parse(SMALL).unwrap().buffer, usual);
        for stream in Stream::ALL {
            assert!(usual.file_size(stream) <= usual.of(stream).max_bytes / 16);
        }
    }

    #[test]
    fn a_password_is_neither_in_the_file_nor_in_a_debug_line() {
        let config = parse(SMALL).unwrap();
        let camera = Camera {
            password: Some("rahasia".into()),
            ..config.cameras[0].clone()
        };
        assert!(!format!("{camera:?}").contains("rahasia"));
    }

    #[test]
    fn addresses_and_offsets_are_read_in_all_their_spellings() {
        assert_eq!(split_address("[::1]:99", 1), Some(("::1".into(), 99)));
        assert_eq!(split_address("a.b", 1), Some(("a.b".into(), 1)));
        assert_eq!(split_address("::1", 1), None);
        assert_eq!(split_address("a:0", 1), None);
        assert_eq!(offset_minutes("+08:00"), Some(480));
        assert_eq!(offset_minutes("-03:30"), Some(-210));
        assert_eq!(offset_minutes("+8:00"), None);
    }
}
