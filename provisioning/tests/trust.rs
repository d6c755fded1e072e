//! What the certificates are worth, judged by the verifiers that the gate and the agents use.

#![expect(
    clippy::unwrap_used,
    reason = "clippy's allowance for tests does not reach their helpers"
)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring::default_provider;
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, Error as TlsError};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use scc_common::clock::ManualClock;
use scc_common::id::AgentId;
use scc_common::identity;
use scc_common::lang::Lang;
use scc_provision::profile::Serial;
use scc_provision::{Authority, Error, hub, listing, site};
use tempfile::TempDir;

/// 2026-11-24 00:00 UTC.
const START_MS: i64 = 1_795_478_400_000;
const DAY_S: i64 = 86_400;

struct Bench {
    dir: TempDir,
    clock: Arc<ManualClock>,
}

impl Bench {
    fn new() -> Self {
        let bench = Self {
            dir: tempfile::tempdir().unwrap(),
            clock: ManualClock::at(START_MS),
        };
        Authority::init(&bench.at("authority"), "Uji", &*bench.clock).unwrap();
        bench
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn open(&self) -> Authority {
        Authority::open(&self.at("authority")).unwrap()
    }

    fn site(&self, name: &str, out: &str) -> Vec<CertificateDer<'static>> {
        let out = self.at(out);
        site::issue(&mut self.open(), &id(name), 397, &out, false, &*self.clock).unwrap();
        identity::certificates(&out.join(site::CERTIFICATE)).unwrap()
    }

    fn hub(&self) -> Vec<CertificateDer<'static>> {
        let names = hub::Names {
            dns: vec!["hub.scc".into()],
            addresses: vec!["10.0.0.1".parse().unwrap()],
        };
        let out = self.at("hub");
        hub::issue(&mut self.open(), &names, &out, false, &*self.clock).unwrap();
        identity::certificates(&out.join(hub::CERTIFICATE)).unwrap()
    }

    fn now(&self, after_days: i64) -> UnixTime {
        let s = START_MS / 1_000 + after_days * DAY_S;
        UnixTime::since_unix_epoch(Duration::from_secs(s.try_into().unwrap()))
    }

    /// What the gate says to a client, with the list of withdrawn certificates as it is now.
    fn gate(&self, chain: &[CertificateDer<'_>], after_days: i64) -> Result<(), TlsError> {
        let anchors = identity::trust_anchors(&self.at("hub/agents-ca.pem")).unwrap();
        let lists = identity::revocation_lists(&self.at("hub/agents.crl.pem")).unwrap();
        assert_eq!(lists.len(), 1);
        WebPkiClientVerifier::builder_with_provider(anchors.into(), default_provider().into())
            .with_crls(lists)
            .build()
            .unwrap()
            .verify_client_cert(&chain[0], &chain[1..], self.now(after_days))
            .map(|_| ())
    }

    /// What an agent says to a server.
    fn agent(&self, chain: &[CertificateDer<'_>], name: &str, days: i64) -> Result<(), TlsError> {
        let anchors = identity::trust_anchors(&self.at("site/hub-ca.pem")).unwrap();
        WebPkiServerVerifier::builder_with_provider(anchors.into(), default_provider().into())
            .build()
            .unwrap()
            .verify_server_cert(
                &chain[0],
                &chain[1..],
                &ServerName::try_from(name.to_owned()).unwrap(),
                &[],
                self.now(days),
            )
            .map(|_| ())
    }
}

fn id(text: &str) -> AgentId {
    AgentId::new(text).unwrap()
}

fn serial_of(chain: &[CertificateDer<'_>]) -> Serial {
    Serial::parse(&identity::facts(&chain[0]).unwrap().serial).unwrap()
}

fn mode(file: &Path) -> u32 {
    file.metadata().unwrap().permissions().mode() & 0o777
}

#[test]
fn an_agent_and_a_hub_believe_each_other_by_every_name_until_the_end() {
    let bench = Bench::new();
    let (hub, agent) = (bench.hub(), bench.site("rsud", "site"));
    assert_eq!(identity::agent_of(&agent[0]).unwrap(), id("rsud"));
    assert_eq!(identity::facts(&hub[0]).unwrap().name, "hub.scc");

    for day in [-1, 0, 396] {
        bench.gate(&agent, day).unwrap();
    }
    for name in ["hub.scc", "10.0.0.1"] {
        for day in [-1, 0, 729] {
            bench.agent(&hub, name, day).unwrap();
        }
    }
    assert!(bench.agent(&hub, "other.scc", 0).is_err());
    let expired = |e: TlsError| {
        matches!(
            e,
            TlsError::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. }
            )
        )
    };
    assert!(expired(bench.gate(&agent, 398).unwrap_err()));
    assert!(expired(bench.agent(&hub, "hub.scc", 732).unwrap_err()));
}

#[test]
fn neither_can_pose_as_the_other() {
    let bench = Bench::new();
    let (hub, agent) = (bench.hub(), bench.site("rsud", "site"));
    assert!(
        bench.gate(&hub, 0).is_err(),
        "a hub's certificate is no agent's"
    );
    assert!(
        bench.agent(&agent, "rsud", 0).is_err(),
        "an agent's certificate is no hub's"
    );
    assert!(identity::agent_of(&hub[0]).is_err());
}

#[test]
fn a_certificate_of_another_authority_is_refused_even_under_the_same_names() {
    let (ours, theirs) = (Bench::new(), Bench::new());
    ours.hub();
    assert!(ours.gate(&theirs.site("rsud", "site"), 0).is_err());
}

#[test]
fn a_withdrawn_certificate_is_refused_and_the_others_are_not() {
    let bench = Bench::new();
    bench.hub();
    let (old, new, other) = (
        bench.site("rsud", "old"),
        bench.site("rsud", "new"),
        bench.site("psc", "psc"),
    );
    for chain in [&old, &new, &other] {
        bench.gate(chain, 0).unwrap();
    }
    let list = bench.at("hub/agents.crl.pem");
    let revoke = |only| {
        site::revoke(
            &mut bench.open(),
            &id("rsud"),
            only,
            &[&list],
            &*bench.clock,
        )
        .unwrap()
    };
    let revoked = TlsError::InvalidCertificate(CertificateError::Revoked);

    assert_eq!(revoke(Some(serial_of(&old))), 1);
    assert_eq!(bench.gate(&old, 0).unwrap_err(), revoked);
    bench.gate(&new, 0).unwrap();

    assert_eq!(revoke(None), 1, "only the one that was left");
    assert_eq!(revoke(None), 0, "twice is no error");
    assert_eq!(bench.gate(&new, 0).unwrap_err(), revoked);
    assert_eq!(bench.gate(&old, 0).unwrap_err(), revoked);
    bench.gate(&other, 0).unwrap();

    let again = bench.site("rsud", "again");
    bench.gate(&again, 0).unwrap();
}

#[test]
fn withdrawing_what_was_never_issued_names_the_mistake_and_changes_nothing() {
    let bench = Bench::new();
    bench.hub();
    let agent = bench.site("rsud", "site");
    let before = bench.open().crl_pem().unwrap();
    let mut authority = bench.open();
    let mut revoke =
        |name: &str, only| site::revoke(&mut authority, &id(name), only, &[], &*bench.clock);
    assert!(matches!(
        revoke("psc", None),
        Err(Error::NeverIssued { .. })
    ));
    // a hub's name is no site
    assert!(revoke("hub", None).is_err());
    assert!(matches!(
        revoke("rsud", Some(Serial::random().unwrap())),
        Err(Error::NoSuchSerial { .. })
    ));
    assert_eq!(authority.crl_pem().unwrap(), before);
    bench.gate(&agent, 0).unwrap();
}

#[test]
fn keys_and_their_folders_are_closed_and_what_others_need_is_readable() {
    let bench = Bench::new();
    bench.hub();
    bench.site("rsud", "site");
    for file in [
        "authority/root/ca.key",
        "authority/agents/ca.key",
        "authority/hub/ca.key",
        "authority/index.toml",
        "hub/hub.key",
        "site/agent.key",
    ] {
        assert_eq!(mode(&bench.at(file)), 0o600, "{file}");
    }
    for folder in [
        "authority",
        "authority/root",
        "authority/agents",
        "hub",
        "site",
    ] {
        assert_eq!(mode(&bench.at(folder)), 0o700, "{folder}");
    }
    for file in ["hub/hub.pem", "hub/agents.crl.pem", "site/hub-ca.pem"] {
        assert_eq!(mode(&bench.at(file)), 0o644, "{file}");
    }
}

#[test]
fn a_second_init_is_refused_and_leaves_every_byte() {
    let bench = Bench::new();
    let key = bench.at("authority/agents/ca.key");
    let before = std::fs::read(&key).unwrap();
    let again = |dir: &Path| Authority::init(dir, "Uji", &*bench.clock).unwrap_err();
    let error = again(&bench.at("authority"));
    assert!(matches!(error, Error::Exists { .. }), "{error}");
    assert_eq!(error.exit(), 2);
    assert_eq!(std::fs::read(&key).unwrap(), before);

    // so is one into the rest of an authority whose index was lost
    std::fs::remove_file(bench.at("authority/index.toml")).unwrap();
    assert!(matches!(
        again(&bench.at("authority")),
        Error::Exists { .. }
    ));
    assert!(matches!(
        Authority::open(&bench.at("authority")),
        Err(Error::NoAuthority { .. })
    ));
}

#[test]
fn the_root_may_lie_in_a_safe_while_sites_come_and_go() {
    let bench = Bench::new();
    std::fs::rename(bench.at("authority/root"), bench.at("safe")).unwrap();
    bench.hub();
    let agent = bench.site("rsud", "site");
    bench.gate(&agent, 0).unwrap();
    site::revoke(&mut bench.open(), &id("rsud"), None, &[], &*bench.clock).unwrap();
}

#[test]
fn a_crash_between_index_and_list_is_healed_by_the_same_command() {
    let bench = Bench::new();
    bench.hub();
    let agent = bench.site("rsud", "site");
    let mut authority = bench.open();
    // the index says withdrawn, the list was never signed
    authority.index.revoke(serial_of(&agent), START_MS);
    authority.index.save().unwrap();
    drop(authority);
    bench.gate(&agent, 0).unwrap();

    let list = bench.at("hub/agents.crl.pem");
    let mut authority = bench.open();
    site::revoke(&mut authority, &id("rsud"), None, &[&list], &*bench.clock).unwrap();
    assert!(bench.gate(&agent, 0).is_err());
}

#[test]
fn a_key_is_replaced_only_if_told_and_a_foreign_or_open_issuing_key_is_refused() {
    let bench = Bench::new();
    bench.site("rsud", "site");
    let key = bench.at("site/agent.key");
    let before = std::fs::read(&key).unwrap();
    let issue = |replace| {
        let out = bench.at("site");
        site::issue(
            &mut bench.open(),
            &id("rsud"),
            30,
            &out,
            replace,
            &*bench.clock,
        )
    };
    assert!(matches!(issue(false), Err(Error::KeyInTheWay { .. })));
    assert_eq!(std::fs::read(&key).unwrap(), before);
    assert_eq!(bench.open().index.entries().len(), 1, "nothing was entered");
    issue(true).unwrap();
    assert_ne!(std::fs::read(&key).unwrap(), before);

    let level = bench.at("authority/agents/ca.key");
    std::fs::copy(bench.at("authority/hub/ca.key"), &level).unwrap();
    assert!(matches!(issue(true), Err(Error::KeyMismatch { .. })));
    std::fs::set_permissions(&level, std::fs::Permissions::from_mode(0o640)).unwrap();
    let error = issue(true).unwrap_err().to_string();
    assert!(error.contains("chmod 600"), "{error}");
}

#[test]
fn nothing_is_signed_beyond_the_level_or_by_a_clock_that_is_wrong() {
    let bench = Bench::new();
    let out = bench.at("site");
    let issue = |days| {
        site::issue(
            &mut bench.open(),
            &id("rsud"),
            days,
            &out,
            false,
            &*bench.clock,
        )
    };
    let error = issue(3_660).unwrap_err();
    assert!(
        matches!(error, Error::TooLong { days: 3_652, .. }),
        "{error}"
    );
    bench.clock.step_wall(-START_MS);
    assert!(matches!(issue(30), Err(Error::Clock { .. })));
    assert!(!out.exists());
}

#[test]
fn two_at_once_do_not_lose_each_others_entries() {
    let bench = Bench::new();
    let held = bench.open();
    assert!(matches!(
        Authority::open(&bench.at("authority")),
        Err(Error::Busy { .. })
    ));
    drop(held);
    bench.open();
}

#[test]
fn the_list_says_what_ends_soon_in_both_languages() {
    let bench = Bench::new();
    bench.hub();
    let list = |now_ms, lang| listing::listing(&bench.open(), now_ms, lang).unwrap();
    assert!(list(START_MS, Lang::Id).starts_with("Belum ada"));
    let old = bench.site("rsud", "old");
    bench.site("psc", "psc");
    site::revoke(&mut bench.open(), &id("rsud"), None, &[], &*bench.clock).unwrap();

    let fresh = list(START_MS, Lang::Id);
    println!("{fresh}");
    assert!(fresh.contains(&serial_of(&old).hex()), "{fresh}");
    assert!(fresh.contains("dicabut 2026-11-24"), "{fresh}");
    assert!(fresh.contains("397 hari lagi"), "{fresh}");
    assert!(!fresh.contains('!'), "nothing ends soon: {fresh}");

    // 40 days before the site's certificate ends, and a week before the list does
    let late = list(START_MS + (397 - 40) * DAY_S * 1_000, Lang::En);
    println!("{late}");
    assert!(
        late.contains("! the certificate of psc ends on 2027-12-26, in 40 days"),
        "{late}"
    );
    assert!(late.contains("! the revocation list ends on"), "{late}");
    assert!(
        !late.contains("of rsud ends"),
        "a withdrawn one is no news: {late}"
    );
    let past = list(START_MS + 800 * DAY_S * 1_000, Lang::Id);
    assert!(past.contains("KEDALUWARSA"), "{past}");
    assert!(
        past.contains("! sertifikat pusat hub.scc sudah berakhir"),
        "{past}"
    );
}
