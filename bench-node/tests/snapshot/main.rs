//! Snapshots against disks that fail and transfers that break: what is there is the old one or the
//! new one, whole, or it is named and not used.

#[cfg(feature = "seeded-bugs")]
mod bugs;
mod crashes;
mod damage;
mod fuzz;
mod model;
mod saved;
mod transfer;
mod whole;
