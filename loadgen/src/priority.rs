//! Who goes first: a worker's thread, as long as it needs little.
//!
//! A generator needs a small part of a core, but that at once; so its thread runs before all
//! others where the user may ask for that (as root, or with an rtprio limit). Where not, the send
//! lag tells. Measured with three etcd on the same two cores at 2,000/s: p99 of the send lag 0.1 ms
//! with it, 1.2 to 1.8 ms without (results/README.md).
//!
//! Invariant: a thread that takes most of a core does not go first. It would starve the cluster
//! that it measures, and Linux stops it (for 50 ms in each second, by `sched_rt_runtime_us`), which
//! then looks like the cluster's stalls.

use std::time::{Duration, Instant};

use thread_priority::unix::{ScheduleParams, set_thread_priority_and_policy, thread_native_id};
use thread_priority::{
    NormalThreadSchedulePolicy, RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
};

/// How often its need is looked at: well before the second in which Linux would stop it is over.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// From this share of a core on it goes first no more.
const MOST: f64 = 0.85;
/// Below this share it goes first again.
const LITTLE: f64 = 0.6;

/// Has this thread go first while it needs little. Never ends; to be dropped with its thread.
pub(crate) async fn first_while_it_needs_little(cpu_seconds: impl Fn() -> f64) {
    let mut first = true;
    if !apply(first) {
        return;
    }
    let (mut looked, mut used) = (Instant::now(), cpu_seconds());
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let (now, cpu) = (Instant::now(), cpu_seconds());
        let next = goes_first(first, (cpu - used) / (now - looked).as_secs_f64());
        if next != first {
            first = next;
            apply(first);
        }
        (looked, used) = (now, cpu);
    }
}

fn goes_first(first: bool, share_of_core: f64) -> bool {
    share_of_core < if first { MOST } else { LITTLE }
}

/// False if the user may not.
fn apply(first: bool) -> bool {
    let (policy, sched_priority) = if first {
        (ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo), 1)
    } else {
        (ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Other), 0)
    };
    let priority = ThreadPriority::from_posix(ScheduleParams { sched_priority });
    set_thread_priority_and_policy(thread_native_id(), priority, policy).is_ok()
}

#[cfg(test)]
mod tests {
    use super::goes_first;

    #[test]
    fn a_busy_generator_does_not_go_first_until_it_needs_little_again() {
        let shares = [0.1, 0.8, 0.9, 0.8, 0.7, 0.5, 0.8];
        let mut first = true;
        let went: Vec<bool> = shares
            .iter()
            .map(|share| {
                first = goes_first(first, *share);
                first
            })
            .collect();
        assert_eq!(went, [true, true, false, false, false, true, true]);
    }
}
