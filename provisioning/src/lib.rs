//! `scc-provision`: who may be an agent and who may be a hub.
//!
//! Used by an administrator on a laptop that is not the hub, and by nobody else: it speaks to no
//! network. It makes the county's authority (an offline root and two issuing levels), issues the
//! certificates of hubs and of sites as [`scc_common::identity`] expects them, and withdraws them.
//!
//! The way of a certificate through the modules: [`files`] (what is on disk survives a power cut),
//! [`profile`] (what stands in a certificate), [`index`] (what was issued, and what withdrawn),
//! [`authority`] (the folder with keys), then [`hub`] and [`site`] (one per group of commands),
//! [`listing`] (what a person reads) and [`cmd`] (the command line).
//!
//! Invariants
//! - Nothing is signed that the index does not know: a certificate is entered before it is written.
//! - The index decides, the revocation list follows from it and can be signed again at any time.
//! - A private key is never in a file that others may read, not even for an instant.
//! - The root's key is needed by `authority init` only; afterwards its folder can be taken away.

pub mod authority;
pub mod cmd;
pub mod error;
pub mod files;
mod hint;
pub mod hub;
pub mod index;
pub mod listing;
pub mod profile;
pub mod site;

pub use authority::Authority;
pub use error::Error;
