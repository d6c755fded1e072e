//! The link to the hub.
