//! See docs/design/architecture.md.

pub mod notice;
