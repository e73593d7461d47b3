//! A small sound spec that unit tests vary.

use std::time::Duration;

use crate::spec::{Arrivals, Consistency, KeyDistribution, Keys, LoadSpec};

pub(crate) fn spec() -> LoadSpec {
    LoadSpec {
        arrivals: Arrivals::Constant { rate_per_second: 1000.0 },
        connections: 4,
        timeout: Duration::from_secs(5),
        max_outstanding: 20_000,
        reads: Consistency::Linearizable,
        put_share: 0.5,
        keys: Keys {
            prefix: "test/".to_owned(),
            count: 100,
            distribution: KeyDistribution::Uniform,
        },
        value_bytes: 32,
        warmup: Duration::from_secs(1),
        measure: Duration::from_secs(10),
        drain: Duration::from_secs(6),
        seed: 1,
    }
}
