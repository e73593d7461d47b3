//! What the generator itself can do on this machine: load against the null target, which answers
//! at once.
//!
//! Invariant: the null server shares the machine, so what is found is a floor of the generator's
//! ability, not a promise.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::RunClock;
use crate::engine::Load;
use crate::error::LoadError;
use crate::spec::{Arrivals, Consistency, KeyDistribution, Keys, LoadSpec};
use crate::summary::LoadSummary;
use crate::target::etcd::Etcd;
use crate::target::null::NullServer;

/// The generator at one rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// What was asked for; in closed loop, nothing was.
    pub rate_per_second: Option<f64>,
    /// What came of it.
    pub load: LoadSummary,
    /// CPU time of the generator's threads for each operation.
    pub cpu_us_per_operation: f64,
    /// Operations per second and second of the generator's CPU time: its ceiling per core.
    pub operations_per_core_second: f64,
    /// Why the generator was past its limit, if it was.
    pub past_limit: Option<String>,
}

/// Runs one load against a null server of its own.
pub async fn calibrate(spec: &LoadSpec) -> Result<Calibration, LoadError> {
    let null = NullServer::start()?;
    let target = Arc::new(Etcd::new(&[null.endpoint()])?);
    let load = Load::connect(spec, target).await?;
    let clock = RunClock::starting_in(spec.warmup + Duration::from_millis(20));
    let result = load.run(clock, Arc::default()).await?;
    let summary = LoadSummary::new(spec, &result);
    let operations = result.ops.len().max(1) as f64;
    let rate_per_second = match spec.arrivals {
        Arrivals::Constant { rate_per_second } | Arrivals::Poisson { rate_per_second } => {
            Some(rate_per_second)
        }
        Arrivals::Closed { .. } => None,
    };
    Ok(Calibration {
        rate_per_second,
        past_limit: summary.generator_past_limit(spec.arrivals),
        load: summary,
        cpu_us_per_operation: result.cpu_seconds * 1e6 / operations,
        operations_per_core_second: operations / result.cpu_seconds.max(f64::EPSILON),
    })
}

/// Doubles the rate from `from_per_second` until the generator is past its limit or falls behind,
/// then looks once between the last two. Gives every step.
pub async fn find_ceiling(
    from_per_second: f64,
    step: Duration,
) -> Result<Vec<Calibration>, LoadError> {
    let mut steps = Vec::new();
    let (mut rate_per_second, mut bracketed) = (from_per_second, false);
    loop {
        let seen = calibrate(&put_load(Arrivals::Poisson { rate_per_second }, step)).await?;
        let held = seen.held();
        steps.push(seen);
        if bracketed || rate_per_second > 1e7 {
            return Ok(steps);
        }
        if held {
            rate_per_second *= 2.0;
        } else {
            (rate_per_second, bracketed) = (rate_per_second * 0.75, true);
        }
    }
}

impl Calibration {
    /// Whether the generator kept to its rate within its limit.
    pub fn held(&self) -> bool {
        self.past_limit.is_none() && self.load.ok == self.load.scheduled
    }
}

/// 256-byte puts to 10,000 keys over 16 connections.
pub fn put_load(arrivals: Arrivals, measure: Duration) -> LoadSpec {
    LoadSpec {
        arrivals,
        connections: 16,
        timeout: Duration::from_secs(5),
        max_outstanding: 1_000_000,
        reads: Consistency::Linearizable,
        put_share: 1.0,
        keys: Keys {
            prefix: "calibrate/".to_owned(),
            count: 10_000,
            distribution: KeyDistribution::Uniform,
        },
        value_bytes: 256,
        warmup: Duration::from_secs(1),
        measure,
        drain: Duration::from_secs(6),
        seed: 1,
    }
}
