//! `raftbench load`: the generator alone, against endpoints that serve etcd's API or against the
//! null target. No cluster is started, nothing is judged but the generator itself.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use loadgen::calibrate::{Calibration, find_ceiling};
use loadgen::clock::RunClock;
use loadgen::record::LoadResult;
use loadgen::spec::{Arrivals, Consistency, KeyDistribution, Keys, LoadSpec, MIN_VALUE_BYTES};
use loadgen::summary::{LoadSummary, Quantiles, generator_cpu_share};
use loadgen::target::Api;
use loadgen::target::null::NullServer;
use loadgen::{Load, Progress};
use serde::Serialize;

/// A frame of a session holds 2 MiB.
const MAX_SESSION_VALUE_BYTES: usize = 1 << 20;
/// A result past the generator's limit is invalid.
const EXIT_INVALID: u8 = 4;

/// Arguments of `load`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    whom: Whom,
    /// Operations per second (not for closed arrivals)
    #[arg(long, value_name = "N", default_value_t = 1000.0)]
    rate: f64,
    /// Length of the measured phase
    #[arg(long, value_name = "N", default_value_t = 10.0)]
    seconds: f64,
    /// Load before the measured phase
    #[arg(long, value_name = "N", default_value_t = 1.0)]
    warmup_seconds: f64,
    /// When operations are due; closed hides stalls
    #[arg(long, value_enum, default_value_t = ArrivalsArg::Poisson)]
    arrivals: ArrivalsArg,
    /// Clients of a closed load, each with one operation under way
    #[arg(long, value_name = "N", default_value_t = 16)]
    clients: usize,
    /// Connections, spread over the endpoints
    #[arg(long, value_name = "N", default_value_t = 16)]
    connections: usize,
    /// Share of puts; the others are gets
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    puts: f64,
    /// Gets read the asked node's own state
    #[arg(long)]
    serializable: bool,
    /// How many keys, uniformly
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    keys: u32,
    /// Size of every value
    #[arg(long, value_name = "N", default_value_t = 256)]
    value_bytes: usize,
    /// After it, an operation's outcome is unknown
    #[arg(long, value_name = "N", default_value_t = 5000)]
    timeout_ms: u64,
    /// Seeds arrivals, keys and the mix
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// With --null: when it stops answering (it goes on accepting), in the measured phase
    #[arg(long, value_name = "N", requires_all = ["null", "stall_ms"])]
    stall_at_s: Option<f64>,
    /// With --null: for how long
    #[arg(long, value_name = "N", requires_all = ["null", "stall_at_s"])]
    stall_ms: Option<u64>,
    /// With --null: raise the rate until the generator is past its limit
    #[arg(long, requires = "null", conflicts_with_all = ["stall_at_s", "arrivals"])]
    ceiling: bool,
    /// Speak bench-node's session API instead of etcd's
    #[arg(long, conflicts_with = "null")]
    session: bool,
    /// Print one JSON document instead of the table
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Whom {
    /// What serves etcd's API: host:port, separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    endpoints: Vec<String>,
    /// A server in this process that answers at once: what is measured is the generator
    #[arg(long)]
    null: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum ArrivalsArg {
    Constant,
    Poisson,
    Closed,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let spec = args.spec()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if args.ceiling {
        let steps = runtime.block_on(find_ceiling(args.rate, spec.measure))?;
        let text = if args.json { to_json(&steps)? } else { steps_text(&steps) };
        io::stdout().write_all(text.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let result = runtime.block_on(args.load(&spec))?;
    let outcome = Outcome::new(&spec, &result);
    let text = if args.json { to_json(&outcome)? } else { outcome.text(&result) };
    io::stdout().write_all(text.as_bytes())?;
    let invalid = outcome.generator_past_limit.is_some();
    Ok(if invalid { ExitCode::from(EXIT_INVALID) } else { ExitCode::SUCCESS })
}

impl Args {
    fn spec(&self) -> anyhow::Result<LoadSpec> {
        let seconds = |flag: &str, value: f64, least: f64| {
            ensure!(value >= least && value <= 1e6, "{flag}: {value} is not a sound length in s");
            Ok(Duration::from_secs_f64(value))
        };
        ensure!(self.rate > 0.0 && self.rate <= 1e7, "--rate: must be above 0, up to 10000000");
        ensure!((0.0..=1.0).contains(&self.puts), "--puts: must be from 0 to 1");
        ensure!(self.value_bytes >= MIN_VALUE_BYTES, "--value-bytes: at least {MIN_VALUE_BYTES}");
        ensure!(
            !self.session || self.value_bytes <= MAX_SESSION_VALUE_BYTES,
            "--value-bytes: at most {MAX_SESSION_VALUE_BYTES} with --session"
        );
        ensure!(self.keys > 0, "--keys: must be above 0");
        ensure!(self.connections > 0, "--connections: must be above 0");
        ensure!(self.clients > 0, "--clients: must be above 0");
        ensure!(self.timeout_ms > 0, "--timeout-ms: must be above 0");
        let timeout = Duration::from_millis(self.timeout_ms);
        let rate_per_second = self.rate;
        Ok(LoadSpec {
            arrivals: match self.arrivals {
                ArrivalsArg::Constant => Arrivals::Constant { rate_per_second },
                ArrivalsArg::Poisson => Arrivals::Poisson { rate_per_second },
                ArrivalsArg::Closed => Arrivals::Closed { clients: self.clients },
            },
            connections: self.connections,
            timeout,
            max_outstanding: ((self.rate * timeout.as_secs_f64() * 2.0) as usize).max(20_000),
            reads: if self.serializable {
                Consistency::Serializable
            } else {
                Consistency::Linearizable
            },
            put_share: self.puts,
            keys: Keys {
                prefix: format!(
                    "raftbench/{:x}/",
                    RunClock::starting_in(Duration::ZERO).zero_unix_ns()
                ),
                count: self.keys,
                distribution: KeyDistribution::Uniform,
            },
            value_bytes: self.value_bytes,
            warmup: seconds("--warmup-seconds", self.warmup_seconds, 0.0)?,
            measure: seconds("--seconds", self.seconds, 0.1)?,
            drain: timeout + Duration::from_secs(1),
            seed: self.seed,
        })
    }

    async fn load(&self, spec: &LoadSpec) -> anyhow::Result<LoadResult> {
        let null = if self.whom.null { Some(NullServer::start()?) } else { None };
        let endpoints = match &null {
            Some(null) => vec![null.endpoint()],
            None => self.whom.endpoints.clone(),
        };
        let api = if self.session { Api::Session } else { Api::Etcd };
        let load = Load::connect_by(api, spec, &endpoints).await?;
        let clock = RunClock::starting_in(spec.warmup + Duration::from_millis(20));
        if let (Some(null), Some(at_s), Some(ms)) = (&null, self.stall_at_s, self.stall_ms) {
            let from = Duration::try_from_secs_f64(at_s).context("--stall-at-s")?;
            null.stall_at(clock.instant_at(from.as_nanos() as i64), Duration::from_millis(ms));
        }
        let progress = Arc::new(Progress::default());
        let run = load.run(clock, progress.clone());
        let watched = async {
            tokio::select! {
                result = run => result,
                never = show(&progress, &clock) => never,
            }
        };
        let result = watched.await?;
        if io::stderr().is_terminal() {
            eprint!("\r\x1b[K");
        }
        Ok(result)
    }
}

/// A line on the terminal, for as long as it is polled.
async fn show<T>(progress: &Progress, clock: &RunClock) -> T {
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        if !io::stderr().is_terminal() {
            continue;
        }
        let now = progress.counters();
        eprint!(
            "\r\x1b[K{:>6.1} s  sent {}  ok {}  fail {}  unknown {}  waiting {}  longest {:.1} ms",
            clock.now_ns() as f64 / 1e9,
            now.sent,
            now.ok,
            now.fail,
            now.unknown,
            now.outstanding,
            progress.take_longest_us() as f64 / 1e3,
        );
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct Outcome {
    arrivals: &'static str,
    load: LoadSummary,
    generator_cpu_share: f64,
    generator_past_limit: Option<String>,
    errors: Vec<String>,
}

impl Outcome {
    fn new(spec: &LoadSpec, result: &LoadResult) -> Self {
        let load = LoadSummary::new(spec, result);
        Self {
            arrivals: match spec.arrivals {
                Arrivals::Constant { .. } => "constant",
                Arrivals::Poisson { .. } => "poisson",
                Arrivals::Closed { .. } => "closed (hides stalls)",
            },
            generator_past_limit: load.generator_past_limit(spec.arrivals),
            load,
            generator_cpu_share: generator_cpu_share(result),
            errors: result.errors.clone(),
        }
    }

    fn text(&self, result: &LoadResult) -> String {
        let load = &self.load;
        let mut table = tabled::builder::Builder::default();
        table.push_record(["ms", "p50", "p90", "p99", "p99.9", "max"]);
        for (name, row) in [
            ("latency, every operation", load.latency_us),
            ("latency, ok", load.ok_latency_us),
            ("service time, ok", load.service_time_us),
            ("send lag", load.send_lag_us),
        ] {
            let Quantiles { p50, p90, p99, p99_9, max, .. } = row;
            let ms = [p50, p90, p99, p99_9, max].map(|us| format!("{:.3}", us / 1000.0));
            table.push_record([name.to_owned()].into_iter().chain(ms));
        }
        let mut table = table.build();
        table.with(tabled::settings::Style::sharp());
        let operations = result.ops.len().max(1) as f64;
        let mut text = format!(
            "{} arrivals: offered {:.1}/s, achieved {:.1}/s; {} due, {} ok, {} fail, {} unknown\n\
             {table}\n\
             generator: {:.1} us of CPU per operation, {:.0} % of one core\n",
            self.arrivals,
            load.offered_per_second,
            load.achieved_per_second,
            load.scheduled,
            load.ok,
            load.fail,
            load.unknown,
            result.cpu_seconds * 1e6 / operations,
            self.generator_cpu_share * 100.0,
        );
        for error in &self.errors {
            text += &format!("error: {error}\n");
        }
        if let Some(past) = &self.generator_past_limit {
            text += &format!("invalid: {past}\n");
        }
        text
    }
}

fn to_json(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

fn steps_text(steps: &[Calibration]) -> String {
    let mut table = tabled::builder::Builder::default();
    table.push_record([
        "rate/s",
        "ok/s",
        "send lag p50 us",
        "p99 us",
        "latency p50 us",
        "p99 us",
        "CPU us/op",
        "",
    ]);
    for step in steps {
        let load = &step.load;
        table.push_record([
            format!("{:.0}", step.rate_per_second.unwrap_or_default()),
            format!("{:.0}", load.achieved_per_second),
            format!("{:.0}", load.send_lag_us.p50),
            format!("{:.0}", load.send_lag_us.p99),
            format!("{:.0}", load.latency_us.p50),
            format!("{:.0}", load.latency_us.p99),
            format!("{:.1}", step.cpu_us_per_operation),
            (if step.held() { "held" } else { "past its limit" }).to_owned(),
        ]);
    }
    format!("{}\n", table.build().with(tabled::settings::Style::sharp()))
}
