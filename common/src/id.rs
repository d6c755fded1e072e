//! Identities: agents, devices, epochs, boots, hub runs.
//!
//! An [`AgentId`] is at once the id of the site in the register, the common name of the agent's
//! certificate, its MQTT client id and the last level of its topics, so its alphabet is the
//! intersection of what all of those allow: lower-case ASCII letters, digits and hyphens.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest id that is accepted, in bytes. A certificate's common name ends at 64.
pub const MAX_ID_LEN: usize = 64;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a valid id: use 1 to 64 of a-z, 0-9 and `-`, beginning and ending with a letter or digit"
)]
pub struct InvalidId {
    /// The refused text, shortened to 80 characters.
    pub text: String,
}

fn check(text: &str) -> Result<(), InvalidId> {
    let bytes = text.as_bytes();
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ok = !bytes.is_empty()
        && bytes.len() <= MAX_ID_LEN
        && bytes.iter().all(|&b| alnum(b) || b == b'-')
        && bytes.first().is_some_and(|&b| alnum(b))
        && bytes.last().is_some_and(|&b| alnum(b));
    if ok {
        Ok(())
    } else {
        Err(InvalidId {
            text: text.chars().take(80).collect(),
        })
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>); // one copy, however many records name it

        impl $name {
            /// Checks the alphabet and the length.
            ///
            /// # Errors
            /// [`InvalidId`] names the refused text and the rule.
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidId> {
                let text = text.into();
                check(&text)?;
                Ok(Self(text.into()))
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::new(text).map_err(serde::de::Error::custom)
            }
        }
    };
}

text_id!(
    /// A site's agent; equal to the site's id in the register.
    AgentId
);
text_id!(
    /// A camera or terminal, unique within its site.
    DeviceId
);
text_id!(
    /// A government office in the register.
    AgencyId
);

macro_rules! random_u64 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// A fresh random id.
            #[must_use]
            pub fn random() -> Self {
                Self(rand::random())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }
    };
}

random_u64!(
    /// The life of one buffer: a random id made when it is created.
    Epoch
);
random_u64!(
    /// The life of one hub process.
    RunId
);

/// The number of a record within (agent, epoch, stream): 1, 2, 3 … without holes.
pub type Seq = u64;

/// One boot of a box, as the kernel names it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BootId(pub [u8; 16]);

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for BootId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_bytes::Bytes::new(&self.0).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for BootId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde_bytes::ByteArray::<16>::deserialize(deserializer).map(|b| Self(b.into_array()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_keep_to_the_alphabet_that_topics_certificates_and_files_share() {
        for good in ["rsud", "puskesmas-salotungo", "a", "sma1-watansoppeng"] {
            assert!(AgentId::new(good).is_ok(), "{good}");
        }
        let long = "a".repeat(65);
        for bad in [
            "", "-a", "a-", "A", "a/b", "a+b", "a#", "a b", "..", "ä", &long,
        ] {
            assert!(AgentId::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_bad_id_in_a_document_is_refused_with_the_rule() {
        #[derive(Debug, Deserialize)]
        struct Doc {
            #[allow(dead_code)]
            id: AgentId,
        }
        let error = toml::from_str::<Doc>("id = \"RSUD/#\"").unwrap_err();
        assert!(error.to_string().contains("use 1 to 64 of a-z"), "{error}");
    }
}
