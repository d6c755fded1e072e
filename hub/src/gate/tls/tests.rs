use super::*;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use scc_common::clock::ManualClock;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

/// 2026-01-01.
const NOW: WallMs = 1_767_225_600_000;

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn issuer(name: &str) -> Issuer {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn leaf(issuer: &Issuer, serial: u64) -> (CertificateDer<'static>, String, String) {
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from(serial));
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    (
        certificate.der().clone(),
        certificate.pem(),
        key.serialize_pem(),
    )
}

fn list(issuer: &Issuer, until_year: i32, serials: &[u64]) -> String {
    let revoked = |serial: &u64| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: date_time_ymd(2025, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    CertificateRevocationListParams {
        this_update: date_time_ymd(2020, 1, 1),
        next_update: date_time_ymd(until_year, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: serials.iter().map(revoked).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    }
    .signed_by(issuer)
    .unwrap()
    .pem()
    .unwrap()
}

struct Files {
    dir: TempDir,
    agents: Issuer,
    hubs: Issuer,
}

impl Files {
    fn new() -> Self {
        let files = Self {
            dir: TempDir::new().unwrap(),
            agents: issuer("agents"),
            hubs: issuer("hubs"),
        };
        files.write("agents.pem", &files.agents.pem());
        files.write("revoked.pem", &list(&files.agents, 2099, &[]));
        files.identity(1);
        files
    }

    fn identity(&self, serial: u64) {
        let (_, certificate, key) = leaf(&self.hubs, serial);
        self.write("hub.pem", &certificate);
        self.write("hub.key", &key);
    }

    fn write(&self, name: &str, text: &str) {
        let file = self.dir.path().join(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn load(&self) -> Result<Tls, GateError> {
        let at = |name: &str| self.dir.path().join(name);
        let files = config::Gate {
            listen: "127.0.0.1:0".parse().unwrap(),
            certificate: at("hub.pem"),
            key: at("hub.key"),
            agents_ca: at("agents.pem"),
            revocations: at("revoked.pem"),
            max_connections: 1,
        };
        Tls::load(&files, ManualClock::at(NOW))
    }

    fn name(&self, serial: u64) -> CertificateName {
        CertificateName::of(&leaf(&self.agents, serial).0).unwrap()
    }
}

#[test]
fn a_new_list_takes_effect_and_a_bad_one_does_not() {
    let files = Files::new();
    let tls = files.load().unwrap();
    assert_eq!(tls.reload(), Changed::Nothing);
    // The high bit makes DER pad the serial with a zero.
    let stolen = 0xFF00_0000_0000_0001;
    files.write("revoked.pem", &list(&files.agents, 2099, &[stolen]));
    assert!(!tls.revokes(&files.name(stolen)));
    assert_eq!(tls.reload(), Changed::Revocations);
    assert!(tls.revokes(&files.name(stolen)));
    assert!(!tls.revokes(&files.name(2)));

    let config = tls.config();
    let foreign = issuer("agents");
    for bad in [
        String::new(),
        "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n".to_owned(),
        list(&files.agents, 2099, &[])[..200].to_owned(),
        list(&foreign, 2099, &[]),
        list(&files.hubs, 2099, &[]),
    ] {
        files.write("revoked.pem", &bad);
        assert_eq!(tls.reload(), Changed::Nothing, "{bad}");
        assert!(tls.revokes(&files.name(stolen)), "{bad}");
        assert!(Arc::ptr_eq(&config, &tls.config()), "{bad}");
        let trouble = tls.told().all_unusable().expect("it is told");
        assert!(trouble.why.contains("revoked.pem"), "{trouble:?}");
    }
    fs::remove_file(files.dir.path().join("revoked.pem")).unwrap();
    assert_eq!(tls.reload(), Changed::Nothing);
    assert!(tls.revokes(&files.name(stolen)));

    files.write("revoked.pem", &list(&files.agents, 2099, &[2]));
    assert_eq!(tls.reload(), Changed::Revocations);
    assert!(!tls.revokes(&files.name(stolen)));
    assert_eq!(tls.told().all_unusable(), None);
}

#[test]
fn a_serial_is_revoked_for_its_issuer_only() {
    let files = Files::new();
    files.write("revoked.pem", &list(&files.agents, 2099, &[7]));
    let tls = files.load().unwrap();
    let other = CertificateName::of(&leaf(&files.hubs, 7).0).unwrap();
    assert!(tls.revokes(&files.name(7)) && !tls.revokes(&other));
}

#[test]
fn the_hubs_certificate_changes_only_together_with_its_key() {
    let files = Files::new();
    let tls = files.load().unwrap();
    let before = tls.config();
    let (_, certificate, key) = leaf(&files.hubs, 2);
    files.write("hub.pem", &certificate);
    // Half-way: a revocation of the same second must still work.
    files.write("revoked.pem", &list(&files.agents, 2099, &[9]));
    assert_eq!(tls.reload(), Changed::Revocations);
    assert!(tls.revokes(&files.name(9)));
    let half_way = tls.config();
    assert!(!Arc::ptr_eq(&before, &half_way));
    files.write("hub.key", &key);
    assert_eq!(tls.reload(), Changed::Nothing);
    assert!(!Arc::ptr_eq(&half_way, &tls.config()));
}

#[test]
fn a_certificate_that_cannot_be_used_does_not_replace_one_that_can() {
    let files = Files::new();
    let tls = files.load().unwrap();
    let before = tls.config();
    let good = fs::read_to_string(files.dir.path().join("hub.pem")).unwrap();
    let mut old = CertificateParams::default();
    old.not_after = date_time_ymd(2025, 1, 1);
    let key = KeyPair::generate().unwrap();
    let past = old.signed_by(&key, &files.hubs).unwrap().pem();
    let bad = [
        (good[..300].to_owned(), None),
        (String::new(), None),
        (leaf(&files.hubs, 2).1, None),
        (past, Some(key.serialize_pem())),
    ];
    for (certificate, key) in bad {
        files.write("hub.pem", &certificate);
        if let Some(key) = key {
            files.write("hub.key", &key);
        }
        assert_eq!(tls.reload(), Changed::Nothing);
        assert!(Arc::ptr_eq(&before, &tls.config()), "{certificate}");
        let trouble = tls.told().all_unusable().expect("it is told");
        assert!(trouble.why.contains("hub.pem"), "{trouble:?}");
    }
    files.identity(3);
    assert_eq!(tls.reload(), Changed::Nothing);
    assert_eq!(tls.told().all_unusable(), None);
    assert!(!Arc::ptr_eq(&before, &tls.config()));
}

#[test]
fn one_more_issuing_level_sends_nobody_away_and_one_less_sends_all() {
    let files = Files::new();
    let tls = files.load().unwrap();
    let next = issuer("agents 2");
    files.write(
        "agents.pem",
        &format!("{}{}", files.agents.pem(), next.pem()),
    );
    assert_eq!(
        tls.reload(),
        Changed::Nothing,
        "there is no list for the second"
    );
    let both = format!(
        "{}{}",
        list(&files.agents, 2099, &[]),
        list(&next, 2099, &[5])
    );
    files.write("revoked.pem", &both);
    assert_eq!(tls.reload(), Changed::Revocations);
    files.write("agents.pem", &next.pem());
    files.write("revoked.pem", &list(&next, 2099, &[5]));
    assert_eq!(tls.reload(), Changed::Anchors);
}

#[test]
fn a_list_past_its_date_is_an_alarm_and_no_reason_to_stay_shut() {
    let files = Files::new();
    files.write("revoked.pem", &list(&files.agents, 2025, &[7]));
    let tls = files.load().unwrap();
    assert_eq!(tls.reload(), Changed::Nothing);
    assert!(lock(&tls.seen).expired);
    let trouble = tls.told().all_ending().expect("it is told");
    assert!(
        trouble.why.contains("the revocation list has ended: 2025-"),
        "{trouble:?}"
    );
    assert!(tls.revokes(&files.name(7)));
    files.write("revoked.pem", &list(&files.agents, 2099, &[7]));
    assert_eq!(tls.reload(), Changed::Revocations);
    assert!(!lock(&tls.seen).expired);
    assert_eq!(tls.told().all_ending(), None);
}

#[test]
fn the_gate_does_not_open_with_wrong_files() {
    let files = Files::new();
    files.write("revoked.pem", &list(&files.hubs, 2099, &[]));
    assert!(matches!(files.load(), Err(GateError::Revocations { .. })));
    files.write("revoked.pem", &list(&files.agents, 2099, &[]));
    assert!(files.load().is_ok());
    files.write("hub.key", &leaf(&files.hubs, 3).2);
    assert!(matches!(files.load(), Err(GateError::Identity(_))));
    files.identity(4);
    let key = files.dir.path().join("hub.key");
    fs::set_permissions(key, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(files.load(), Err(GateError::Identity(_))));
}
