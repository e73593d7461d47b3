//! The experiments that go around the protocol: refused unless their setting is on, and caught by
//! the linearizability checker where it is.

use std::time::Instant;

use api::admin::admin_client::AdminClient;
use api::admin::{UnsafeLocalWriteRequest, UnsafeSwapConfigurationRequest};
use history::linearizability::{Limits, Verdict, check};
use history::{Consistency, Kind, Operation, Outcome};
use tonic::Code;

use crate::cluster::{Cluster, Node, eventually, run_program};

/// What a client did, one request after the other, each with an answer.
struct Recorded {
    began: Instant,
    operations: Vec<Operation>,
}

impl Recorded {
    fn new() -> Self {
        Self { began: Instant::now(), operations: Vec::new() }
    }

    fn now_ns(&self) -> i64 {
        self.began.elapsed().as_nanos() as i64
    }

    fn record(&mut self, op: Kind, value: Option<String>, invoke_ns: i64) {
        self.operations.push(Operation {
            process: 0,
            op,
            key: "k".to_owned(),
            value,
            expected: None,
            invoke_ns,
            complete_ns: Some(self.now_ns()),
            outcome: Outcome::Ok,
            consistency: Consistency::Linearizable,
            revision: None,
            node: None,
            error: None,
        });
    }

    async fn put(&mut self, node: &Node, value: &str) {
        let invoke_ns = self.now_ns();
        node.put("k", value).await.expect("a put");
        self.record(Kind::Put, Some(value.to_owned()), invoke_ns);
    }

    async fn get(&mut self, node: &Node) -> Option<String> {
        let invoke_ns = self.now_ns();
        let value = node.get("k", false).await.expect("a read");
        self.record(Kind::Get, value.clone(), invoke_ns);
        value
    }

    /// Past the log; whoever does it believes that it is written.
    async fn put_past_the_log(&mut self, node: &Node, value: &str) {
        let invoke_ns = self.now_ns();
        let request = UnsafeLocalWriteRequest { key: "k".into(), value: value.to_owned().into() };
        let written = AdminClient::new(node.channel()).unsafe_local_write(request).await;
        written.expect("the setting is on");
        self.record(Kind::Put, Some(value.to_owned()), invoke_ns);
    }

    fn verdict(&self) -> Verdict {
        check(&self.operations, &Limits::default()).verdict
    }
}

#[tokio::test]
async fn what_goes_around_the_protocol_is_refused_by_default() {
    let cluster = Cluster::start(1, "");
    cluster.leader().await;
    let mut admin = AdminClient::new(cluster.nodes[0].channel());
    let swap = UnsafeSwapConfigurationRequest { voters: vec![1] };
    let swap = admin.unsafe_swap_configuration(swap).await.expect_err("it is off");
    let write = UnsafeLocalWriteRequest { key: "k".into(), value: "v".into() };
    let write = admin.unsafe_local_write(write).await.expect_err("it is off");
    for (refused, setting) in
        [(swap, "unsafe_configuration_swap = true"), (write, "unsafe_local_write = true")]
    {
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains(setting), "{refused}");
    }
    assert_eq!(cluster.nodes[0].get("k", false).await.expect("a read"), None);
}

#[tokio::test]
async fn a_write_past_the_log_is_caught() {
    let cluster = Cluster::start(3, "unsafe_local_write = true");
    let leader = cluster.leader().await;
    let mut recorded = Recorded::new();
    recorded.put(&cluster.nodes[leader], "logged").await;
    assert_eq!(recorded.get(&cluster.nodes[leader]).await.as_deref(), Some("logged"));
    assert_eq!(recorded.verdict(), Verdict::Pass, "so far all is well");
    recorded.put_past_the_log(&cluster.nodes[leader], "past the log").await;
    assert_eq!(recorded.get(&cluster.nodes[leader]).await.as_deref(), Some("past the log"));
    // Whoever leads next never heard of it.
    let next = &cluster.nodes[(leader + 1) % 3];
    let (endpoint, id) =
        (cluster.nodes[leader].client.to_string(), format!("{:x}", next.config.id()));
    let args = ["--endpoints", &endpoint, "move-leader", &id];
    let (text, success) = run_program("etcdctl", "etcd-client", &args);
    assert!(success, "{text}");
    cluster.leader().await;
    assert_eq!(recorded.get(next).await.as_deref(), Some("logged"));
    assert_eq!(recorded.verdict(), Verdict::Fail);
}

/// Three members; somebody edits the configurations until one thinks that it is alone, and the two
/// others that they are.
#[tokio::test]
async fn a_configuration_swapped_on_each_member_is_caught() {
    let cluster = Cluster::start(3, "unsafe_configuration_swap = true");
    let leader = cluster.leader().await;
    let mut recorded = Recorded::new();
    recorded.put(&cluster.nodes[leader], "all").await;
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    let pair = others.map(|i| cluster.nodes[i].config.id()).to_vec();
    let alone = vec![cluster.nodes[leader].config.id()];
    for (member, voters) in [(leader, alone), (others[0], pair.clone()), (others[1], pair.clone())]
    {
        let request = UnsafeSwapConfigurationRequest { voters };
        let mut admin = AdminClient::new(cluster.nodes[member].channel());
        admin.unsafe_swap_configuration(request).await.expect("the setting is on");
    }
    eventually("the two elect a leader of their own", async || {
        let status = cluster.nodes[others[0]].status().await;
        status.is_some_and(|status| pair.contains(&status.leader))
    })
    .await;
    recorded.put(&cluster.nodes[others[0]], "the two").await;
    assert_eq!(recorded.get(&cluster.nodes[others[1]]).await.as_deref(), Some("the two"));
    assert_eq!(recorded.verdict(), Verdict::Pass, "so far the old leader was not asked");
    // It leads still, as it thinks.
    assert_eq!(recorded.get(&cluster.nodes[leader]).await.as_deref(), Some("all"));
    assert_eq!(recorded.verdict(), Verdict::Fail);
}
