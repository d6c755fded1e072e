//! The pages, the API, and the doors to them.
//!
//! Promise: HTTPS only; nothing comes from outside; nobody sees another agency's site in a page, the
//! API, the event stream or the media. A page is a list of *parts*; the event stream renders the same
//! parts again when there is news and sends those that differ, so there is one way to show a thing.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use metrics_exporter_prometheus::PrometheusHandle;
use scc_common::clock::SharedClock;
use scc_common::identity::IdentityError;
use scc_common::lang::Lang;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower_http::compression::CompressionLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::TimeoutLayer;

use crate::config;
use crate::fleet::{Fleet, Snapshot};
use crate::ingest;
use crate::media::Media;
use crate::renewal::Told;
use crate::store::Store;
use crate::store::fleet::Declared;

mod api;
mod assets;
mod attendance;
mod events;
mod headers;
mod hub;
mod limit;
mod login;
mod media;
mod ops;
pub(crate) mod overview;
mod page;
pub mod password;
mod receipt;
mod refuse;
mod seats;
mod session;
mod site;
pub(crate) mod text;
mod tls;

use refuse::Refused;
use text::T;

/// Why the pages cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// Certificate or key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// rustls refused the material.
    #[error("the TLS library refused the web identity: {0}")]
    Tls(#[from] rustls::Error),
    /// The address is taken or not ours.
    #[error("`web.listen`: {listen} cannot be listened on: {why}")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// What the system said.
        why: String,
    },
}

impl WebError {
    /// The file that is to blame, where there is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Identity(error) => error.file(),
            Self::Tls(_) | Self::Listen { .. } => None,
        }
    }
}

/// What the pages are made of.
#[derive(Debug)]
pub struct Parts {
    /// The database.
    pub store: Store,
    /// The live state.
    pub fleet: Fleet,
    /// Pictures and video.
    pub media: Media,
    /// Time.
    pub clock: SharedClock,
    /// The process's own numbers.
    pub metrics: PrometheusHandle,
    /// How ingest is, asked by `/healthz`.
    pub ingest: watch::Receiver<ingest::Status>,
    /// What the daily comparison has found.
    pub missing: watch::Receiver<Option<ingest::Trouble>>,
    /// Where gate and pages tell what is wrong with their certificates' files.
    pub files: Told,
    /// Ends the event streams when the hub stops.
    pub stop: CancellationToken,
}

/// Shared by all handlers. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct App {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) fleet: Fleet,
    pub(crate) media: Media,
    pub(crate) clock: SharedClock,
    metrics: PrometheusHandle,
    ingest: watch::Receiver<ingest::Status>,
    missing: watch::Receiver<Option<ingest::Trouble>>,
    files: Told,
    stop: CancellationToken,
    limit: limit::LoginLimit,
    /// Open event streams, by session.
    streams: seats::Seats<[u8; 32]>,
    /// Whether the last session could not be noted as used.
    untouched: AtomicBool,
}

impl std::ops::Deref for App {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.inner
    }
}

/// Connections at one time. A browser needs one (HTTP/2), or six; a county has tens of them.
const CONNECTIONS: usize = 1_000;
/// Of these, from one address. Some offices stand behind one router.
const CONNECTIONS_PER_ADDRESS: usize = 64;
/// Event streams of one session: as many tabs as anybody can look at.
const STREAMS_PER_SESSION: usize = 16;
/// Event streams of everybody; each holds a task that renders.
const STREAMS: usize = 512;
/// From a request's head to the head of its answer, its body and all; event streams answer at once.
const REQUEST: Duration = Duration::from_secs(30);
/// An HTTP/2 peer that has gone is noticed within twice this.
const ALIVE: Duration = Duration::from_secs(20);
/// Requests at one time on one HTTP/2 connection.
const AT_ONCE: u32 = 64;

/// The cookie that remembers a language.
const LANG: &str = "scc_bahasa";

impl App {
    /// The words for whoever sent these headers: the chosen language, else Indonesian.
    pub(crate) fn t(&self, headers: &HeaderMap) -> T {
        let lang = session::cookie(headers, LANG).map_or(Lang::Id, Lang::from_code);
        self.words(lang, &self.fleet.now())
    }

    pub(crate) fn words(&self, lang: Lang, snapshot: &Snapshot) -> T {
        let zone = Declared::zone(snapshot.declared.as_deref());
        T::new(lang, zone, self.clock.wall_ms())
    }
}

fn router(app: App) -> Router {
    Router::new()
        .route("/", get(overview::page))
        .route("/lokasi", get(overview::sites_page))
        .route("/lokasi/{site}", get(site::page))
        .route("/lokasi/{site}/tanda-terima", get(receipt::choose))
        .route("/lokasi/{site}/tanda-terima/{day}", get(receipt::page))
        .route("/absensi", get(attendance::page))
        .route("/masuk", get(login::form).post(login::enter))
        .route("/keluar", post(login::leave))
        .route("/bahasa/{code}", get(login::language))
        .route("/events", get(events::stream))
        .route("/media/{record}", get(media::stored))
        .route("/media/kini/{site}/{device}", get(media::still))
        .nest("/api/v1", api::router())
        .route("/metrics", get(ops::metrics))
        .route("/healthz", get(ops::healthz))
        .route("/assets/{version}/{name}", get(assets::file))
        .fallback(|| async { Refused::NotFound })
        .layer(RequestBodyLimitLayer::new(16 * 1024))
        .layer(TimeoutLayer::with_status_code(
            StatusCode::REQUEST_TIMEOUT,
            REQUEST,
        ))
        .layer(axum::middleware::from_fn_with_state(
            app.clone(),
            refuse::explain,
        ))
        .layer(axum::middleware::from_fn(headers::protect))
        .layer(CompressionLayer::new())
        .with_state(app)
}

/// A running web server.
#[derive(Debug)]
pub struct Web {
    /// Where it listens.
    pub address: SocketAddr,
    /// Ends when `stop` is cancelled and open answers are finished, at most 3 s later.
    pub task: tokio::task::JoinHandle<std::io::Result<()>>,
}

/// An address and a certificate to serve pages with, and nobody served yet.
#[derive(Debug)]
pub struct Opened {
    certificate: tls::Certificate,
    listener: std::net::TcpListener,
    configured: SocketAddr,
}

/// Reads the certificate and takes the address.
///
/// # Errors
/// [`WebError`] names the file or address that is wrong.
pub fn open(config: &config::Web) -> Result<Opened, WebError> {
    let certificate = tls::Certificate::load(config)?;
    let listener =
        std::net::TcpListener::bind(config.listen).map_err(|e| cannot_listen(config.listen, &e))?;
    Ok(Opened {
        certificate,
        listener,
        configured: config.listen,
    })
}

fn cannot_listen(listen: SocketAddr, why: &std::io::Error) -> WebError {
    WebError::Listen {
        listen,
        why: why.to_string(),
    }
}

impl Opened {
    /// Begins to serve pages over HTTPS.
    ///
    /// # Errors
    /// [`WebError`] if the system takes the address away again.
    pub fn serve(self, parts: Parts) -> Result<Web, WebError> {
        let listen = |e: std::io::Error| cannot_listen(self.configured, &e);
        self.listener.set_nonblocking(true).map_err(listen)?;
        let address = self.listener.local_addr().map_err(listen)?;
        let stop = parts.stop.clone();
        let clock = Arc::clone(&parts.clock);
        let app = App {
            inner: Arc::new(Inner {
                store: parts.store,
                fleet: parts.fleet,
                media: parts.media,
                clock: parts.clock,
                metrics: parts.metrics,
                ingest: parts.ingest,
                missing: parts.missing,
                files: parts.files.clone(),
                stop: parts.stop,
                limit: limit::LoginLimit::new(),
                streams: seats::Seats::new(STREAMS, STREAMS_PER_SESSION),
                untouched: AtomicBool::new(false),
            }),
        };
        let handle = axum_server::Handle::new();
        let tls = self.certificate.served();
        let door = seats::Door(seats::Seats::new(CONNECTIONS, CONNECTIONS_PER_ADDRESS));
        let acceptor = axum_server::tls_rustls::RustlsAcceptor::new(tls).acceptor(door);
        let mut server = axum_server::from_tcp(self.listener)
            .map_err(listen)?
            .acceptor(acceptor)
            .handle(handle.clone())
            .first_request_timeout(Duration::from_secs(20));
        server
            .http_builder()
            .http1()
            .header_read_timeout(Duration::from_secs(60))
            .http2()
            .keep_alive_interval(ALIVE)
            .keep_alive_timeout(ALIVE)
            .max_concurrent_streams(AT_ONCE);
        let service = router(app).into_make_service_with_connect_info::<SocketAddr>();
        let task = tokio::spawn(server.serve(service));
        let watch = self.certificate.watch(parts.files, move || clock.wall_ms());
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = watch => stop.cancelled().await,
            }
            handle.graceful_shutdown(Some(Duration::from_secs(3)));
        });
        Ok(Web { address, task })
    }
}
