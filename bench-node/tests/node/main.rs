//! Real nodes, over real sockets and directories. One test program, for building each costs more
//! than running it.

mod cluster;
mod etcdctl;
mod failover;
mod metrics;
mod oracle;
mod refusals;
