//! The log against disks that fail: what was acknowledged is there, and nothing comes back that
//! was cut.

mod damage;
mod lives;
mod model;
mod slow_fill;
mod torn;
mod writer;
