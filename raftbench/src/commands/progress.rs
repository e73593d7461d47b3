//! Progress of long work: a line on a terminal, nothing in a pipe.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use loadgen::Progress;

use crate::conductor::Watch;
use crate::plan::Plan;

/// How often the line is drawn.
const TICK: Duration = Duration::from_millis(250);

/// A run that is being watched.
pub(super) struct Watched {
    watch: Watch,
    drawing: Option<Drawing>,
}

/// The thread that draws; dropping the sender ends it.
struct Drawing {
    end: Sender<()>,
    thread: JoinHandle<()>,
}

/// Shows what happens on stderr, if that is a terminal.
pub(super) fn start(plan: &Plan) -> Watched {
    if !std::io::stderr().is_terminal() {
        return Watched { watch: Watch::quiet(), drawing: None };
    }
    let load: Arc<Progress> = Arc::default();
    let bar = spinner();
    bar.set_message(format!("{} on {}", plan.profile, plan.cluster.target.name()));
    let (end, ended) = channel();
    let (shown, counted) = (bar.clone(), load.clone());
    let thread = std::thread::spawn(move || draw(&shown, &counted, &ended));
    let says = Arc::new(move |what: &str| bar.println(what));
    Watched { watch: Watch { load, says }, drawing: Some(Drawing { end, thread }) }
}

/// A line that tells what is being done, on stderr if that is a terminal. Dropped, it is gone.
pub(super) struct Line(ProgressBar);

/// Shows a line.
pub(super) fn line(what: impl Into<String>) -> Line {
    if !std::io::stderr().is_terminal() {
        return Line(ProgressBar::hidden());
    }
    let bar = spinner();
    bar.set_message(what.into());
    bar.enable_steady_tick(TICK);
    Line(bar)
}

impl Line {
    /// Says something else.
    pub(super) fn says(&self, what: impl Into<String>) {
        self.0.set_message(what.into());
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar
}

impl Watched {
    pub(super) fn watch(&self) -> Watch {
        self.watch.clone()
    }

    /// Leaves a clean line behind.
    pub(super) fn finish(self) {
        if let Some(Drawing { end, thread }) = self.drawing {
            drop(end);
            // It only draws: if it panicked, there is nothing to save.
            thread.join().ok();
        }
    }
}

fn draw(bar: &ProgressBar, load: &Progress, ended: &Receiver<()>) {
    let mut before = load.counters();
    while ended.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
        bar.tick();
        let now = load.counters();
        let longest_ms = load.take_longest_us() as f64 / 1e3;
        if now.sent > 0 {
            let per_second = (now.ok - before.ok) as f64 / TICK.as_secs_f64();
            bar.set_message(format!(
                "{per_second:.0} ok/s, longest {longest_ms:.1} ms; {} ok, {} failed, {} unknown, \
                 {} outstanding",
                now.ok, now.fail, now.unknown, now.outstanding
            ));
        }
        before = now;
    }
    bar.finish_and_clear();
}
