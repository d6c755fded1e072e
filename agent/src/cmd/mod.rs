//! Subcommands.

pub mod buffer;
