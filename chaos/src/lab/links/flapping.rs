//! A link that comes and goes: a partition that is begun and healed, over and over.

use std::collections::BTreeSet;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{Direction, Network};
use crate::Error;

/// A partition that flaps until this is stopped or dropped; it is healed then.
pub struct Flapping {
    stop: Option<Sender<()>>,
    down_since: Arc<Mutex<Option<Instant>>>,
    thread: Option<JoinHandle<Result<u64, Error>>>,
}

impl Flapping {
    /// Cuts for `down`, heals for `up`, and so on; the first cut is made before this returns.
    pub fn start(
        network: Arc<Mutex<Network>>,
        directions: BTreeSet<Direction>,
        down: Duration,
        up: Duration,
    ) -> Result<Self, Error> {
        let mut cut = lock(&network).cut_directions(&directions)?;
        let (stop, stopped) = channel();
        let down_since = Arc::new(Mutex::new(Some(Instant::now())));
        let told = down_since.clone();
        let flap = move || {
            let tell = |since| *told.lock().unwrap_or_else(PoisonError::into_inner) = since;
            let waits = |time| stopped.recv_timeout(time) == Err(RecvTimeoutError::Timeout);
            let mut times = 1;
            loop {
                let goes_on = waits(down);
                tell(None);
                lock(&network).heal(cut)?;
                if !goes_on || !waits(up) {
                    return Ok(times);
                }
                cut = lock(&network).cut_directions(&directions)?;
                tell(Some(Instant::now()));
                times += 1;
            }
        };
        let thread = thread::Builder::new().name("flapping".into()).spawn(flap);
        let thread =
            thread.map_err(|source| Error::Lab { what: "start a thread", problem: source })?;
        Ok(Self { stop: Some(stop), down_since, thread: Some(thread) })
    }

    /// Since when it is cut, if it is now.
    pub fn down_since(&self) -> Option<Instant> {
        *self.down_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Heals it for good; how many times it was cut.
    pub fn stop(mut self) -> Result<u64, Error> {
        self.end().unwrap_or(Ok(0))
    }

    fn end(&mut self) -> Option<Result<u64, Error>> {
        drop(self.stop.take());
        self.thread.take()?.join().ok()
    }
}

impl Drop for Flapping {
    fn drop(&mut self) {
        self.end();
    }
}

fn lock(network: &Mutex<Network>) -> std::sync::MutexGuard<'_, Network> {
    network.lock().unwrap_or_else(PoisonError::into_inner)
}
