//! What a profile may say, what is refused, and whether each refusal names its place.

use std::time::Duration;

use loadgen::spec::Arrivals;
use loadgen::target::Api;
use raftbench::plan::{FaultKind, FaultTarget, Plan, Target};
use raftbench::profile::{Change, Profile, embedded};

const LEAST: &str = "[load]\nrate_per_second = 100\n[phases]\nmeasure_s = 20\n";

fn plan(text: &str, flags: &[&str]) -> Result<Plan, String> {
    let changes: Result<Vec<Change>, _> = flags.iter().map(|text| Change::set(text)).collect();
    let changes = changes.map_err(|error| error.to_string())?;
    let profile = Profile::from_text("test", "test.toml", text);
    profile.plan(&changes, 7, "test/").map_err(|error| error.to_string())
}

#[track_caller]
fn refused(text: &str, flags: &[&str], expected: &[&str]) {
    let error = plan(text, flags).expect_err("must be refused");
    for part in expected {
        assert!(error.contains(part), "`{error}`\ndoes not say `{part}`");
    }
}

fn with_fault(fault: &str) -> String {
    format!("{LEAST}[[faults]]\n{fault}\n")
}

#[test]
fn every_embedded_profile_is_a_plan_on_every_target() {
    assert!(embedded::names().contains(&"quickstart"));
    for name in embedded::names() {
        let profile = Profile::find(name).expect(name);
        assert!(!embedded::description(name).is_empty(), "{name} has no description");
        let targets = [("bench-node", "3"), ("etcd", "5"), ("bench-node-session", "7")];
        for (target, nodes) in targets {
            let nodes = Change::set(&format!("cluster.nodes={nodes}")).expect("a change");
            profile.plan(&[Change::target(target), nodes], 1, "p/").expect(name);
        }
    }
}

#[test]
fn the_resolved_profile_reads_as_the_same_plan() {
    for name in embedded::names() {
        let plan = Profile::find(name).and_then(|p| p.plan(&[], 9, "k/")).expect(name);
        let text = toml::to_string(&plan.to_profile()).expect("TOML");
        let again = Profile::from_text(name, "manifest.toml", &text);
        let mut again = again.plan(&[], 9, "k/").expect(name);
        // A repeated fault comes back as many.
        for (fault, original) in again.faults.iter_mut().zip(&plan.faults) {
            fault.id.clone_from(&original.id);
        }
        assert_eq!(again, plan, "{name}");
    }
}

#[test]
fn defaults_and_flags() {
    let plan_of = |flags: &[&str]| plan(LEAST, flags).expect("a plan");
    let least = plan_of(&[]);
    assert_eq!(least.cluster.target, Target::BenchNode);
    assert_eq!(least.load.arrivals, Arrivals::Poisson { rate_per_second: 100.0 });
    assert_eq!(least.load.drain, Duration::from_secs(6));
    assert!(least.load.max_outstanding >= 500);
    // A value needs no quotes on the command line, and may be any TOML.
    assert_eq!(plan_of(&["cluster.target=etcd"]).cluster.target, Target::Etcd);
    let flags = plan_of(&["cluster.etcd.flags=[\"--pre-vote=false\"]"]).cluster.etcd_flags;
    assert_eq!(flags, ["--pre-vote=false"]);
    let faults = with_fault("kind = \"kill\"\ntarget = \"leader\"\nat_s = 3");
    let moved = plan(&faults, &["faults.f1.at_s=4.5"]).expect("a plan");
    assert_eq!(moved.faults[0].at, Duration::from_millis(4500));
}

#[test]
fn repeated_faults_and_restarts_are_spelt_out() {
    let text = with_fault(
        "kind = \"restart\"\ntarget = [\"n1\", \"n2\"]\nat_s = 2\nevery_s = 5\ntimes = 3",
    );
    let faults = plan(&text, &[]).expect("a plan").faults;
    let times: Vec<_> = faults.iter().map(|f| (f.id.as_str(), f.at.as_secs())).collect();
    assert_eq!(times, [("f1.1", 2), ("f1.2", 7), ("f1.3", 12)]);
    assert_eq!(faults[0].kind, FaultKind::Terminate { restart_after: Some(Duration::ZERO) });
    assert_eq!(faults[0].target, FaultTarget::Names(vec!["n1".into(), "n2".into()]));
}

#[test]
fn leadership_goes_to_one_member_that_may_not_have_it_yet() {
    let transfer =
        |target: &str| with_fault(&format!("kind = \"transfer\"\ntarget = {target}\nat_s = 2"));
    let faults = plan(&transfer("\"follower\""), &[]).expect("a plan").faults;
    assert_eq!(faults[0].kind, FaultKind::Transfer);
    let named = plan(&transfer("\"n2\""), &[]).expect("a plan").faults;
    assert_eq!(named[0].target, FaultTarget::Names(vec!["n2".into()]));
    for target in ["\"leader\"", "\"followers\"", "[\"n1\", \"n2\"]"] {
        refused(&transfer(target), &[], &["`faults.f1.target`", "who is to lead next"]);
    }
    refused(&transfer("\"n1\""), &["cluster.nodes=1"], &["more than one"]);
    let again = format!("{}every_s = 2\ntimes = 3\n", transfer("\"n1\""));
    refused(&again, &[], &["`faults.f1.times`", "the second time"]);
}

#[test]
fn members_are_replaced_one_at_a_time_by_those_that_are_left() {
    let replace = |target: &str| {
        with_fault(&format!(
            "kind = \"replace\"\ntarget = {target}\nat_s = 2\nrejoin_after_s = 1.5"
        ))
    };
    let faults = plan(&replace("\"follower\""), &[]).expect("a plan").faults;
    let rejoin_after = Duration::from_millis(1500);
    assert_eq!(faults[0].kind, FaultKind::Replace { rejoin_after });
    refused(&replace("\"followers\""), &[], &["`faults.f1.target`", "one at a time"]);
    refused(&replace("\"n1\""), &["cluster.nodes=2"], &["without a third member"]);
    let beside =
        format!("{}[[faults]]\nkind = \"kill\"\ntarget = \"n2\"\nat_s = 1\n", replace("\"n1\""));
    refused(&beside, &[], &["could not agree on the change"]);
    let text = with_fault("kind = \"replace\"\ntarget = \"n1\"\nat_s = 2");
    refused(&text, &[], &["`faults.f1.rejoin_after_s`", "in seconds"]);
}

#[test]
fn what_is_written_before_the_load_is_asked_for_whole() {
    let plan = plan(LEAST, &["load.preload={keys=10,bytes=64}"]).expect("a plan");
    let preload = plan.preload.as_ref().expect("asked for");
    assert_eq!((preload.keys, preload.value_bytes, preload.bytes()), (10, 64, 640));
    refused(LEAST, &["load.preload={keys=10}"], &["`load.preload.bytes`"]);
    refused(LEAST, &["load.preload={keys=10,bytes=1}"], &["from 16 to"]);
}

#[test]
fn an_unknown_key_names_file_line_and_the_nearest() {
    let text = "[load]\nrate_per_secnd = 5\n[phases]\nmeasure_s = 1\n";
    refused(
        text,
        &[],
        &[
            "test.toml:2:",
            "`load.rate_per_secnd`",
            "did you mean `rate_per_second`?",
            "max_outstanding",
        ],
    );
    refused("[lod]\n", &[], &["test.toml:1:", "did you mean `load`?"]);
    let text = with_fault("kind = \"pause\"\ntarget = \"leader\"\nat_s = 1\nrestart_after_s = 3");
    refused(&text, &[], &["test.toml:9:", "`faults.f1.restart_after_s`", "resume_after_s"]);
    refused(LEAST, &["load.rat=1"], &["--set load.rat=1", "not a known key"]);
}

#[test]
fn wrong_types_and_broken_toml_name_their_line() {
    refused("[load]\nrate_per_second = \"fast\"\n", &[], &["test.toml:2:", "must be a number"]);
    refused("\n\n[load\n", &[], &["test.toml:3:", "not valid TOML"]);
    refused(LEAST, &["checks.audit=perhaps"], &["--set checks.audit=perhaps", "true or false"]);
    refused(LEAST, &["phases.measure_s.x=1"], &["`x` cannot be set inside 20"]);
    refused(LEAST, &["load"], &["--set load", "no `=`"]);
}

#[test]
fn numbers_outside_their_range_are_refused() {
    for rate in ["0", "-1", "nan", "inf", "0.0"] {
        refused(
            LEAST,
            &[&format!("load.rate_per_second={rate}")],
            &["--set load.rate_per_second=", "must be a number above 0"],
        );
    }
    refused(LEAST, &["load.values.bytes=-5"], &["`load.values.bytes` is -5", "16"]);
    refused(LEAST, &["load.values.bytes=15"], &["from 16 to"]);
    refused(LEAST, &["load.mix={put=0.5,get=0.6}"], &["`load.mix`", "sum to 1"]);
    refused(LEAST, &["load.mix={put=0.5}"], &["`load.mix`", "sum to 1"]);
    refused(LEAST, &["load.max_outstanding=499"], &["at least rate_per_second x timeout (500)"]);
    refused(LEAST, &["cluster.nodes=0"], &["`cluster.nodes` is 0", "from 1 to 9"]);
    refused(LEAST, &["cluster.heartbeat_ms=500"], &["`cluster.election_timeout_ms` is 1000"]);
    refused(LEAST, &["phases.measure_s=0"], &["`phases.measure_s`"]);
    refused(LEAST, &["phases.drain_s=4"], &["`phases.drain_s` is 4 s", "timeout_ms"]);
    refused(LEAST, &["load.rate_per_second=99999999"], &["operations"]);
}

#[test]
fn a_check_that_could_not_fail_is_refused() {
    for unread in ["load.mix={put=1}", "load.reads=serializable"] {
        refused(
            LEAST,
            &["checks.linearizable=true", unread],
            &["--set checks.linearizable=true", "needs gets that ask for linearizability"],
        );
    }
    assert!(plan(LEAST, &["checks.linearizable=true"]).expect("sound").checks.linearizable);
}

#[test]
fn the_nodes_own_settings_are_checked_before_it_starts() {
    let text = format!("{LEAST}[cluster.bench_node]\npre_vote = true\npre_vot = 1\n");
    refused(&text, &[], &["test.toml:7:", "`cluster.bench_node.pre_vot`", "pre_vote"]);
    let flag = "cluster.bench_node.max_append_entries=0";
    refused(LEAST, &[flag], &["--set cluster.bench_node.max_append_entries=0"]);
    refused(LEAST, &["cluster.bench_node.pre_vote=perhaps"], &["boolean"]);
    let unsafe_setting = plan(LEAST, &["cluster.bench_node.unsafe_no_fsync=true"]).expect("a plan");
    assert_eq!(unsafe_setting.cluster.unsafe_settings(), ["unsafe_no_fsync = true"]);
}

#[test]
fn what_is_not_there_yet_says_so() {
    refused(LEAST, &["cluster.target=nats"], &["not available yet"]);
    refused(LEAST, &["cluster.target=etc"], &["did you mean `etcd`?"]);
}

#[test]
fn impossible_faults_are_refused_before_anything_starts() {
    let kill = |rest: &str| with_fault(&format!("kind = \"kill\"\n{rest}"));
    refused(
        &kill("target = \"leader\"\nat_s = 20"),
        &[],
        &["test.toml:8:", "`faults.f1.at_s`", "measured phase ends at 20 s"],
    );
    refused(&kill("target = \"n4\"\nat_s = 1"), &[], &["test.toml:7:", "`n4` does not exist"]);
    refused(&kill("target = \"ledaer\"\nat_s = 1"), &[], &["did you mean `leader`?"]);
    refused(&kill("target = [\"n1\", \"n1\"]\nat_s = 1"), &[], &["`n1` twice"]);
    refused(&kill("target = \"leader\""), &[], &["`faults.f1.at_s` is missing"]);
    refused(
        &kill("target = \"leader\"\nat_s = 5\nrestart_after_s = 16"),
        &[],
        &["restart_after_s"],
    );
    refused(
        &with_fault("kind = \"pause\"\ntarget = \"leader\"\nat_s = 1"),
        &[],
        &["`faults.f1.resume_after_s` is missing"],
    );
    refused(
        &with_fault("kind = \"kil\"\ntarget = \"leader\"\nat_s = 1"),
        &[],
        &["test.toml:6:", "did you mean `kill`?"],
    );
    refused(&with_fault("target = \"leader\"\nat_s = 1"), &[], &["`faults.f1.kind` is missing"]);
    // Three nodes: after two are gone for good, there is no leader left to strike.
    let two = "target = \"leader\"\nat_s = 1\nevery_s = 2\ntimes = 3";
    refused(&kill(two), &[], &["`leader` at 5 s", "2 of 3 nodes are held by f1.1, f1.2"]);
    assert!(plan(&kill("target = \"majority\"\nat_s = 1"), &[]).is_ok());
    refused(&kill("target = \"follower\"\nat_s = 1"), &["cluster.nodes=1"], &["has none"]);
    let overlapping = kill(
        "target = \"n1\"\nat_s = 1\nrestart_after_s = 5\n\
         [[faults]]\nkind = \"pause\"\ntarget = \"n1\"\nat_s = 3\nresume_after_s = 1",
    );
    refused(&overlapping, &[], &["test.toml:12:", "f1 still holds it"]);
}

#[test]
fn a_cluster_that_already_runs_takes_no_faults() {
    let external = [Change::endpoints(&["127.0.0.1:2379".into()])];
    let text = with_fault("kind = \"kill\"\ntarget = \"leader\"\nat_s = 1");
    let profile = Profile::from_text("test", "test.toml", &text);
    let error = profile.plan(&external, 1, "k/").expect_err("refused").to_string();
    assert!(error.contains("processes that the run started"), "{error}");
    let profile = Profile::from_text("test", "test.toml", LEAST);
    let plan = profile.plan(&external, 1, "k/").expect("a plan");
    assert_eq!(plan.cluster.target, Target::External { endpoints: vec!["127.0.0.1:2379".into()] });
    for wrong in ["127.0.0.1", "http://127.0.0.1:2379", ":2379", "host:0"] {
        let error = profile.plan(&[Change::endpoints(&[wrong.into()])], 1, "k/").expect_err(wrong);
        assert!(error.to_string().contains("HOST:PORT"), "{error}");
    }
}

#[test]
fn an_unknown_profile_lists_the_known() {
    let error = Profile::find("quickstrat").expect_err("unknown").to_string();
    assert!(error.contains("did you mean `quickstart`?") && error.contains("steady"), "{error}");
    let error = Profile::find("./none.toml").expect_err("no file").to_string();
    assert!(error.contains("./none.toml"), "{error}");
}

fn with_network(network: &str) -> String {
    format!("{LEAST}[cluster]\nnodes = 3\nlinks = \"switch\"\n{network}\n")
}

#[test]
fn every_embedded_network_says_where_each_number_is_from() {
    let conditions = ["ms", "percent", "mbit_per_second", "bursts"];
    for name in embedded::Shelf::Networks.names() {
        let plan = plan(LEAST, &[&format!("cluster.network={name}")]).expect(name);
        let network = plan.cluster.network.expect("a network");
        assert!(!network.conditions.is_empty() && !network.description.is_empty(), "{name}");
        let text = embedded::Shelf::Networks.text(name).expect(name);
        let table: toml::Table = text.parse().expect("TOML");
        let links = table.get("links").and_then(|links| links.as_array()).into_iter().flatten();
        let all = ["within", "between"].into_iter().filter_map(|key| table.get(key)).chain(links);
        for link in all.map(|link| link.as_table().expect("a table")) {
            assert!(
                link.keys().any(|key| conditions.iter().any(|end| key.contains(end))),
                "{name}"
            );
            let kind = link.get("kind").and_then(|kind| kind.as_str()).expect(name);
            assert!(["documented", "measured", "assumed"].contains(&kind), "{name}: {kind}");
            for key in ["date", "source"] {
                assert!(link.contains_key(key), "{name}: {key}");
            }
        }
    }
}

#[test]
fn sites_and_links_become_the_conditions_of_directions() {
    let network = r#"[cluster.network]
sites = ["a", "b"]
within = { round_trip_ms = 1 }
between = { round_trip_ms = 10 }
[[cluster.network.links]]
from = "n2"
to = "a"
delay_ms = 3
loss_percent = 5"#;
    let network = plan(&with_network(network), &[]).expect("a plan").cluster.network.expect("one");
    // n1 and n3 are at a, and so is the client; n2 is at b.
    assert_eq!(network.round_trip_ms("n1", "n3"), 1.0);
    assert_eq!(network.round_trip_ms("c1", "n1"), 1.0);
    assert_eq!(network.round_trip_ms("n1", "n2"), 5.0 + 3.0);
    assert_eq!(network.round_trip_ms("n2", "c1"), 3.0 + 5.0);
}

#[test]
fn a_network_that_cannot_be_is_refused_with_its_line() {
    for (network, expected) in [
        (
            "network = \"cross-as\"",
            vec!["test.toml:8: `cluster.network`", "did you mean `cross-az`", "cross-region"],
        ),
        (
            "network = { between = { delay_ms = -1 } }",
            vec!["`cluster.network.between.delay_ms` is -1", "from 0 to 60000"],
        ),
        (
            "network = { between = { loss_percent = 101 } }",
            vec!["loss_percent` is 101", "from 0 to 100"],
        ),
        (
            "network = { between = { delay_ms = 1, round_trip_ms = 2 } }",
            vec!["cannot both be given"],
        ),
        ("network = { between = { reorder_percent = 2 } }", vec!["with a delay"]),
        (
            "network = { between = { jitter = 2 } }",
            vec!["`cluster.network.between.jitter` is not a known key", "jitter_ms"],
        ),
        (
            "network = { links = [{ between = [\"n1\", \"n4\"], delay_ms = 1 }] }",
            vec!["`cluster.network.links.1.between` has `n4`", "n1, n2, n3, c1"],
        ),
        ("network = { links = [{ from = \"n1\", delay_ms = 1 }] }", vec!["needs either `between`"]),
        ("", vec!["`cluster.links` is only for a cluster with `network`"]),
    ] {
        refused(&with_network(network), &[], &expected);
    }
    refused(&with_network("network = \"jitter\""), &["cluster.links=ebpf"], &["`netem`"]);
}

#[test]
fn a_session_is_bench_nodes_own() {
    let of = |flags: &[&str]| plan(LEAST, flags).map(|plan| (plan.cluster.target, plan.api));
    assert_eq!(of(&[]), Ok((Target::BenchNode, Api::Etcd)));
    let session = Ok((Target::BenchNode, Api::Session));
    assert_eq!(of(&["cluster.target=\"bench-node-session\""]), session);
    assert_eq!(of(&["load.api=\"session\""]), session);
    let flags = ["cluster.target=\"etcd\"", "load.api=\"session\""];
    refused(LEAST, &flags, &["load.api", "etcd speaks `etcd` alone"]);
    refused(LEAST, &["load.api=\"sesion\""], &["load.api", "did you mean `session`"]);
}
