//! The log against disks that fail: what was acknowledged is there, and nothing comes back that
//! was cut.

#[cfg(feature = "seeded-bugs")]
mod bugs;
mod compaction;
mod damage;
mod fuzz;
mod lives;
mod model;
mod slow_fill;
mod torn;
mod writer;
