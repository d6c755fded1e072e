//! The attendance source against the stand-in terminal: what a punch may go through without being
//! lost, doubled or invented.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy knows tests by their attribute only, not the helpers of a test file"
)]

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use scc_agent::buffer::{Accepted, BufferError};
use scc_agent::capture::accept::Accept;
use scc_agent::capture::attendance::{Pace, TerminalSource};
use scc_agent::capture::board::Board;
use scc_agent::config;
use scc_common::clock::{Clock, ClockQuality, ManualClock, SharedClock, SystemClock};
use scc_common::id::{DeviceId, Epoch};
use scc_common::record::{
    Cause, Content, DeviceKind, DeviceState, Punch, PunchBatch, ReadProof, RecordBody, State, Way,
};
use scc_tests::proxy::Proxy;
use scc_tests::terminal::{Counter, Layout, Punched, SECRET_PASSWORD, Setup, Terminal};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// A buffer that keeps everything in memory, and can be full.
#[derive(Debug, Clone, Default)]
struct Shelf {
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
    full: Arc<AtomicBool>,
}

impl Accept for Shelf {
    async fn append(&self, body: &RecordBody) -> Result<Accepted, BufferError> {
        tokio::task::yield_now().await;
        if self.full.load(Ordering::SeqCst) {
            return Err(BufferError::Full("the test says so".into()));
        }
        let mut bodies = self.bodies.lock().unwrap();
        bodies.push(body.encode());
        Ok(Accepted {
            epoch: Epoch(1),
            stream: body.stream(),
            seq: u64::try_from(bodies.len()).unwrap(),
        })
    }

    async fn holds(&self, body: &RecordBody) -> Result<bool, BufferError> {
        Ok(self.bodies.lock().unwrap().contains(&body.encode()))
    }
}

impl Shelf {
    fn batches(&self) -> Vec<PunchBatch> {
        let bodies = self.bodies.lock().unwrap();
        bodies
            .iter()
            .map(|bytes| match RecordBody::decode(bytes).unwrap().content {
                Content::Punches(batch) => batch,
                other => panic!("a terminal yields punches, not {other:?}"),
            })
            .collect()
    }

    fn punches(&self) -> Vec<Punch> {
        self.batches().into_iter().flat_map(|b| b.punches).collect()
    }

    /// The proof in the newest batch, if that one is the last of a read.
    fn last_proof(&self) -> Option<ReadProof> {
        let bodies = self.bodies.lock().unwrap();
        match RecordBody::decode(bodies.last()?).unwrap().content {
            Content::Punches(batch) => batch.read,
            _ => None,
        }
    }

    fn proofs(&self) -> Vec<ReadProof> {
        self.batches().into_iter().filter_map(|b| b.read).collect()
    }
}

/// A source that runs, and all that it touches.
struct Site {
    shelf: Shelf,
    board: Board,
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

fn device() -> DeviceId {
    DeviceId::new("absensi").unwrap()
}

/// The waits of the sheet, shortened so that a test need not last minutes; their order is kept.
fn quick() -> Pace {
    let ms = Duration::from_millis;
    Pace {
        answer: ms(1_500),
        probe: ms(1_000),
        data_first: ms(1_500),
        data_next: ms(1_000),
        exit: ms(300),
        keep_alive: ms(700),
        settle: ms(150),
        refused: ms(200),
        reread: ms(400),
        retry_min: ms(50),
        retry_max: ms(200),
        retry_busy: ms(200),
        retry_hopeless: ms(300),
        ..Pace::default()
    }
}

impl Site {
    fn start(address: std::net::SocketAddr, dir: &TempDir, key: u32) -> Self {
        Self::start_with(
            address,
            dir,
            key,
            &SystemClockKnown::shared(),
            Shelf::default(),
        )
    }

    fn start_with(
        address: std::net::SocketAddr,
        dir: &TempDir,
        comm_key: u32,
        clock: &SharedClock,
        shelf: Shelf,
    ) -> Self {
        let terminal = config::Terminal {
            id: device(),
            host: address.ip().to_string(),
            port: address.port(),
            comm_key,
            utc_offset_min: 480,
            full_read_every_s: 3_600,
        };
        let (board, _) = Board::new(clock.clone());
        board.declare(&device(), DeviceKind::Terminal);
        let stop = CancellationToken::new();
        let source = TerminalSource::with_pace(terminal, dir.path().to_owned(), quick());
        let run = source.run_with(shelf.clone(), board.clone(), clock.clone(), stop.clone());
        Self {
            shelf,
            board,
            stop,
            task: AbortOnDropHandle::new(tokio::spawn(run)),
        }
    }

    fn state(&self) -> DeviceState {
        self.board.devices().remove(0)
    }

    async fn until(&self, what: &str, met: impl Fn(&Self) -> bool) {
        let waited = tokio::time::timeout(Duration::from_secs(60), async {
            while !met(self) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        assert!(
            waited.await.is_ok(),
            "in vain: {what}; {:?}, {} batches, {} punches, {:?}",
            self.state(),
            self.shelf.batches().len(),
            self.shelf.punches().len(),
            self.shelf.proofs().last(),
        );
    }

    async fn until_cause(&self, cause: Cause) -> DeviceState {
        self.until(cause.name(), |site| site.state().cause == Some(cause))
            .await;
        self.state()
    }

    async fn until_complete(&self, records: usize) {
        self.until("a complete read", |site| {
            site.shelf
                .last_proof()
                .is_some_and(|p| p.complete && usize::try_from(p.records) == Ok(records))
        })
        .await;
    }

    async fn stopped(self) -> Shelf {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(5), self.task)
            .await
            .expect("the source stops when told")
            .unwrap();
        self.shelf
    }
}

/// The system's clock, as if NTP had confirmed it.
#[derive(Debug, Default)]
struct SystemClockKnown(SystemClock);

impl SystemClockKnown {
    fn shared() -> SharedClock {
        Arc::new(Self::default())
    }
}

impl Clock for SystemClockKnown {
    fn wall_ms(&self) -> i64 {
        self.0.wall_ms()
    }
    fn mono_ms(&self) -> u64 {
        self.0.mono_ms()
    }
    fn quality(&self) -> ClockQuality {
        ClockQuality::Ntp
    }
    fn boot(&self) -> scc_common::id::BootId {
        self.0.boot()
    }
    fn hub_offset(&self, _: i64) {}
}

async fn terminal(setup: Setup) -> Terminal {
    Terminal::start(setup, SystemClock::shared()).await.unwrap()
}

/// Each punch of the log has come once: the same multiset of who and when.
fn assert_same(punches: &[Punch], log: &[Punched]) {
    let mut got: Vec<(String, i64)> = punches
        .iter()
        .map(|p| (p.user.clone(), p.local_s))
        .collect();
    let mut truth: Vec<(String, i64)> = log
        .iter()
        .map(|p| (p.user.to_string(), p.local_s))
        .collect();
    got.sort();
    truth.sort();
    assert_eq!(got.len(), truth.len());
    assert_eq!(got, truth);
    let identities: HashSet<_> = punches
        .iter()
        .map(|p| (&p.user, p.local_s, p.state, p.verify, p.ordinal))
        .collect();
    assert_eq!(
        identities.len(),
        punches.len(),
        "two punches of one identity"
    );
}

#[tokio::test]
async fn every_layout_is_read_to_the_last_record_with_its_proof() {
    for layout in Layout::ALL {
        for records in [1, 214] {
            let terminal = terminal(Setup {
                layout,
                records,
                comm_key: 1234,
                ..Setup::default()
            })
            .await;
            let dir = TempDir::new().unwrap();
            let site = Site::start(terminal.address(), &dir, 1234);
            site.until_complete(records).await;
            site.until("up", |s| s.state().state == State::Up).await;
            let shelf = site.stopped().await;
            assert_same(&shelf.punches(), &terminal.log());
            let batches = shelf.batches();
            for batch in &batches {
                assert_eq!(batch.serial, "CGKK223862906");
                assert_eq!((batch.way, batch.utc_offset_min), (Way::Pull, 480));
                assert!(batch.punches.len() <= 200);
                assert!(
                    batch.drift_ms.unwrap().abs() < 3_000,
                    "{:?}",
                    batch.drift_ms
                );
            }
            let proof = batches
                .last()
                .unwrap()
                .read
                .clone()
                .expect("the last batch proves");
            let days: u32 = proof.per_day.iter().map(|(_, n)| n).sum();
            let newest = terminal.log().last().unwrap().local_s;
            let of_newest_day = terminal
                .log()
                .iter()
                .filter(|p| p.local_s.div_euclid(86_400) == newest.div_euclid(86_400))
                .count();
            assert_eq!(usize::try_from(proof.per_day[0].1), Ok(of_newest_day));
            assert!(usize::try_from(days).unwrap() <= records);
            for bytes in shelf.bodies.lock().unwrap().iter() {
                assert!(bytes.len() < 32 * 1024, "{} bytes", bytes.len());
                assert!(
                    !bytes.windows(5).any(|w| w == SECRET_PASSWORD),
                    "a password left the parser"
                );
            }
            let heard = terminal.heard();
            assert!(heard.iter().all(|(_, sum_ok)| *sum_ok));
            let harmless = [
                11, 50, 201, 500, 1000, 1001, 1100, 1102, 1502, 1503, 1504, 2000,
            ];
            assert!(
                heard.iter().all(|(code, _)| harmless.contains(code)),
                "{heard:?}"
            );
            assert_eq!(heard.last().unwrap().0, 1001, "it leaves properly");
        }
    }
}

#[tokio::test]
async fn an_old_firmware_without_the_buffered_read_is_read_directly() {
    let terminal = terminal(Setup {
        layout: Layout::EightA,
        ..Setup::default()
    })
    .await;
    terminal.faults(|f| f.refuse_buffered = true);
    let dir = TempDir::new().unwrap();
    let site = Site::start(terminal.address(), &dir, 0);
    site.until_complete(214).await;
    assert_same(&site.stopped().await.punches(), &terminal.log());
}

#[tokio::test]
async fn a_log_that_grows_while_it_is_read_is_read_to_its_end() {
    let terminal = terminal(Setup::default()).await;
    terminal.faults(|f| f.grow = 3);
    let dir = TempDir::new().unwrap();
    let site = Site::start(terminal.address(), &dir, 0);
    site.until("one proof", |s| !s.shelf.proofs().is_empty())
        .await;
    let first = site.shelf.proofs()[0].clone();
    assert!(first.complete, "{first:?}");
    assert_eq!(
        (first.counter_before, first.records, first.counter_after),
        (Some(214), 214, Some(217))
    );
    terminal.faults(|f| f.grow = 0);
    let all = terminal.log().len();
    site.until_complete(all).await;
    assert_same(&site.stopped().await.punches(), &terminal.log());
}

#[tokio::test]
async fn a_connection_cut_anywhere_yields_all_or_a_named_incomplete() {
    let seed = 7;
    println!("seed {seed}");
    let mut rng = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(seed);
    let terminal = terminal(Setup {
        records: 2_000,
        ..Setup::default()
    })
    .await;
    for _ in 0..12 {
        let cut = rand::Rng::random_range(&mut rng, 1..81_000);
        terminal.faults(|f| f.reset_after = Some(cut));
        let dir = TempDir::new().unwrap();
        let site = Site::start(terminal.address(), &dir, 0);
        site.until("a fault or all", |s| {
            s.state().cause.is_some_and(|c| c != Cause::Starting) || !s.shelf.proofs().is_empty()
        })
        .await;
        if site.shelf.proofs().is_empty() {
            assert!(
                site.shelf.punches().is_empty(),
                "cut at {cut}: a part was taken for all"
            );
            let state = site.state();
            assert!(
                matches!(
                    state.cause,
                    Some(Cause::Incomplete | Cause::Offline | Cause::Busy)
                ),
                "cut at {cut}: {state:?}"
            );
        }
        site.until_complete(2_000).await;
        assert_same(&site.stopped().await.punches(), &terminal.log());
    }
}

#[tokio::test]
async fn a_log_of_a_hundred_thousand_comes_whole_in_small_pieces() {
    let terminal = terminal(Setup {
        records: 100_000,
        ..Setup::default()
    })
    .await;
    terminal.faults(|f| (f.split, f.data_packet) = (Some(1_009), Some(16_000)));
    let dir = TempDir::new().unwrap();
    let site = Site::start(terminal.address(), &dir, 0);
    site.until_complete(100_000).await;
    assert_same(&site.stopped().await.punches(), &terminal.log());
    // a second agent run over the same state hands nothing over again
    let site = Site::start(terminal.address(), &dir, 0);
    site.until_complete(100_000).await;
    assert_eq!(site.stopped().await.punches(), []);
}

#[tokio::test]
async fn one_byte_per_write_changes_nothing() {
    let terminal = terminal(Setup::default()).await;
    terminal.faults(|f| f.split = Some(1));
    let dir = TempDir::new().unwrap();
    let site = Site::start(terminal.address(), &dir, 0);
    site.until_complete(214).await;
    assert_same(&site.stopped().await.punches(), &terminal.log());
}

#[tokio::test]
async fn a_slice_that_ends_early_is_asked_for_again_and_given_up_with_its_name() {
    let terminal = terminal(Setup::default()).await;
    terminal.faults(|f| f.spoil = 2);
    let dir = TempDir::new().unwrap();
    let site = Site::start(terminal.address(), &dir, 0);
    site.until_complete(214).await;
    let visits = |t: &Terminal| t.heard().iter().filter(|(c, _)| *c == 1000).count();
    assert_eq!(visits(&terminal), 1, "two spoilt slices cost no session");
    site.stopped().await;

    terminal.faults(|f| f.truncate = true);
    let dir = TempDir::new().unwrap();
    let site = Site::start(terminal.address(), &dir, 0);
    let state = site.until_cause(Cause::Incomplete).await;
    assert_eq!(state.state, State::Degraded);
    assert!(site.shelf.batches().is_empty());
    terminal.faults(|f| f.truncate = false);
    site.until_complete(214).await;
}

#[tokio::test]
async fn a_punch_that_is_announced_and_logged_is_one_punch_and_comes_at_once() {
    for (layout, tail) in [
        (Layout::Forty, 0),
        (Layout::Forty, 5),
        (Layout::FortyNine, 20),
        (Layout::Sixteen, 0),
        (Layout::EightA, 4),
        (Layout::EightB, 0),
    ] {
        let terminal = terminal(Setup {
            layout,
            records: 50,
            ..Setup::default()
        })
        .await;
        terminal.faults(|f| f.event_tail = tail);
        let dir = TempDir::new().unwrap();
        let site = Site::start(terminal.address(), &dir, 0);
        site.until_complete(50).await;
        site.until("listening", |_| {
            terminal.heard().iter().any(|(c, _)| *c == 500)
        })
        .await;
        let user = terminal.log()[0].user;
        let punched = terminal.punch(user);
        terminal.announce(punched.clone());
        site.until("the live punch", |s| {
            s.shelf.batches().iter().any(|b| b.way == Way::Live)
        })
        .await;
        site.until_complete(51).await;
        terminal.announce(punched.clone());
        site.until("the confirmations", |_| {
            terminal.heard().iter().filter(|(c, _)| *c == 2000).count() >= 3
        })
        .await;
        let shelf = site.stopped().await;
        assert_same(&shelf.punches(), &terminal.log());
        let live: Vec<_> = shelf
            .batches()
            .into_iter()
            .filter(|b| b.way == Way::Live)
            .flat_map(|b| b.punches)
            .collect();
        assert_eq!(live.len(), 1, "{layout:?}");
        assert_eq!(live[0].local_s, punched.local_s);
        assert_eq!(live[0].user, punched.user.to_string());
    }
}

#[tokio::test]
async fn an_event_of_unknown_length_is_no_punch_but_a_reason_to_read() {
    let terminal = terminal(Setup {
        layout: Layout::EightA,
        records: 50,
        ..Setup::default()
    })
    .await;
    // ten bytes and seven more: no length of the sheet
    terminal.faults(|f| f.event_tail = 7);
    let dir = TempDir::new().unwrap();
    let site = Site::start(terminal.address(), &dir, 0);
    site.until_complete(50).await;
    site.until("listening", |_| {
        terminal.heard().iter().any(|(c, _)| *c == 500)
    })
    .await;
    terminal.punch(terminal.log()[0].user);
    site.until_complete(51).await;
    let shelf = site.stopped().await;
    assert!(shelf.batches().iter().all(|b| b.way == Way::Pull));
    assert_same(&shelf.punches(), &terminal.log());
}

#[tokio::test]
async fn the_same_punch_twice_in_the_log_is_kept_twice_with_ordinals() {
    let terminal = terminal(Setup {
        layout: Layout::Sixteen,
        records: 10,
        ..Setup::default()
    })
    .await;
    let again = terminal.log()[3].clone();
    terminal.remember(vec![again.clone(), again.clone()]);
    let dir = TempDir::new().unwrap();
    let site = Site::start(terminal.address(), &dir, 0);
    site.until_complete(12).await;
    let punches = site.stopped().await.punches();
    assert_same(&punches, &terminal.log());
    let mut ordinals: Vec<u16> = punches
        .iter()
        .filter(|p| (p.user.clone(), p.local_s) == (again.user.to_string(), again.local_s))
        .map(|p| p.ordinal)
        .collect();
    ordinals.sort_unstable();
    assert_eq!(ordinals, [0, 1, 2]);
}

#[tokio::test]
async fn the_cursor_stays_while_the_buffer_is_full() {
    let terminal = terminal(Setup::default()).await;
    let dir = TempDir::new().unwrap();
    let shelf = Shelf::default();
    shelf.full.store(true, Ordering::SeqCst);
    let clock = SystemClockKnown::shared();
    let site = Site::start_with(terminal.address(), &dir, 0, &clock, shelf.clone());
    site.until_cause(Cause::BufferFull).await;
    site.stopped().await;
    assert!(shelf.batches().is_empty());
    // another life of the agent, still full, then with room
    let site = Site::start_with(terminal.address(), &dir, 0, &clock, shelf.clone());
    site.until_cause(Cause::BufferFull).await;
    shelf.full.store(false, Ordering::SeqCst);
    site.until_complete(214).await;
    site.until("up", |s| s.state().state == State::Up).await;
    site.stopped().await;
    assert_same(&shelf.punches(), &terminal.log());
}

#[tokio::test]
async fn what_was_punched_while_the_link_was_down_comes_at_reconnect_and_nothing_twice() {
    let terminal = terminal(Setup::default()).await;
    let proxy = Proxy::start(terminal.address()).await.unwrap();
    let dir = TempDir::new().unwrap();
    let site = Site::start(proxy.address(), &dir, 0);
    site.until_complete(214).await;
    proxy.weather(|w| w.refuse = true);
    proxy.cut();
    site.until("down", |s| s.state().state == State::Down).await;
    for user in [11_111, 22_222, 33_333] {
        terminal.punch(user);
    }
    proxy.weather(|w| w.refuse = false);
    site.until_complete(217).await;
    site.until("up", |s| s.state().state == State::Up).await;
    assert_same(&site.shelf.punches(), &terminal.log());

    // a terminal that falls silent without closing, as after a power cut
    proxy.weather(|w| (w.stall_up, w.stall_down, w.half_open) = (true, true, true));
    site.until_cause(Cause::Silent).await;
    terminal.punch(44_444);
    proxy.weather(|w| *w = scc_tests::proxy::Weather::default());
    site.until_complete(218).await;
    assert_same(&site.stopped().await.punches(), &terminal.log());
}

#[tokio::test]
async fn each_fault_has_its_name_and_passes_when_it_is_over() {
    type Set = fn(&mut scc_tests::terminal::Faults, bool);
    let faults: [(Cause, Set); 5] = [
        (Cause::Silent, |f, on| f.silent = on),
        (Cause::Garbage, |f, on| f.garbage = on),
        (Cause::Encrypted, |f, on| f.encrypted = on),
        (Cause::KeyRefused, |f, on| f.refuse_key = on),
        (Cause::UnknownFormat, |f, on| f.rubbish = on),
    ];
    for (cause, set) in faults {
        let terminal = terminal(Setup {
            comm_key: 99,
            ..Setup::default()
        })
        .await;
        terminal.faults(|f| set(f, true));
        let dir = TempDir::new().unwrap();
        let site = Site::start(terminal.address(), &dir, 99);
        let state = site.until_cause(cause).await;
        assert_eq!(state.state, State::Down, "{cause:?}");
        assert!(!state.detail.unwrap().contains("99"), "a key in a detail");
        assert!(site.shelf.batches().is_empty());
        if cause == Cause::UnknownFormat {
            let kept = dir.path().join("terminals/absensi.unknown");
            assert!(
                std::fs::read(kept).unwrap().len() > 200,
                "kept for diagnosis"
            );
        }
        terminal.faults(|f| set(f, false));
        site.until_complete(214).await;
        site.until("up", |s| s.state().state == State::Up).await;
    }
}

#[tokio::test]
async fn nobody_there_and_a_wrong_name_are_told_apart() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let dir = TempDir::new().unwrap();
    let site = Site::start(address, &dir, 0);
    site.until_cause(Cause::Refused).await;
    let terminal = Terminal::start_at(Setup::default(), SystemClock::shared(), address)
        .await
        .unwrap();
    site.until_complete(214).await;
    assert_same(&site.stopped().await.punches(), &terminal.log());

    let clock = SystemClockKnown::shared();
    let (board, _) = Board::new(clock.clone());
    board.declare(&device(), DeviceKind::Terminal);
    let stop = CancellationToken::new();
    let source = TerminalSource::with_pace(
        config::Terminal {
            id: device(),
            host: "terminal.invalid".into(),
            port: 4370,
            comm_key: 0,
            utc_offset_min: 480,
            full_read_every_s: 3_600,
        },
        dir.path().to_owned(),
        quick(),
    );
    let run = source.run_with(Shelf::default(), board.clone(), clock, stop.clone());
    let site = Site {
        shelf: Shelf::default(),
        board,
        stop,
        task: AbortOnDropHandle::new(tokio::spawn(run)),
    };
    site.until_cause(Cause::Unresolved).await;
    site.stopped().await;
}

#[tokio::test]
async fn a_second_reader_is_told_busy_and_gets_its_turn() {
    let terminal = terminal(Setup {
        one_session: true,
        ..Setup::default()
    })
    .await;
    let (first_dir, second_dir) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let first = Site::start(terminal.address(), &first_dir, 0);
    first.until_complete(214).await;
    let second = Site::start(terminal.address(), &second_dir, 0);
    second.until_cause(Cause::Busy).await;
    first.stopped().await;
    second.until_complete(214).await;
}

#[tokio::test]
async fn a_counter_that_lies_or_lacks_makes_a_read_incomplete_never_smaller() {
    for (counter, complete) in [
        (Counter::Says(0), false),
        (Counter::Says(107), false),
        (Counter::Says(1_250), false),
        (Counter::Absent, false),
        (Counter::Right, true),
    ] {
        let terminal = terminal(Setup::default()).await;
        terminal.faults(|f| f.counter = counter);
        let dir = TempDir::new().unwrap();
        let site = Site::start(terminal.address(), &dir, 0);
        site.until("a proof", |s| !s.shelf.proofs().is_empty())
            .await;
        let proof = site.shelf.proofs().remove(0);
        assert_eq!(
            (proof.complete, proof.records),
            (complete, 214),
            "{counter:?}"
        );
        if complete {
            site.until("up", |s| s.state().state == State::Up).await;
        } else {
            let state = site.until_cause(Cause::Incomplete).await;
            assert_eq!(state.state, State::Degraded);
            assert!(state.detail.unwrap().contains("214"));
        }
        assert_same(&site.stopped().await.punches(), &terminal.log());
    }
}

#[tokio::test]
async fn an_empty_log_is_believed_only_when_the_counter_is_zero() {
    let terminal = terminal(Setup {
        records: 0,
        ..Setup::default()
    })
    .await;
    let dir = TempDir::new().unwrap();
    let site = Site::start(terminal.address(), &dir, 0);
    site.until_complete(0).await;
    site.stopped().await;
    terminal.faults(|f| f.counter = Counter::Says(5));
    let site = Site::start(terminal.address(), &dir, 0);
    let state = site.until_cause(Cause::Incomplete).await;
    assert!(state.detail.unwrap().contains("the terminal counts 5"));
}

#[tokio::test]
async fn drift_is_measured_told_beyond_a_minute_and_unknown_to_an_unconfirmed_clock() {
    let terminal = terminal(Setup {
        drift_s: -90,
        ..Setup::default()
    })
    .await;
    let dir = TempDir::new().unwrap();
    let site = Site::start(terminal.address(), &dir, 0);
    let state = site.until_cause(Cause::ClockDrift).await;
    assert_eq!(state.state, State::Degraded);
    let drift = site.shelf.batches()[0].drift_ms.unwrap();
    assert!((-92_000..=-89_000).contains(&drift), "{drift}");
    // set right by hand: noticed by the probe, without a new session
    terminal.drift(0);
    site.until("up", |s| s.state().state == State::Up).await;
    site.stopped().await;

    let clock = ManualClock::at(0);
    clock.set_quality(ClockQuality::Unconfirmed);
    let clock: SharedClock = clock;
    let dir = TempDir::new().unwrap();
    let site = Site::start_with(terminal.address(), &dir, 0, &clock, Shelf::default());
    site.until_complete(214).await;
    let shelf = site.stopped().await;
    assert!(shelf.batches().iter().all(|b| b.drift_ms.is_none()));
    assert_same(&shelf.punches(), &terminal.log());
}

#[tokio::test]
async fn a_wrong_key_is_not_hammered() {
    let terminal = terminal(Setup {
        comm_key: 5,
        ..Setup::default()
    })
    .await;
    let dir = TempDir::new().unwrap();
    let site = Site::start(terminal.address(), &dir, 6);
    site.until_cause(Cause::KeyRefused).await;
    let heard = terminal.heard();
    assert!(
        heard.iter().filter(|(c, _)| *c == 1102).count() <= 2,
        "{heard:?}"
    );
    site.stopped().await;
    assert_eq!(
        terminal.heard().last().unwrap().0,
        1001,
        "even a refused guest leaves properly"
    );
}

#[tokio::test]
async fn a_cleared_log_is_read_on_and_nothing_comes_twice() {
    let terminal = terminal(Setup::default()).await;
    let dir = TempDir::new().unwrap();
    let site = Site::start(terminal.address(), &dir, 0);
    site.until_complete(214).await;
    let before = terminal.log();
    terminal.clear();
    terminal.punch(12_345);
    site.until_complete(1).await;
    let shelf = site.stopped().await;
    assert_same(&shelf.punches(), &[before, terminal.log()].concat());
}

#[tokio::test]
async fn an_event_that_differs_from_the_log_in_state_is_still_the_same_punch() {
    let terminal = terminal(Setup::default()).await;
    let dir = TempDir::new().unwrap();
    let site = Site::start(terminal.address(), &dir, 0);
    site.until_complete(214).await;
    site.until("listening", |_| {
        terminal.heard().iter().any(|(c, _)| *c == 500)
    })
    .await;
    let logged = Punched {
        state: 255,
        ..terminal.log()[213].clone()
    };
    let logged = Punched {
        user: logged.user + 1,
        ..logged
    };
    terminal.remember(vec![logged.clone()]);
    terminal.announce(Punched { state: 1, ..logged });
    site.until_complete(215).await;
    assert_same(&site.stopped().await.punches(), &terminal.log());
}

#[tokio::test]
async fn the_programs_say_where_they_listen_obey_and_end_with_their_parent() {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};
    let start = |mut command: Command| {
        let mut child = command
            .arg("--with-parent")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = said.next().unwrap().unwrap();
        let address: std::net::SocketAddr =
            line.strip_prefix("listening ").unwrap().parse().unwrap();
        (child, said, address)
    };
    let dir = TempDir::new().unwrap();
    let truth = dir.path().join("truth.jsonl");
    let mut terminal = Command::new(env!("CARGO_BIN_EXE_stand-in-terminal"));
    terminal.args(["--layout", "16", "--records", "20", "--truth"]);
    terminal.arg(&truth);
    let (mut terminal, mut terminal_said, address) = start(terminal);
    let mut proxy = Command::new(env!("CARGO_BIN_EXE_stand-in-proxy"));
    proxy.args(["--to", &address.to_string()]);
    let (mut proxy, mut proxy_said, address) = start(proxy);

    let site = Site::start(address, &dir, 0);
    site.until_complete(20).await;
    writeln!(terminal.stdin.as_ref().unwrap(), "punch 31337").unwrap();
    assert!(terminal_said.next().unwrap().unwrap().starts_with("ok {"));
    site.until_complete(21).await;
    writeln!(proxy.stdin.as_ref().unwrap(), "cut").unwrap();
    assert_eq!(proxy_said.next().unwrap().unwrap(), "ok ");
    site.until("reconnected", |s| s.shelf.proofs().len() >= 3)
        .await;
    let mut got: Vec<(String, i64)> = site
        .stopped()
        .await
        .punches()
        .into_iter()
        .map(|p| (p.user, p.local_s))
        .collect();
    let mut told: Vec<(String, i64)> = std::fs::read_to_string(&truth)
        .unwrap()
        .lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let user = line["user"].as_str().unwrap().to_owned();
            (user, line["local_s"].as_i64().unwrap())
        })
        .collect();
    got.sort();
    told.sort();
    assert_eq!(got, told);
    for child in [&mut terminal, &mut proxy] {
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
    }
}
