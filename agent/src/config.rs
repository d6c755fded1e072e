//! `agent.toml`: what this box is, where its hub is, what it reads.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use scc_common::config::{ConfigError, Content, Document};
use scc_common::id::{AgentId, DeviceId};
use serde::Deserialize;
use toml::Spanned;

use crate::capture::camera::{credentials_fit, host_and_port};

pub(crate) mod grounds;

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

/// Limits of the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BufferLimits {
    /// All pictures and video together, bytes.
    pub media_bytes: u64,
    /// All other streams together, bytes.
    pub small_bytes: u64,
    /// Media older than this is dropped, hours.
    pub media_hours: u32,
    /// Appends are refused when the file system would have less room than this, bytes.
    pub min_free_bytes: u64,
}

impl Default for BufferLimits {
    fn default() -> Self {
        Self {
            media_bytes: 8 << 30,
            small_bytes: 1 << 30,
            media_hours: 14 * 24,
            min_free_bytes: 256 << 20,
        }
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
    media_bytes: Option<Spanned<u64>>,
    small_bytes: Option<Spanned<u64>>,
    media_hours: Option<Spanned<u32>>,
    min_free_bytes: Option<Spanned<u64>>,
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

/// A year of punches of one office.
const LEAST_SMALL: u64 = 16 << 20;

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
            health_every_s: within(doc, &shape.health_every_s, "health_every_s", 1, 3_600)?,
            cameras,
            terminals,
        })
    }
}

/// The state directory alone, for commands that need no secret: the files that the configuration
/// names need not be readable.
///
/// # Errors
/// As [`Config::load`], as far as the shape of the file goes.
pub fn state_dir(file: &Path) -> Result<PathBuf, ConfigError> {
    Document::<Shape>::load(file).map(|doc| doc.value.state_dir.into_inner())
}

fn limits(doc: &Document<Shape>, b: &BufferShape) -> Result<BufferLimits, ConfigError> {
    let usual = BufferLimits::default();
    let bytes = |given: &Option<Spanned<u64>>, key: &str, default: u64, least: u64| match given {
        None => Ok(default),
        Some(given) => within(doc, given, key, least, MOST_BYTES),
    };
    Ok(BufferLimits {
        media_bytes: bytes(
            &b.media_bytes,
            "media_bytes",
            usual.media_bytes,
            LEAST_MEDIA,
        )?,
        small_bytes: bytes(
            &b.small_bytes,
            "small_bytes",
            usual.small_bytes,
            LEAST_SMALL,
        )?,
        media_hours: match &b.media_hours {
            None => usual.media_hours,
            Some(given) => within(doc, given, "media_hours", 1, 10 * 366 * 24)?,
        },
        min_free_bytes: bytes(&b.min_free_bytes, "min_free_bytes", usual.min_free_bytes, 0)?,
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
    let utc_offset_min = offset_minutes(t.utc_offset.get_ref()).ok_or_else(|| {
        doc.wrong(
            t.utc_offset.span().start,
            "utc_offset",
            "must look like \"+08:00\" (WITA) or \"-03:30\"",
        )
    })?;
    Ok(Terminal {
        id,
        host,
        port,
        comm_key,
        utc_offset_min,
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
                "[buffer]\nmedia_bytes = 0\n[identity]",
                "agent.toml:7: `media_bytes`: 0 is out of range; give 67108864 to",
            ),
            (
                "[identity]",
                "[buffer]\nmedia_hours = 0\n[identity]",
                "agent.toml:7: `media_hours`: 0 is out of range; give 1 to",
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
