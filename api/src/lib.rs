//! The wire: generated types of the etcd v3 subset, of the session, of the agent, and of the peer
//! protocol. A leaf crate; it holds no behaviour, so that the load generator and the node meet only
//! over the network.

/// etcd's `etcdserverpb`: KV, Cluster, Maintenance.
#[allow(missing_docs, clippy::all, unreachable_pub)]
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

/// etcd's `mvccpb`: the stored key.
#[allow(missing_docs, clippy::all, unreachable_pub)]
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

/// Who the members of a bench-node cluster are, and what is asked of them.
#[allow(missing_docs, clippy::all, unreachable_pub)]
pub mod members {
    tonic::include_proto!("raftbench.members");
}

/// What bench-node offers beyond etcd's API.
#[allow(missing_docs, clippy::all, unreachable_pub)]
pub mod admin {
    tonic::include_proto!("raftbench.admin");
}

/// Faults on a real host, under leases.
#[allow(missing_docs, clippy::all, unreachable_pub)]
pub mod agent {
    tonic::include_proto!("raftbench.agent");
}

/// As deep as its package, for it names etcd's types.
mod raftbench {
    /// Many requests over one stream.
    #[allow(missing_docs, clippy::all, unreachable_pub)]
    pub mod session {
        tonic::include_proto!("raftbench.session");
    }
}
pub use raftbench::session;

/// The peer protocol of bench-node.
#[allow(missing_docs, clippy::all, unreachable_pub)]
pub mod peer {
    tonic::include_proto!("raftbench.peer");
}
