//! Ordeals: real processes are killed, or cut off for minutes, under load; then an oracle that never
//! asks the hub is held against the hub's database.
//!
//! What is true comes from outside the way of a record: the terminals (processes of their own) sync
//! each punch to a file before anybody can see it, and each agent logs what its buffer has accepted,
//! after the commit ([`oracle`]). What the hub has is read from its database and its media files
//! ([`ledger`]). [`account`] compares the two, [`video`] looks for holes in what cameras showed.
//! [`kills`] and [`outage`] are the two ordeals; `make kills` and `make outage` run them.

pub mod account;
pub mod kills;
pub mod ledger;
pub mod oracle;
pub mod outage;
pub mod page;
pub mod stage;
pub mod video;
