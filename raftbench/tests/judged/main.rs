//! From observations made by hand to verdict, run folder and report.

mod hand_made;
mod run_folder;
mod schema;
mod verdicts;
