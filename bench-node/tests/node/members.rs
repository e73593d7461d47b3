//! Members come, learn, vote and go, while clients work; `etcdctl` asks for it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use api::admin::admin_client::AdminClient;
use api::admin::{ChangeMembershipRequest, ListMembershipRequest};
use api::etcdserverpb::MemberUpdateRequest;
use bench_node::NodeError;
use bench_node::disk::Blocking;
use tonic::Code;

use crate::cluster::{Cluster, DEADLINE, Node, etcdctl, etcdctl_ok, eventually, free_port};
use crate::load::Load;
use crate::metrics::scrape;

/// A snapshot every hundred entries, and segments small enough to go.
const SHORT_LOG: &str = "snapshot_entries = 100\nsnapshot_keep_entries = 10\nsegment_bytes = 65536";

fn hex(id: u64) -> String {
    format!("{id:x}")
}

/// Waits until all that run list just these, all started, with these learners.
async fn all_list(cluster: &Cluster, names: &[&str], learners: &[&str]) {
    let names: BTreeSet<_> = names.iter().map(|name| (*name).to_owned()).collect();
    eventually("all list the same members", async || {
        for node in cluster.nodes.iter().filter(|node| node.handle.is_some()) {
            let members = node.members().await;
            let seen: BTreeSet<_> = members.iter().map(|member| member.name.clone()).collect();
            let learning = members.iter().filter(|member| member.is_learner);
            let learning: Vec<_> = learning.map(|member| member.name.as_str()).collect();
            if seen != names || learning != learners {
                return false;
            }
        }
        true
    })
    .await;
}

/// Adds a member as etcdctl does, and starts it.
async fn add(cluster: &mut Cluster, name: &str, learner: bool) -> usize {
    let mut node = cluster.joiner(name);
    let urls = format!("--peer-urls=http://{}", node.config.own().peer);
    let mut args = vec!["member", "add", name, &urls];
    if learner {
        args.push("--learner");
    }
    let through = cluster.nodes.iter().position(|node| node.handle.is_some()).expect("one runs");
    let text = etcdctl_ok(&cluster.nodes[through], &args).await;
    assert!(text.contains("added to cluster"), "{text}");
    assert!(text.contains(&format!("{name}=http://{}", node.config.own().peer)), "{text}");
    node.start();
    cluster.nodes.push(node);
    cluster.nodes.len() - 1
}

/// Asks until it is granted; what was answered meanwhile is told if it never is.
async fn eventually_with(
    answers: &mut BTreeSet<String>,
    mut holds: impl AsyncFnMut(&mut BTreeSet<String>) -> bool,
) {
    let deadline = Instant::now() + DEADLINE;
    while !holds(answers).await {
        assert!(Instant::now() < deadline, "not in time; it was answered: {answers:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn ends(node: &mut Node) -> NodeError {
    let handle = node.handle.take().expect("it runs");
    eventually("the node ends by itself", async || handle.is_finished()).await;
    handle.stop().expect_err("it ends with an error")
}

async fn assert_hold_the_same(cluster: &Cluster) {
    let leader = cluster.leader().await;
    let applied = scrape(&cluster.nodes[leader]).await["raft_applied_index"];
    let mut hashes = BTreeSet::new();
    for node in cluster.nodes.iter().filter(|node| node.handle.is_some()) {
        eventually("it has what the leader has", async || {
            scrape(node).await["raft_applied_index"] >= applied
        })
        .await;
        let text = etcdctl_ok(node, &["endpoint", "hashkv"]).await;
        hashes.insert(text.split_whitespace().last().map(str::to_owned));
    }
    assert_eq!(hashes.len(), 1, "{hashes:?}");
}

#[tokio::test]
async fn a_learner_is_added_catches_up_and_gets_its_vote_under_load() {
    let mut cluster = Cluster::start(3, "");
    let leader = cluster.leader().await;
    let load = Load::start(cluster.nodes.iter().map(|node| node.client));
    load.goes_on(50).await;

    let joiner = cluster.joiner("n4");
    let urls = format!("--peer-urls=http://{}", joiner.config.own().peer);
    let follower = &cluster.nodes[(leader + 1) % 3];
    let text = etcdctl_ok(follower, &["member", "add", "n4", &urls, "--learner"]).await;
    assert!(text.contains("added to cluster"), "{text}");
    let list = etcdctl_ok(follower, &["member", "list"]).await;
    assert!(list.contains("unstarted, , http://"), "{list}");
    assert!(list.contains(", true"), "{list}");
    let id = cluster.nodes[leader].members().await;
    let id = id.iter().find(|member| member.is_learner).expect("it is listed").id;
    let (text, success) = etcdctl(follower, &["member", "promote", &hex(id)]).await;
    assert!(!success && text.contains("which is in sync with leader"), "{text}");
    let (text, success) = etcdctl(follower, &["member", "add", "n5", &urls]).await;
    assert!(!success && text.contains("Peer URLs already exists"), "{text}");

    cluster.nodes.push(joiner);
    cluster.nodes[3].start();
    all_list(&cluster, &["n1", "n2", "n3", "n4"], &["n4"]).await;
    let status = cluster.nodes[3].status().await.expect("it answers");
    assert!(status.is_learner);
    eventually("it has caught up", async || {
        etcdctl(&cluster.nodes[3], &["member", "promote", &hex(id)]).await.1
    })
    .await;
    all_list(&cluster, &["n1", "n2", "n3", "n4"], &[]).await;
    load.goes_on(50).await;
    let done = load.stop().await;
    assert!(done.failures.is_empty(), "{:#?}", done.failures);
    done.assert_held_by(&cluster.nodes[3]).await;
    assert_hold_the_same(&cluster).await;

    // It counts: with one of the four down it makes the majority, and it may lead.
    let leader = cluster.leader().await;
    let (text, success) = etcdctl(&cluster.nodes[leader], &["move-leader", &hex(id)]).await;
    assert!(success, "{text}");
    assert_eq!(cluster.leader().await, 3);
    cluster.nodes[0].stop();
    cluster.nodes[3].put("k", "v").await.expect("three of four are a majority");
}

/// From one member to three. The first one is alone when it adds the second, which counts only once
/// it has started and caught up: until then nothing stands still.
#[tokio::test]
async fn a_cluster_grows_from_one_member() {
    let mut cluster = Cluster::start(1, "");
    cluster.leader().await;
    cluster.nodes[0].put("k", "v").await.expect("a put");
    for name in ["n2", "n3"] {
        add(&mut cluster, name, false).await;
        let names: Vec<_> = ["n1", "n2", "n3"][..cluster.nodes.len()].to_vec();
        all_list(&cluster, &names, &[]).await;
        eventually("it has its vote", async || {
            let mut admin = AdminClient::new(cluster.nodes[0].channel());
            let listed = admin.list_membership(ListMembershipRequest {}).await;
            listed.is_ok_and(|listed| listed.into_inner().members.iter().all(|m| m.voter))
        })
        .await;
    }
    cluster.nodes[0].stop();
    let leader = cluster.leader().await;
    assert_eq!(cluster.nodes[leader].get("k", false).await.expect("a read"), Some("v".into()));
    cluster.nodes[leader].put("k", "w").await.expect("two of three are a majority");
}

#[tokio::test]
async fn a_removed_follower_is_told_and_refused_and_disturbs_nobody() {
    let mut cluster = Cluster::start(3, "");
    let leader = cluster.leader().await;
    let load = Load::start([cluster.nodes[leader].client]);
    load.goes_on(20).await;
    let removed = (leader + 1) % 3;
    let (id, name) =
        (cluster.nodes[removed].config.id(), cluster.nodes[removed].config.name.clone());
    let term = cluster.nodes[leader].status().await.expect("it answers").raft_term;
    let text = etcdctl_ok(&cluster.nodes[removed], &["member", "remove", &hex(id)]).await;
    assert!(text.contains("removed from cluster"), "{text}");
    let error = ends(&mut cluster.nodes[removed]).await;
    assert!(matches!(error, NodeError::Removed), "{error}");
    assert!(error.to_string().contains("data directory can be deleted"), "{error}");
    for _ in 0..2 {
        cluster.nodes[removed].start();
        let error = ends(&mut cluster.nodes[removed]).await;
        assert!(matches!(error, NodeError::Removed), "{error}");
    }
    // The same name with an empty directory is the same founder: its id is never used again.
    std::fs::remove_dir_all(&cluster.nodes[removed].config.data_dir).expect("it is there");
    cluster.nodes[removed].start();
    let error = ends(&mut cluster.nodes[removed]).await;
    assert!(matches!(error, NodeError::Removed), "{error}");

    load.goes_on(20).await;
    let done = load.stop().await;
    assert!(done.failures.is_empty(), "{:#?}", done.failures);
    let node = &cluster.nodes[leader];
    assert_eq!(node.status().await.expect("it answers").raft_term, term);
    assert!(node.members().await.iter().all(|member| member.name != name));
    let label = format!("{{peer=\"{name}\"}}");
    let samples = scrape(node).await;
    assert!(samples.keys().all(|sample| !sample.contains(&label)), "{samples:?}");
    let (text, success) = etcdctl(node, &["member", "remove", &hex(id)]).await;
    assert!(!success && text.contains("member not found"), "{text}");
}

#[tokio::test]
async fn a_leader_that_is_removed_hands_over_and_nothing_is_lost() {
    let mut cluster = Cluster::start(4, "");
    let leader = cluster.leader().await;
    let others = (0..4).filter(|i| *i != leader);
    let load = Load::start(others.map(|i| cluster.nodes[i].client));
    load.goes_on(50).await;
    let id = cluster.nodes[leader].config.id();
    // Through another member: that one will tell what came of it.
    let text = etcdctl_ok(&cluster.nodes[(leader + 1) % 4], &["member", "remove", &hex(id)]).await;
    assert!(text.contains("removed from cluster"), "{text}");
    let error = ends(&mut cluster.nodes[leader]).await;
    assert!(matches!(error, NodeError::Removed), "{error}");
    let second = cluster.leader().await;
    load.goes_on(50).await;
    let done = load.stop().await;
    assert_eq!(done.failed_reads, 0, "{:#?}", done.failures);
    done.assert_held_by(&cluster.nodes[second]).await;
    assert_hold_the_same(&cluster).await;
}

#[tokio::test]
async fn a_wiped_member_is_removed_added_again_and_catches_up_by_a_snapshot() {
    let mut cluster = Cluster::start(3, SHORT_LOG);
    let leader = cluster.leader().await;
    let wiped = (leader + 1) % 3;
    let (id, name) = (cluster.nodes[wiped].config.id(), cluster.nodes[wiped].config.name.clone());
    let staying: Vec<_> = (0..3).filter(|i| *i != wiped).map(|i| cluster.nodes[i].client).collect();
    let load = Load::start(staying);
    load.goes_on(300).await;
    cluster.nodes[wiped].abort();
    std::fs::remove_dir_all(&cluster.nodes[wiped].config.data_dir).expect("it is there");
    cluster.nodes[wiped].start();
    let error = ends(&mut cluster.nodes[wiped]).await;
    assert!(error.to_string().contains("remove it from the cluster and add it again"), "{error}");

    etcdctl_ok(&cluster.nodes[leader], &["member", "remove", &hex(id)]).await;
    cluster.nodes.remove(wiped);
    let back = add(&mut cluster, &name, false).await;
    all_list(&cluster, &["n1", "n2", "n3"], &[]).await;
    load.goes_on(100).await;
    let node = &cluster.nodes[back];
    eventually("it came by a snapshot", async || {
        scrape(node).await["snapshots_received_total"] >= 1.0
    })
    .await;
    let done = load.stop().await;
    assert!(done.failures.is_empty(), "{:#?}", done.failures);
    done.assert_held_by(node).await;
    assert_hold_the_same(&cluster).await;
    assert_ne!(node.id().await, Some(id), "another id");
}

#[tokio::test]
async fn several_members_change_at_once_and_the_log_wins_over_the_configuration() {
    let mut cluster = Cluster::start(3, "");
    let leader = cluster.leader().await;
    let load = Load::start([cluster.nodes[1].client, cluster.nodes[2].client]);
    let joiners = ["n4", "n5"].map(|name| cluster.joiner(name));
    let mut admin = AdminClient::new(cluster.nodes[leader].channel());
    let all: Vec<_> = cluster.nodes.iter().map(|node| node.config.id()).collect();
    let added = joiners.iter().map(|node| node.config.own().peer.clone()).collect();
    let learning = ChangeMembershipRequest {
        voters: all.clone(),
        added_learners: added,
        ..Default::default()
    };
    let members = admin.change_membership(learning.clone()).await.expect("it is done");
    let members = members.into_inner().members;
    assert_eq!(members.iter().filter(|member| !member.voter).count(), 2, "{members:?}");
    let ids: Vec<_> = members.iter().filter(|m| !m.voter).map(|member| member.id).collect();
    let twice = ChangeMembershipRequest { learners: ids.clone(), ..learning };
    let twice = admin.change_membership(twice).await.expect_err("they are there");
    assert_eq!(twice.code(), Code::FailedPrecondition, "{twice}");
    assert!(twice.message().contains("Peer URLs already exists"), "{twice}");
    // n1 goes, two come: that needs the majorities of both.
    let voters: Vec<_> = all[1..].iter().chain(&ids).copied().collect();
    let whole = ChangeMembershipRequest { voters, ..Default::default() };
    let early = admin.change_membership(whole.clone()).await.expect_err("they are not there yet");
    assert!(early.message().contains("no data directory yet"), "{early}");
    cluster.nodes.extend(joiners);
    cluster.nodes[3].start();
    cluster.nodes[4].start();
    let mut admin = AdminClient::new(cluster.nodes[1].channel());
    eventually_with(&mut BTreeSet::new(), async |answers| {
        let answer = admin.change_membership(whole.clone()).await;
        answer.map_err(|status| answers.insert(status.to_string())).is_ok()
    })
    .await;
    let error = ends(&mut cluster.nodes[0]).await;
    assert!(matches!(error, NodeError::Removed), "{error}");
    all_list(&cluster, &["n2", "n3", "n4", "n5"], &[]).await;
    load.goes_on(30).await;
    let done = load.stop().await;
    assert_eq!(done.failed_reads, 0, "{:#?}", done.failures);

    // All restart; the founders' configurations still list n1, and nobody else.
    for node in &mut cluster.nodes[1..] {
        node.stop();
    }
    for node in &mut cluster.nodes[1..] {
        node.start();
    }
    let leader = cluster.leader().await;
    all_list(&cluster, &["n2", "n3", "n4", "n5"], &[]).await;
    done.assert_held_by(&cluster.nodes[leader]).await;
    assert_hold_the_same(&cluster).await;
}

#[tokio::test]
async fn a_member_moves_to_another_address() {
    let mut cluster = Cluster::start(3, "");
    let leader = cluster.leader().await;
    let moved = (leader + 1) % 3;
    let id = cluster.nodes[moved].config.id();
    cluster.nodes[moved].stop();
    let address = free_port().to_string();
    let taken = format!("--peer-urls=http://{}", cluster.nodes[leader].config.own().peer);
    let (text, success) =
        etcdctl(&cluster.nodes[leader], &["member", "update", &hex(id), &taken]).await;
    assert!(!success && text.contains("Peer URLs already exists"), "{text}");
    let urls = format!("--peer-urls=http://{address}");
    let text = etcdctl_ok(&cluster.nodes[leader], &["member", "update", &hex(id), &urls]).await;
    assert!(text.contains("updated in cluster"), "{text}");
    let node = &mut cluster.nodes[moved];
    node.config.peer_listen.clone_from(&address);
    for member in node.config.members.iter_mut().filter(|member| member.id == id) {
        member.peer.clone_from(&address);
    }
    node.start();
    cluster.nodes[leader].put("k", "v").await.expect("a put");
    let node = &cluster.nodes[moved];
    eventually("it follows again", async || {
        node.get("k", true).await.is_ok_and(|value| value.as_deref() == Some("v"))
    })
    .await;
    let members = cluster.nodes[leader].members().await;
    let urls = members.iter().find(|member| member.id == id).map(|member| &member.peer_ur_ls);
    assert_eq!(urls, Some(&vec![format!("http://{address}")]));
}

/// While it was away everyone that it knew has gone: whoever leads now finds it, and is answered
/// where it says that it is.
#[tokio::test]
async fn a_member_that_was_away_meets_a_cluster_of_strangers() {
    let mut cluster = Cluster::start(3, "");
    cluster.leader().await;
    cluster.nodes[2].stop();
    for (name, old, asked) in [("n4", 0, 1), ("n5", 1, 3)] {
        let joiner = cluster.joiner(name);
        let mut admin = AdminClient::new(cluster.nodes[asked].channel());
        let now = cluster.nodes[asked].members().await;
        let request = ChangeMembershipRequest {
            voters: now.iter().map(|member| member.id).collect(),
            added_learners: vec![joiner.config.own().peer.clone()],
            ..Default::default()
        };
        let members = admin.change_membership(request).await.expect("it is added");
        let members = members.into_inner().members;
        cluster.nodes.push(joiner);
        cluster.nodes.last_mut().expect("it was pushed").start();
        let gone = cluster.nodes[old].id().await.expect("it answers");
        let staying = members.iter().map(|member| member.id).filter(|id| *id != gone);
        let request = ChangeMembershipRequest { voters: staying.collect(), ..Default::default() };
        let mut answers = BTreeSet::new();
        eventually_with(&mut answers, async |answers| {
            let answer = admin.change_membership(request.clone()).await;
            answer.map_err(|status| answers.insert(status.to_string())).is_ok()
        })
        .await;
        let error = ends(&mut cluster.nodes[old]).await;
        assert!(matches!(error, NodeError::Removed), "{error}");
    }
    let leader = cluster.leader().await;
    cluster.nodes[leader].put("k", "w").await.expect("two of three are a majority");
    cluster.nodes[2].start();
    eventually("it follows the strangers", async || {
        cluster.nodes[2].get("k", true).await.is_ok_and(|value| value.as_deref() == Some("w"))
    })
    .await;
    all_list(&cluster, &["n3", "n4", "n5"], &[]).await;
}

#[tokio::test]
async fn a_node_that_nobody_added_does_not_join() {
    let cluster = Cluster::start(1, "");
    cluster.leader().await;
    let mut node = cluster.joiner("n2");
    node.handle = Some(node.try_start(Blocking).expect("it starts"));
    let error = ends(&mut node).await;
    assert!(matches!(error, NodeError::NotAdded { .. }), "{error}");
    assert!(error.to_string().contains("etcdctl member add n2 --peer-urls=http://"), "{error}");
}

#[tokio::test]
async fn two_members_do_not_have_one_name() {
    let mut cluster = Cluster::start(1, "");
    cluster.leader().await;
    let joiner = add(&mut cluster, "n2", true).await;
    all_list(&cluster, &["n1", "n2"], &["n2"]).await;
    let id = cluster.nodes[joiner].id().await.expect("it answers");
    etcdctl_ok(&cluster.nodes[0], &["member", "remove", &hex(id)]).await;
    ends(&mut cluster.nodes[joiner]).await;
    cluster.nodes.remove(joiner);
    // Its name is free again; that of n1 is not.
    let joiner = add(&mut cluster, "n1", true).await;
    let error = ends(&mut cluster.nodes[joiner]).await.to_string();
    assert!(error.contains("another member is called \"n1\""), "{error}");
}

/// It may be so no more: a later leader may have changed it.
#[tokio::test]
async fn that_it_is_so_already_is_not_said_by_a_leader_alone() {
    let mut cluster = Cluster::start(3, "");
    let leader = cluster.leader().await;
    let id = cluster.nodes[leader].id().await.expect("it has one");
    let mut client = cluster.nodes[leader].cluster_api();
    let peer_ur_ls = vec![format!("http://{}", cluster.nodes[leader].config.own().peer)];
    let request = MemberUpdateRequest { id, peer_ur_ls };
    client.member_update(request.clone()).await.expect("a majority says so");
    for follower in (0..3).filter(|node| *node != leader) {
        cluster.nodes[follower].abort();
    }
    client.member_update(request).await.expect_err("nobody else says so");
}
