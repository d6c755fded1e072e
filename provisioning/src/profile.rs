//! What stands in each certificate: the other half of [`scc_common::identity`], which reads it.
//!
//! | certificate | life | path | usage |
//! |---|---|---|---|
//! | root | 20 years | ≤ 1 level below | signs certificates |
//! | agents' level | 10 years | no level below | signs certificates and the revocation list; clientAuth |
//! | hub's level | 10 years | no level below | signs certificates; serverAuth |
//! | agent | 397 days unless told otherwise | – | clientAuth |
//! | hub | 2 years | – | serverAuth |
//!
//! All are ECDSA P-256 with random serial numbers, and all are valid from a day before they are
//! made: a box without a clock of its own may wake up in the recent past.

use std::net::IpAddr;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, RevokedCertParams, SanType, SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};
use scc_common::clock::WallMs;
use scc_common::id::AgentId;
use scc_common::identity::{AGENT_URI, HUB_URI};
use time::OffsetDateTime;

use crate::error::{Error, NameFault};

const DAY_MS: i64 = 86_400_000;
const YEAR_MS: i64 = 365 * DAY_MS + DAY_MS / 4;

/// Life of the root.
pub const ROOT_LIFE_MS: i64 = 20 * YEAR_MS;
/// Life of both issuing levels.
pub const LEVEL_LIFE_MS: i64 = 10 * YEAR_MS;
/// Life of a hub's certificate.
pub const HUB_LIFE_MS: i64 = 2 * YEAR_MS;
/// How long a revocation list claims to be the newest. Long, because it is carried by hand.
pub const CRL_LIFE_MS: i64 = YEAR_MS;
/// How far before its making a certificate is valid.
pub const BACKDATE_MS: i64 = DAY_MS;

/// Longest common name that X.509 allows, in characters.
pub const MAX_NAME: usize = 64;

/// From when until when, both in whole seconds once they stand in a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Not valid before.
    pub from_ms: WallMs,
    /// Not valid after.
    pub until_ms: WallMs,
}

impl Validity {
    /// A life that begins now, backdated.
    #[must_use]
    pub const fn of(now_ms: WallMs, life_ms: i64) -> Self {
        Self {
            from_ms: now_ms.saturating_sub(BACKDATE_MS),
            until_ms: now_ms.saturating_add(life_ms),
        }
    }

    /// A life of so many days that begins now, backdated.
    #[must_use]
    pub fn days(now_ms: WallMs, days: u32) -> Self {
        Self::of(now_ms, i64::from(days) * DAY_MS)
    }
}

/// Whole days from one time to a later one; negative if it lies before.
#[must_use]
pub const fn days_between(from_ms: WallMs, to_ms: WallMs) -> i64 {
    to_ms.saturating_sub(from_ms).div_euclid(DAY_MS)
}

/// A 128-bit serial number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serial([u8; 16]);

impl Serial {
    /// A random one, positive and of full length.
    ///
    /// # Errors
    /// [`Error::NoRandomness`].
    pub fn random() -> Result<Self, Error> {
        let mut bytes = [0; 16];
        SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| Error::NoRandomness)?;
        // DER integers are signed and drop leading zeros: 01…… in the first byte avoids both.
        bytes[0] = bytes[0] & 0x7f | 0x40;
        Ok(Self(bytes))
    }

    /// Lower-case hex, as [`scc_common::identity::facts`] gives it.
    #[must_use]
    pub fn hex(self) -> String {
        self.0.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Reads what [`hex`](Self::hex) wrote; colons and capitals, as other tools print, are allowed.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hex: Vec<u8> = text.bytes().filter(|b| *b != b':').collect();
        if hex.len() != 32 || !hex.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }

    fn number(self) -> SerialNumber {
        SerialNumber::from_slice(&self.0)
    }
}

/// A new P-256 key.
///
/// # Errors
/// [`Error::Certificate`] if the system gives no random numbers.
pub fn key() -> Result<KeyPair, Error> {
    Ok(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)
}

/// The root.
///
/// # Errors
/// [`Error::NoRandomness`].
pub fn root(name: &str, validity: Validity) -> Result<CertificateParams, Error> {
    authority(name, validity, 1)
}

/// The level that issues agents' certificates and signs their revocation list.
///
/// # Errors
/// [`Error::NoRandomness`].
pub fn agents_level(name: &str, validity: Validity) -> Result<CertificateParams, Error> {
    let mut params = authority(name, validity, 0)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

/// The level that issues hubs' certificates.
///
/// # Errors
/// [`Error::NoRandomness`].
pub fn hub_level(name: &str, validity: Validity) -> Result<CertificateParams, Error> {
    let mut params = authority(name, validity, 0)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

/// An agent.
///
/// # Errors
/// [`Error::Certificate`] if the id cannot be a URI (no [`AgentId`] is such).
pub fn agent(id: &AgentId, serial: Serial, validity: Validity) -> Result<CertificateParams, Error> {
    let mut params = leaf(id.as_str(), serial, validity);
    params.subject_alt_names = vec![uri(&format!("{AGENT_URI}{id}"))?];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

/// A hub with all names and addresses that agents and browsers call it by; the first is its common
/// name.
///
/// # Errors
/// [`Error::Name`] if a name is no host name, or the first is too long.
pub fn hub(
    names: &[String],
    addresses: &[IpAddr],
    serial: Serial,
    validity: Validity,
) -> Result<CertificateParams, Error> {
    let common = names.first().map_or("", String::as_str);
    check_name(common)?;
    let mut params = leaf(common, serial, validity);
    params.subject_alt_names = vec![uri(HUB_URI)?];
    for name in names {
        if name.parse::<IpAddr>().is_ok() {
            return Err(Error::name(name, NameFault::Address));
        }
        rustls_pki_types::DnsName::try_from(name.as_str())
            .map_err(|_| Error::name(name, NameFault::NoHost))?;
        params
            .subject_alt_names
            .push(SanType::DnsName(name.as_str().try_into()?));
    }
    for address in addresses {
        params.subject_alt_names.push(SanType::IpAddress(*address));
    }
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

/// The host names and addresses in a certificate.
pub(crate) fn names(params: &CertificateParams) -> impl Iterator<Item = String> {
    params.subject_alt_names.iter().filter_map(|san| match san {
        SanType::DnsName(name) => Some(name.as_str().to_owned()),
        SanType::IpAddress(address) => Some(address.to_string()),
        _ => None,
    })
}

/// The list of the withdrawn: serial number and when.
#[must_use]
pub fn revocations(
    number: u64,
    now_ms: WallMs,
    withdrawn: &[(Serial, WallMs)],
) -> CertificateRevocationListParams {
    CertificateRevocationListParams {
        this_update: moment(now_ms.saturating_sub(BACKDATE_MS)),
        next_update: moment(now_ms.saturating_add(CRL_LIFE_MS)),
        crl_number: SerialNumber::from(number),
        issuing_distribution_point: None,
        revoked_certs: withdrawn
            .iter()
            .map(|(serial, at_ms)| RevokedCertParams {
                serial_number: serial.number(),
                revocation_time: moment(*at_ms),
                reason_code: None,
                invalidity_date: None,
            })
            .collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    }
}

/// Whether a text can be a common name.
///
/// # Errors
/// [`Error::Name`] says why not.
pub fn check_name(name: &str) -> Result<(), Error> {
    let why = if name.trim().is_empty() {
        NameFault::Empty
    } else if name.chars().count() > MAX_NAME {
        NameFault::Long { most: MAX_NAME }
    } else if name.chars().any(char::is_control) {
        NameFault::Control
    } else {
        return Ok(());
    };
    Err(Error::name(name, why))
}

fn authority(name: &str, validity: Validity, below: u8) -> Result<CertificateParams, Error> {
    let mut params = blank(name, Serial::random()?, validity);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn leaf(name: &str, serial: Serial, validity: Validity) -> CertificateParams {
    let mut params = blank(name, serial, validity);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params
}

fn blank(name: &str, serial: Serial, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(serial.number());
    params.not_before = moment(validity.from_ms);
    params.not_after = moment(validity.until_ms);
    params.use_authority_key_identifier_extension = true;
    params
}

fn uri(text: &str) -> Result<SanType, Error> {
    Ok(SanType::URI(text.try_into()?))
}

/// rcgen's time type, in whole seconds.
fn moment(ms: WallMs) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(ms.div_euclid(1_000)).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serial_numbers_are_positive_full_length_and_read_back() {
        for _ in 0..1_000 {
            let serial = Serial::random().unwrap();
            assert!((0x40..0x80).contains(&serial.0[0]));
            assert_eq!(Serial::parse(&serial.hex()), Some(serial));
        }
        let spelt = "4A:00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee";
        assert_eq!(
            Serial::parse(spelt).unwrap().hex(),
            "4a00112233445566778899aabbccddee"
        );
        for wrong in [
            "",
            "4a",
            "zz00112233445566778899aabbccddee",
            "+a00112233445566778899aabbccddee",
        ] {
            assert_eq!(Serial::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_hub_name_that_no_agent_could_check_is_refused() {
        let serial = Serial::random().unwrap();
        let validity = Validity::days(0, 1);
        for wrong in ["", "hub scc", "10.0.0.1", "häb", &"h".repeat(65)] {
            let error = hub(&[wrong.to_owned()], &[], serial, validity).unwrap_err();
            assert!(matches!(error, Error::Name { .. }), "{wrong}: {error}");
        }
        assert!(hub(&["hub.scc".to_owned()], &[], serial, validity).is_ok());
    }

    #[test]
    fn days_are_counted_downwards_past_the_end() {
        assert_eq!(days_between(0, DAY_MS * 3 / 2), 1);
        assert_eq!(days_between(0, -1), -1);
    }
}
