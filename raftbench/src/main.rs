//! Placeholder.
mod evidence;
mod plan;

fn main() {}
