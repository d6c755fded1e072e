//! The agent's program. Its commands are not there yet.
fn main() {}
