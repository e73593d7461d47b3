//! Compiles the proto files with protox (pure Rust), so that no protoc is needed to build.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "etcd/kv.proto",
        "etcd/rpc.proto",
        "raftbench/members.proto",
        "raftbench/peer.proto",
        "raftbench/admin.proto",
        "raftbench/session.proto",
        "raftbench/agent.proto",
    ];
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure()
        // Keys, values and log entries travel as reference-counted slices of the receive buffer.
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
