//! The faults as the command line has them. What they may be is checked by the agent.

use api::agent::fault::Kind;
use api::agent::{
    CpuLimit, Fault, IoLimit, MemoryLimit, Netem, Partition, Process, Spread, Way, process,
};
use clap::ValueEnum;

/// Which fault.
#[derive(Debug, clap::Subcommand)]
pub(super) enum FaultArgs {
    /// Delay, lose, copy, reorder, spoil or slow down what the host sends by an interface
    Netem(NetemArgs),
    /// Drop the packets of some peers; the agent's own connections stay
    Partition(PartitionArgs),
    /// Limit a control group's IO on a disk
    Io(IoArgs),
    /// Limit a control group's CPU time
    Cpu(CpuArgs),
    /// Limit a control group's memory
    Memory(MemoryArgs),
    /// Kill a process with -9; started again at the end
    Kill(ProcessArgs),
    /// Stop a process; it goes on at the end
    Pause(ProcessArgs),
    /// Restart a unit of systemd
    Restart(ProcessArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct NetemArgs {
    #[arg(long, value_name = "NAME")]
    interface: String,
    #[arg(long, value_name = "N", default_value_t = 0.0)]
    delay_ms: f64,
    #[arg(long, value_name = "N", default_value_t = 0.0)]
    jitter_ms: f64,
    /// How jitter is distributed
    #[arg(long, value_enum, default_value_t = SpreadArg::Normal)]
    spread: SpreadArg,
    #[arg(long, value_name = "N", default_value_t = 0.0)]
    loss_percent: f64,
    #[arg(long, value_name = "N", default_value_t = 0.0)]
    duplicate_percent: f64,
    #[arg(long, value_name = "N", default_value_t = 0.0)]
    reorder_percent: f64,
    #[arg(long, value_name = "N", default_value_t = 0.0)]
    corrupt_percent: f64,
    /// Bits per second; 0: not limited
    #[arg(long, value_name = "N", default_value_t = 0)]
    rate_bits_per_second: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SpreadArg {
    Normal,
    Uniform,
    Pareto,
}

#[derive(Debug, clap::Args)]
pub(super) struct PartitionArgs {
    #[arg(long, value_name = "NAME")]
    interface: String,
    /// Their IP addresses
    #[arg(long, value_name = "LIST", value_delimiter = ',', required = true)]
    peers: Vec<String>,
    /// Which packets: what comes from them (in), what goes to them (out), or both
    #[arg(long, value_enum, default_value_t = WayArg::Both)]
    way: WayArg,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum WayArg {
    Both,
    In,
    Out,
}

#[derive(Debug, clap::Args)]
pub(super) struct IoArgs {
    /// Its path below where cgroups are mounted, such as system.slice/etcd.service
    #[arg(long, value_name = "PATH")]
    cgroup: String,
    #[arg(long, value_name = "PATH")]
    device: String,
    #[arg(long, value_name = "N", default_value_t = 0)]
    read_bytes_per_second: u64,
    #[arg(long, value_name = "N", default_value_t = 0)]
    write_bytes_per_second: u64,
    #[arg(long, value_name = "N", default_value_t = 0)]
    reads_per_second: u64,
    #[arg(long, value_name = "N", default_value_t = 0)]
    writes_per_second: u64,
}

#[derive(Debug, clap::Args)]
pub(super) struct CpuArgs {
    /// Its path below where cgroups are mounted, such as system.slice/etcd.service
    #[arg(long, value_name = "PATH")]
    cgroup: String,
    /// How many processors' time it has, such as 0.5
    #[arg(long, value_name = "N")]
    cpus: f64,
}

#[derive(Debug, clap::Args)]
pub(super) struct MemoryArgs {
    /// Its path below where cgroups are mounted, such as system.slice/etcd.service
    #[arg(long, value_name = "PATH")]
    cgroup: String,
    /// More is not to be had
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_bytes: u64,
    /// Beyond it its processes are slowed down (cgroup v2)
    #[arg(long, value_name = "N", default_value_t = 0)]
    high_bytes: u64,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(super) struct ProcessArgs {
    /// The main process of a unit of systemd
    #[arg(long, value_name = "NAME")]
    unit: Option<String>,
    /// One that the agent's configuration names
    #[arg(long, value_name = "NAME")]
    process: Option<String>,
}

impl FaultArgs {
    /// As it goes over the wire.
    pub(super) fn fault(self) -> Fault {
        let kind = match self {
            Self::Netem(args) => Kind::Netem(Netem {
                interface: args.interface,
                delay_ms: args.delay_ms,
                jitter_ms: args.jitter_ms,
                spread: match args.spread {
                    SpreadArg::Normal => Spread::Normal,
                    SpreadArg::Uniform => Spread::Uniform,
                    SpreadArg::Pareto => Spread::Pareto,
                }
                .into(),
                loss_percent: args.loss_percent,
                loss_bursts: None,
                duplicate_percent: args.duplicate_percent,
                reorder_percent: args.reorder_percent,
                corrupt_percent: args.corrupt_percent,
                rate_bits_per_second: args.rate_bits_per_second,
            }),
            Self::Partition(args) => Kind::Partition(Partition {
                interface: args.interface,
                peers: args.peers,
                way: match args.way {
                    WayArg::Both => Way::Both,
                    WayArg::In => Way::In,
                    WayArg::Out => Way::Out,
                }
                .into(),
            }),
            Self::Io(args) => Kind::IoLimit(IoLimit {
                cgroup: args.cgroup,
                device: args.device,
                read_bytes_per_second: args.read_bytes_per_second,
                write_bytes_per_second: args.write_bytes_per_second,
                reads_per_second: args.reads_per_second,
                writes_per_second: args.writes_per_second,
            }),
            Self::Cpu(args) => Kind::CpuLimit(CpuLimit { cgroup: args.cgroup, cpus: args.cpus }),
            Self::Memory(args) => Kind::MemoryLimit(MemoryLimit {
                cgroup: args.cgroup,
                max_bytes: args.max_bytes,
                high_bytes: args.high_bytes,
            }),
            Self::Kill(args) => Kind::Kill(args.process()),
            Self::Pause(args) => Kind::Pause(args.process()),
            Self::Restart(args) => Kind::Restart(args.process()),
        };
        Fault { kind: Some(kind) }
    }
}

impl ProcessArgs {
    fn process(self) -> Process {
        let unit = self.unit.map(process::Named::Unit);
        Process { named: unit.or(self.process.map(process::Named::Process)) }
    }
}
