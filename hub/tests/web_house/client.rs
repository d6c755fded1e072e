//! A small HTTPS client that keeps cookies and hides nothing of the answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{House, PASSWORD};

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = |l: &&str| {
            l.split(':')
                .next()
                .is_some_and(|n| n.eq_ignore_ascii_case(name))
        };
        self.head
            .lines()
            .find(found)?
            .split_once(':')
            .map(|(_, v)| v.trim())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
}

/// Somebody at a browser.
pub(crate) struct Browser<'a> {
    house: &'a House,
    pub(crate) cookies: BTreeMap<String, String>,
    /// What this browser has kept of a picture, as it would ask whether it is still good.
    pub(crate) kept: Option<String>,
}

impl<'a> Browser<'a> {
    pub(crate) fn new(house: &'a House) -> Self {
        Self {
            house,
            cookies: BTreeMap::new(),
            kept: None,
        }
    }

    /// Somebody who has logged in.
    pub(crate) async fn of(house: &'a House, user: &str) -> Self {
        let mut browser = Self::new(house);
        let answer = browser.log_in(user, PASSWORD).await;
        assert_eq!(answer.status, 303, "{}", answer.text());
        browser
    }

    pub(crate) async fn log_in(&mut self, user: &str, password: &str) -> Answer {
        let form = self.get("/masuk").await.text();
        let csrf = between(&form, "name=\"csrf\" value=\"", "\"");
        let body = format!(
            "nama={user}&sandi={}&csrf={csrf}&ke=%2F",
            password.replace(' ', "+")
        );
        self.post("/masuk", &body).await
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.send("GET", path, "").await
    }

    pub(crate) async fn post(&mut self, path: &str, body: &str) -> Answer {
        self.send("POST", path, body).await
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        let mut config = rustls::ClientConfig::builder()
            .with_root_certificates(self.house.root.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let stream = TcpStream::connect(self.house.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .unwrap()
    }

    fn request(&self, method: &str, path: &str, body: &str) -> String {
        let cookies: Vec<_> = self
            .cookies
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        let kept = self.kept.as_ref();
        let kept = kept.map_or_else(String::new, |tag| format!("If-None-Match: {tag}\r\n"));
        let form = if method == "POST" {
            "Content-Type: application/x-www-form-urlencoded\r\n"
        } else {
            ""
        };
        format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nCookie: {}\r\n{kept}{form}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            cookies.join("; "),
            body.len()
        )
    }

    pub(crate) async fn send(&mut self, method: &str, path: &str, body: &str) -> Answer {
        let mut stream = self.connect().await;
        stream
            .write_all(self.request(method, path, body).as_bytes())
            .await
            .unwrap();
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes);
        // a close without close_notify after a whole answer is as good
        let _ = tokio::time::timeout(Duration::from_secs(20), read)
            .await
            .expect("an answer");
        let at = bytes
            .windows(4)
            .position(|w| w == b"\r\n\r\n")
            .expect("a head");
        let head = String::from_utf8_lossy(&bytes[..at]).into_owned();
        let mut body = bytes.split_off(at + 4);
        if head
            .to_ascii_lowercase()
            .contains("transfer-encoding: chunked")
        {
            body = unchunk(&body);
        }
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        for line in head
            .lines()
            .filter(|l| l.to_ascii_lowercase().starts_with("set-cookie:"))
        {
            let pair = line
                .split_once(':')
                .unwrap()
                .1
                .trim()
                .split(';')
                .next()
                .unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            if value.is_empty() {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        Answer { status, head, body }
    }

    /// Opens an event stream and reads until `enough` says so, at most ten seconds.
    pub(crate) async fn events(&self, path: &str) -> Events {
        let mut stream = self.connect().await;
        stream
            .write_all(self.request("GET", path, "").as_bytes())
            .await
            .unwrap();
        Events {
            stream,
            text: String::new(),
        }
    }
}

/// An open event stream.
pub(crate) struct Events {
    stream: TlsStream<TcpStream>,
    text: String,
}

impl Events {
    /// Waits until the text since the last call holds all of `words`; gives that text and how long it took.
    pub(crate) async fn until(&mut self, words: &[&str], bound: Duration) -> (String, Duration) {
        let begun = tokio::time::Instant::now();
        loop {
            if words.iter().all(|w| self.text.contains(w)) {
                return (std::mem::take(&mut self.text), begun.elapsed());
            }
            let mut piece = [0; 16 * 1024];
            let left = bound
                .checked_sub(begun.elapsed())
                .unwrap_or_else(|| panic!("no {words:?} in {}", self.text));
            match tokio::time::timeout(left, self.stream.read(&mut piece)).await {
                Ok(Ok(n)) if n > 0 => self.text.push_str(&String::from_utf8_lossy(&piece[..n])),
                other => panic!("{other:?} before {words:?} in {}", self.text),
            }
        }
    }
}

fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(at) = bytes.windows(2).position(|w| w == b"\r\n") {
        let size = usize::from_str_radix(String::from_utf8_lossy(&bytes[..at]).trim(), 16).unwrap();
        if size == 0 {
            break;
        }
        out.extend_from_slice(&bytes[at + 2..at + 2 + size]);
        bytes = &bytes[at + 4 + size..];
    }
    out
}

pub(crate) fn between<'t>(text: &'t str, from: &str, to: &str) -> &'t str {
    let at = text
        .find(from)
        .unwrap_or_else(|| panic!("no {from} in {text}"))
        + from.len();
    text[at..].split(to).next().unwrap()
}
