//! What the Cluster API refuses, with etcd as the oracle: code and words, wherever etcd has them.

use api::etcdserverpb::cluster_client::ClusterClient;
use api::etcdserverpb::{
    MemberAddRequest, MemberListRequest, MemberPromoteRequest, MemberRemoveRequest,
    MemberUpdateRequest,
};
use tonic::Code;
use tonic::transport::Channel;

use crate::cluster::Cluster;
use crate::oracle::etcd::Etcd;

const MEMBER_EXISTS: &str = "etcdserver: member ID already exist";

type Refusal = Option<(Code, String)>;

fn refusal<T>(answer: Result<T, tonic::Status>) -> Refusal {
    answer.err().map(|status| (status.code(), status.message().to_owned()))
}

/// The same asks to a cluster of one; what each came to.
async fn ask(mut client: ClusterClient<Channel>) -> Vec<(&'static str, Refusal)> {
    let mut answers = Vec::new();
    let list = client.member_list(MemberListRequest { linearizable: true }).await.expect("a list");
    let own = list.into_inner().members[0].clone();
    let add = |urls: &[&str], is_learner| MemberAddRequest {
        peer_ur_ls: urls.iter().map(|url| (*url).to_owned()).collect(),
        is_learner,
    };
    for (what, urls) in [
        ("add without URLs", &[][..]),
        ("add what is no URL", &["127.0.0.1:1"]),
        ("add a URL without a port", &["http://127.0.0.1"]),
        ("add a URL with a path", &["http://127.0.0.1:1/x"]),
        ("add a URL of no scheme of etcd's", &["ftp://127.0.0.1:1"]),
    ] {
        answers.push((what, refusal(client.member_add(add(urls, true)).await)));
    }
    let taken = own.peer_ur_ls[0].as_str();
    let request = MemberRemoveRequest { id: 7 };
    answers.push(("remove nobody", refusal(client.member_remove(request).await)));
    let request = MemberRemoveRequest { id: own.id };
    answers.push(("remove the last", refusal(client.member_remove(request).await)));
    let request = MemberPromoteRequest { id: own.id };
    answers.push(("promote a voter, alone", refusal(client.member_promote(request).await)));
    let peer_ur_ls = vec!["http://127.0.0.1:9".to_owned()];
    let request = MemberUpdateRequest { id: 7, peer_ur_ls };
    answers.push(("update nobody", refusal(client.member_update(request).await)));
    let request = add(&[taken], true);
    answers.push(("add what is there", refusal(client.member_add(request).await)));

    let request = add(&["http://127.0.0.1:2"], true);
    let added = client.member_add(request).await;
    let learner = added.as_ref().ok().and_then(|added| added.get_ref().member.clone());
    answers.push(("add a learner", refusal(added)));
    let learner = learner.expect("it was added");
    assert!(learner.is_learner && learner.name.is_empty() && learner.client_ur_ls.is_empty());
    assert_eq!(learner.peer_ur_ls, ["http://127.0.0.1:2"]);
    let request = add(&["http://127.0.0.1:2"], false);
    answers.push(("add it twice", refusal(client.member_add(request).await)));
    let request = add(&["http://127.0.0.1:3"], true);
    answers.push(("add a second learner", refusal(client.member_add(request).await)));
    let peer_ur_ls = own.peer_ur_ls.clone();
    let request = MemberUpdateRequest { id: learner.id, peer_ur_ls };
    answers.push(("update to what is taken", refusal(client.member_update(request).await)));
    let peer_ur_ls = vec!["http://127.0.0.1:4".to_owned()];
    let request = MemberUpdateRequest { id: learner.id, peer_ur_ls };
    answers.push(("update the learner", refusal(client.member_update(request).await)));
    let request = MemberRemoveRequest { id: learner.id };
    answers.push(("remove the learner", refusal(client.member_remove(request).await)));
    answers.push(("remove it again", refusal(client.member_remove(request).await)));
    answers
}

#[tokio::test]
async fn the_cluster_api_refuses_as_etcd_does() {
    let cluster = Cluster::start(1, "");
    cluster.leader().await;
    let etcd = Etcd::start(cluster.path()).await;
    let theirs = ask(ClusterClient::new(etcd.channel.clone())).await;
    let ours = ask(cluster.nodes[0].cluster_api()).await;
    let refused = theirs.iter().filter(|(_, refusal)| refusal.is_some()).count();
    assert!(refused >= 10, "{theirs:#?}");
    for (theirs, ours) in theirs.iter().zip(&ours) {
        // etcd makes the same id of the same URL within the same second, and finds that first.
        let same_second = |(code, _): (Code, String)| (code, MEMBER_EXISTS.to_owned());
        let other = ours.1.clone().map(same_second);
        let is_alike = theirs == ours || (theirs.0 == "add it twice" && theirs.1 == other);
        assert!(is_alike, "etcd: {theirs:?}, bench-node: {ours:?}");
    }
    assert_eq!(theirs.len(), ours.len());
}

/// Where etcd takes more than this node does.
#[tokio::test]
async fn what_etcd_would_take_and_this_node_does_not_says_why() {
    let cluster = Cluster::start(1, "");
    cluster.leader().await;
    let mut client = cluster.nodes[0].cluster_api();
    let cases: [(&[&str], &str); 2] = [
        (&["http://127.0.0.1:1", "http://127.0.0.1:2"], "one peer URL"),
        (&["https://127.0.0.1:1"], "plain http"),
    ];
    for (urls, why) in cases {
        let peer_ur_ls = urls.iter().map(|url| (*url).to_owned()).collect();
        let refused = client.member_add(MemberAddRequest { peer_ur_ls, is_learner: true }).await;
        let status = refused.expect_err("it is refused");
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(why), "{status}");
    }
}
