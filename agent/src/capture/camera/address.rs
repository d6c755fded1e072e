//! A camera's address: taken apart to reach it, put together with its password for FFmpeg, and with
//! the password taken out again for every line that a person may read.

use super::fault::{Failure, Fault};
use crate::config::{RTSP_PORT, split_address};

/// FFmpeg 5.1 keeps `user:password`, percent-encoded, in 128 bytes and cuts what is longer.
const FFMPEG_MAX_CREDENTIALS: usize = 127;

/// Host and port of `rtsp://HOST[:PORT]/…`; an IPv6 host without its brackets.
#[must_use]
pub(crate) fn host_and_port(url: &str) -> Option<(String, u16)> {
    let authority = url.strip_prefix("rtsp://")?.split(['/', '?']).next()?;
    split_address(authority, RTSP_PORT)
}

/// The URL with user and password in it. It exists in the reader process only.
///
/// # Errors
/// Unauthorized, if FFmpeg would silently cut the password.
pub(super) fn with_credentials(
    url: &str,
    user: Option<&str>,
    password: Option<&str>,
) -> Result<String, Failure> {
    let Some(user) = user else {
        return Ok(url.to_owned());
    };
    let credentials = credentials(user, password);
    if credentials.len() > FFMPEG_MAX_CREDENTIALS {
        return Err(Failure::new(
            Fault::Unauthorized,
            "user name and password are too long together; give the camera a shorter password",
        ));
    }
    let rest = url.strip_prefix("rtsp://").unwrap_or(url);
    Ok(format!("rtsp://{credentials}@{rest}"))
}

fn credentials(user: &str, password: Option<&str>) -> String {
    let mut credentials = percent_encoded(user);
    if let Some(password) = password {
        credentials.push(':');
        credentials.push_str(&percent_encoded(password));
    }
    credentials
}

/// Whether FFmpeg takes user and password whole.
#[must_use]
pub(crate) fn credentials_fit(user: &str, password: Option<&str>) -> bool {
    credentials(user, password).len() <= FFMPEG_MAX_CREDENTIALS
}

fn percent_encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // writing into a String cannot fail
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// Takes secrets out of a line: whatever stands between `://` and `@`, and the password itself in
/// both spellings.
#[must_use]
pub(super) fn redacted(line: &str, password: Option<&str>) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after
            .find(|c: char| c.is_whitespace() || matches!(c, '/' | '"' | '\'' | '<' | '>'))
            .unwrap_or(after.len());
        // the last @: an unencoded password may hold one itself
        rest = match after[..end].rfind('@') {
            Some(sign) => {
                out.push_str("***");
                &after[sign..]
            }
            None => after,
        };
    }
    out.push_str(rest);
    if let Some(password) = password.filter(|p| p.len() >= 3) {
        out = out.replace(password, "***");
        out = out.replace(&percent_encoded(password), "***");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_are_read_in_all_their_spellings() {
        for (url, expected) in [
            ("rtsp://10.0.0.5/stream1", Some(("10.0.0.5", 554))),
            ("rtsp://kamera.local:8554", Some(("kamera.local", 8554))),
            ("rtsp://[fd00::5]:99/a", Some(("fd00::5", 99))),
            ("rtsp://[fd00::5]/a", Some(("fd00::5", 554))),
            ("rtsp://h?x=1:2", Some(("h", 554))),
            ("rtsp:///a", None),
            ("rtsp://h:x/a", None),
            ("rtsp://h:0/a", None),
            ("rtsp://a b/a", None),
            ("http://h/a", None),
        ] {
            let expected = expected.map(|(host, port)| (host.to_owned(), port));
            assert_eq!(host_and_port(url), expected, "{url}");
        }
    }

    #[test]
    fn a_password_is_spelt_so_that_the_url_stays_one() {
        assert_eq!(
            with_credentials("rtsp://h/a", Some("op"), Some("a@b:c/d")).unwrap(),
            "rtsp://op:a%40b%3Ac%2Fd@h/a"
        );
        assert_eq!(
            with_credentials("rtsp://h/a", None, Some("x")).unwrap(),
            "rtsp://h/a"
        );
        let long = "p".repeat(130);
        let failure = with_credentials("rtsp://h/a", Some("op"), Some(&long)).unwrap_err();
        assert_eq!(failure.fault, Fault::Unauthorized);
    }

    #[test]
    fn a_line_loses_its_password_and_keeps_the_rest() {
        assert_eq!(
            redacted(
                "[rtsp @ 0x1] rtsp://op:raha@sia@10.0.0.5/s: 401, op raha",
                None
            ),
            "[rtsp @ 0x1] rtsp://***@10.0.0.5/s: 401, op raha"
        );
        assert_eq!(
            redacted("a rtsp://h/x@y b://c:d@e", None),
            "a rtsp://h/x@y b://***@e"
        );
        assert_eq!(redacted("Digest a%40b a@b", Some("a@b")), "Digest *** ***");
    }

    proptest! {
        #[test]
        fn no_password_survives(password in "[!-~]{6,20}", before in "\\PC{0,20}") {
            let url = with_credentials("rtsp://h/a", Some("u"), Some(&password)).unwrap();
            let line = redacted(&format!("{before} {url}: {password}"), Some(&password));
            let shown = line.contains(&password) && !"***".contains(&password);
            prop_assert!(!shown, "{}", line);
        }
    }
}
