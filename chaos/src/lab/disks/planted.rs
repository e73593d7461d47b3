//! Planted bugs of the feature `seeded-bugs`: the checks must catch each of them.

/// What is done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bug {
    /// A sync answers and persists nothing.
    SyncDoesNotPersist,
    /// Everything is served at once.
    LatencyIgnored,
    /// A burst has no end.
    CreditsNeverRunOut,
}

/// Whether this bug is asked for, by `RAFTBENCH_SEEDED_BUG`.
pub(super) fn planted(bug: Bug) -> bool {
    #[cfg(feature = "seeded-bugs")]
    {
        static ASKED: std::sync::LazyLock<Option<String>> =
            std::sync::LazyLock::new(|| std::env::var("RAFTBENCH_SEEDED_BUG").ok());
        let name = match bug {
            Bug::SyncDoesNotPersist => "disk-sync-does-not-persist",
            Bug::LatencyIgnored => "disk-latency-ignored",
            Bug::CreditsNeverRunOut => "disk-credits-never-run-out",
        };
        ASKED.as_deref() == Some(name)
    }
    #[cfg(not(feature = "seeded-bugs"))]
    {
        let _ = bug;
        false
    }
}
