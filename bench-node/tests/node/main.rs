//! Real nodes, over real sockets and directories. One test program, for building each costs more
//! than running it.

mod around_consensus;
mod cluster;
mod etcdctl;
mod failover;
mod gated;
mod large_reads;
mod load;
mod member_errors;
mod members;
mod metrics;
mod oracle;
mod refusals;
mod saves;
mod session;
mod snapshots;
mod stalled_disk;
mod transfer;
