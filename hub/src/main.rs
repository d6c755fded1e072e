//! The hub's program. Its commands are not there yet.
fn main() {}
