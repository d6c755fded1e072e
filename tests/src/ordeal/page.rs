//! Somebody at a page: logs in over HTTPS, asks, and watches the event stream.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// Nothing is said for longer than this: the stream beats every five seconds.
const SILENCE: Duration = Duration::from_secs(15);

/// An open answer.
type Answer = BufReader<StreamOwned<ClientConnection, TcpStream>>;

/// Somebody who has logged in.
#[derive(Debug, Clone)]
pub struct Page {
    tls: Arc<ClientConfig>,
    host: String,
    cookie: String,
}

impl Page {
    /// Logs in. `web` is the address of the pages, `https://HOST:PORT/`.
    ///
    /// # Errors
    /// If the hub is not there or says no.
    pub fn log_in(web: &str, hub_ca: &Path, user: &str, password: &str) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(hub_ca)?)?;
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let host = web.trim_start_matches("https://").trim_end_matches('/');
        let mut page = Self {
            tls: Arc::new(tls),
            host: host.to_owned(),
            cookie: String::new(),
        };
        let (cookie, form) = page.send("GET /masuk", "")?;
        page.cookie = cookie.context("the login form sets a cookie")?;
        let csrf = form.split_once("name=\"csrf\" value=\"");
        let csrf = csrf.and_then(|(_, rest)| rest.split_once('"'));
        let (csrf, _) = csrf.context("the login form has a token")?;
        let entry = format!("nama={user}&sandi={password}&csrf={csrf}&ke=%2F");
        let (cookie, _) = page.send("POST /masuk", &entry)?;
        page.cookie = cookie.context("a login sets a cookie")?;
        Ok(page)
    }

    /// What is at a path.
    ///
    /// # Errors
    /// If the hub is not there, or answers anything but a good answer.
    pub fn get(&self, path: &str) -> anyhow::Result<String> {
        Ok(self.send(&format!("GET {path}"), "")?.1)
    }

    /// Reads an event stream, line by line, until `heard` says that it is enough.
    ///
    /// # Errors
    /// If the stream ends or falls silent.
    pub fn watch(&self, path: &str, mut heard: impl FnMut(&str) -> bool) -> anyhow::Result<()> {
        let (mut answer, _) = self.open(&format!("GET {path}"), "")?;
        let mut line = String::new();
        loop {
            line.clear();
            if answer.read_line(&mut line)? == 0 {
                bail!("the stream ended");
            }
            if !heard(&line) {
                return Ok(());
            }
        }
    }

    fn send(&self, what: &str, form: &str) -> anyhow::Result<(Option<String>, String)> {
        let (mut answer, cookie) = self.open(what, form)?;
        let mut body = String::new();
        match answer.read_to_string(&mut body) {
            // a close without close_notify after a whole answer is as good
            Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => Err(error)?,
            _ => Ok((cookie, body)),
        }
    }

    /// HTTP/1.0: one request, one answer that ends with the connection, nothing chunked.
    fn open(&self, what: &str, form: &str) -> anyhow::Result<(Answer, Option<String>)> {
        let socket = TcpStream::connect(&self.host)?;
        socket.set_read_timeout(Some(SILENCE))?;
        let (name, _) = self.host.rsplit_once(':').context("HOST:PORT")?;
        let name = ServerName::try_from(name.to_owned())?;
        let mut stream =
            StreamOwned::new(ClientConnection::new(Arc::clone(&self.tls), name)?, socket);
        write!(
            stream,
            "{what} HTTP/1.0\r\nHost: {}\r\nCookie: {}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {}\r\n\r\n{form}",
            self.host,
            self.cookie,
            form.len()
        )?;
        stream.flush()?;
        let mut answer = BufReader::new(stream);
        let mut line = String::new();
        answer.read_line(&mut line)?;
        let status = line.split(' ').nth(1).unwrap_or_default().to_owned();
        ensure!(
            matches!(status.as_str(), "200" | "303"),
            "{what}: the hub answered {}",
            line.trim()
        );
        let mut cookie = None;
        loop {
            line.clear();
            if answer.read_line(&mut line)? == 0 || line.trim().is_empty() {
                return Ok((answer, cookie));
            }
            let set = line
                .split_once(':')
                .filter(|(header, _)| header.eq_ignore_ascii_case("set-cookie"));
            if let Some((pair, _)) = set.and_then(|(_, value)| value.split_once(';'))
                && !pair.ends_with('=')
            {
                cookie = Some(pair.trim().to_owned());
            }
        }
    }
}
