//! What the hypervisor gave to others: on a shared host a slow run may be the neighbours' doing.

use procfs::{CurrentSI, KernelStats};

/// The machine's CPU time since its start, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CpuTime {
    stolen: u64,
    all: u64,
}

impl CpuTime {
    /// `None` where the kernel does not count stolen time.
    pub(super) fn now() -> Option<Self> {
        let cpu = KernelStats::current().ok()?.total;
        let stolen = cpu.steal?;
        let busy = cpu.user + cpu.nice + cpu.system;
        let idle = cpu.idle + cpu.iowait.unwrap_or(0);
        let interrupts = cpu.irq.unwrap_or(0) + cpu.softirq.unwrap_or(0);
        Some(Self { stolen, all: busy + idle + interrupts + stolen })
    }

    /// The stolen share between two readings, 0 to 1.
    pub(super) fn stolen_share(before: Option<Self>, after: Option<Self>) -> Option<f64> {
        let (before, after) = (before?, after?);
        let all = after.all.saturating_sub(before.all);
        let stolen = after.stolen.saturating_sub(before.stolen);
        (all > 0).then(|| stolen as f64 / all as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_of_the_time_between() {
        let at = |stolen, all| Some(CpuTime { stolen, all });
        assert_eq!(CpuTime::stolen_share(at(10, 100), at(30, 200)), Some(0.2));
        assert_eq!(CpuTime::stolen_share(at(10, 100), at(10, 100)), None);
        assert_eq!(CpuTime::stolen_share(None, at(1, 2)), None);
    }
}
