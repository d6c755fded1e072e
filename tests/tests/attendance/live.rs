//! Live events, and what is punched while nobody listens.

use scc_common::record::{Cause, State, Way};
use scc_tests::proxy::Proxy;
use scc_tests::terminal::{Layout, Punched, Setup};
use tempfile::TempDir;

use super::database::{Database, SERIAL, truth};
use super::site::{Site, assert_same, terminal};

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
    let mut database = Database::new();
    database.take("rsud", &site.stopped().await).await;
    assert_eq!(database.punches(), truth(SERIAL, &terminal.log()));
}
