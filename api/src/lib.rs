//! The wire: generated types of the etcd v3 subset and of the peer protocol. A leaf crate; it
//! holds no behaviour, so that the load generator and the node meet only over the network.

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

/// The peer protocol of bench-node.
#[allow(missing_docs, clippy::all, unreachable_pub)]
pub mod peer {
    tonic::include_proto!("raftbench.peer");
}
