//! The time by which an agent checks the hub's certificate.
//!
//! A Raspberry Pi has no clock of its own: it wakes up in 1970, and would then trust no hub that could tell
//! it the time. And a clock that is stepped fifty years ahead would find every certificate expired. So:
//! - no check is made at a time before the floor: the later of the program's making, the making of the
//!   agent's own certificate and the last time that the hub has told, never of a record's time;
//! - a certificate that is not valid by the wall clock may be valid by what the hub told earlier in this
//!   boot, carried on by the monotonic clock. It is enough if one of the two says so.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::CertificateFacts;
use crate::clock::{EARLIEST_MS, SharedClock, SystemClock, WallMs};

/// Where the time of a check comes from.
#[derive(Debug, Clone)]
pub struct CheckTime {
    /// This box's clock.
    pub clock: SharedClock,
    /// The last time that the hub has told, in this boot or an earlier one; 0 if none is known.
    pub told_ms: WallMs,
}

impl CheckTime {
    /// The machine's clock alone.
    #[must_use]
    pub fn of_system() -> Self {
        Self {
            clock: SystemClock::shared(),
            told_ms: 0,
        }
    }

    /// The floor for a box with this certificate. What was told after its end cannot be right, or nothing
    /// can help this box.
    fn floor_ms(&self, own: &CertificateFacts) -> WallMs {
        let told_ms = self.told_ms.min(own.until_ms);
        EARLIEST_MS.max(own.from_ms).max(told_ms)
    }
}

/// Checks a hub's certificate as the library does, at these times instead of the system's.
#[derive(Debug)]
pub(super) struct Checker {
    library: Arc<WebPkiServerVerifier>,
    clock: SharedClock,
    floor_ms: WallMs,
}

impl Checker {
    pub(super) fn new(
        library: Arc<WebPkiServerVerifier>,
        time: &CheckTime,
        own: &CertificateFacts,
    ) -> Self {
        Self {
            library,
            clock: Arc::clone(&time.clock),
            floor_ms: time.floor_ms(own),
        }
    }

    fn unix(&self, ms: WallMs) -> UnixTime {
        let ms = u64::try_from(ms.max(self.floor_ms)).unwrap_or(0);
        UnixTime::since_unix_epoch(Duration::from_millis(ms))
    }
}

fn is_about_time(error: &Error) -> bool {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    matches!(
        error,
        Error::InvalidCertificate(
            Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. }
        )
    )
}

impl ServerCertVerifier for Checker {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        _system: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let at = |ms| {
            let now = self.unix(ms);
            self.library
                .verify_server_cert(leaf, between, name, ocsp, now)
        };
        let by_wall = at(self.clock.wall_ms());
        match (&by_wall, self.clock.boot_offset()) {
            (Err(error), Some(hub)) if is_about_time(error) => at(hub.at(self.clock.mono_ms())),
            _ => by_wall,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.library
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.library
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.library.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ClockQuality, ManualClock};
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};

    const DAY: i64 = 86_400_000;
    /// 2027-01-01: the hub's certificate begins.
    const BEGIN: WallMs = 1_798_761_600_000;
    const FIFTY_YEARS: i64 = 50 * 365 * DAY;

    /// A hub's certificate for the year 2027, checked by this clock; the box's own is of 2026 to 2028.
    fn check(clock: &Arc<ManualClock>, told_ms: WallMs) -> Result<(), Error> {
        let level_key = KeyPair::generate().unwrap();
        let mut level = CertificateParams::default();
        level.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let anchor = level.self_signed(&level_key).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(anchor.der().clone()).unwrap();
        let mut hub = CertificateParams::new(vec!["hub.test".into()]).unwrap();
        hub.not_before = date_time_ymd(2027, 1, 1);
        hub.not_after = date_time_ymd(2028, 1, 1);
        let key = KeyPair::generate().unwrap();
        let leaf = hub.signed_by(&key, &Issuer::new(level, level_key)).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let library = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .unwrap();
        let own = CertificateFacts {
            name: "rsud".into(),
            serial: "1".into(),
            from_ms: BEGIN - 300 * DAY,
            until_ms: BEGIN + 400 * DAY,
        };
        let time = CheckTime {
            clock: clock.clone(),
            told_ms,
        };
        let name = ServerName::try_from("hub.test").unwrap();
        Checker::new(library, &time, &own)
            .verify_server_cert(leaf.der(), &[], &name, &[], UnixTime::now())
            .map(drop)
    }

    fn unconfirmed(wall_ms: WallMs) -> Arc<ManualClock> {
        let clock = ManualClock::at(wall_ms);
        clock.set_quality(ClockQuality::Unconfirmed);
        clock
    }

    #[test]
    fn a_box_in_1970_trusts_a_hub_whose_certificate_is_newer_than_its_own_once_it_was_told_the_time()
     {
        let clock = unconfirmed(1_000);
        assert!(is_about_time(&check(&clock, 0).unwrap_err()));
        check(&clock, BEGIN + 5 * DAY).unwrap();
        clock.step_wall(BEGIN + DAY);
        check(&clock, 0).unwrap();
    }

    #[test]
    fn a_clock_fifty_years_ahead_is_no_reason_once_the_hub_has_told_the_time_in_this_boot() {
        let clock = unconfirmed(BEGIN + DAY);
        clock.step_wall(FIFTY_YEARS);
        assert!(is_about_time(&check(&clock, BEGIN).unwrap_err()));
        clock.hub_offset(-FIFTY_YEARS, 20);
        check(&clock, BEGIN).unwrap();
        clock.step_wall(-2 * FIFTY_YEARS);
        check(&clock, BEGIN).unwrap();
    }

    #[test]
    fn an_expired_certificate_stays_expired_by_whatever_clock() {
        let clock = unconfirmed(1_000);
        let after = BEGIN + 370 * DAY;
        clock.hub_offset(after - 1_000, 20);
        assert!(is_about_time(&check(&clock, after).unwrap_err()));
    }

    #[test]
    fn a_time_that_was_told_after_the_end_of_the_boxs_own_certificate_is_not_believed_beyond_it() {
        let time = CheckTime {
            clock: unconfirmed(1_000),
            told_ms: BEGIN + FIFTY_YEARS,
        };
        let own = CertificateFacts {
            name: "rsud".into(),
            serial: "1".into(),
            from_ms: BEGIN,
            until_ms: BEGIN + DAY,
        };
        assert_eq!(time.floor_ms(&own), BEGIN + DAY);
    }
}
