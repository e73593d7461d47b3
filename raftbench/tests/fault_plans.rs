//! Faults of links and faults that are drawn, from a profile's text to the plan: what each comes
//! to, and what is refused.

use std::collections::BTreeSet;

use raftbench::plan::{FaultKind, FaultTarget, Plan};
use raftbench::profile::{Change, Profile};

const LEAST: &str = r#"
[cluster]
nodes = 5
network = "cross-az"
[load]
rate_per_second = 100
[phases]
measure_s = 60
"#;

fn plan(text: &str, flags: &[&str], seed: u64) -> Result<Plan, String> {
    let changes: Vec<Change> =
        flags.iter().map(|text| Change::set(text).expect("a change")).collect();
    let profile = Profile::from_text("test", "test.toml", text);
    profile.plan(&changes, seed, "test/").map_err(|error| error.to_string())
}

fn with(text: &str) -> String {
    format!("{LEAST}{text}\n")
}

#[track_caller]
fn refused(text: &str, flags: &[&str], expected: &[&str]) {
    let error = plan(&with(text), flags, 7).expect_err("must be refused");
    for part in expected {
        assert!(error.contains(part), "`{error}`\ndoes not say `{part}`");
    }
}

fn partition(rest: &str) -> String {
    format!("[[faults]]\nkind = \"partition\"\nat_s = 5\n{rest}")
}

fn link(rest: &str) -> String {
    format!("[[faults]]\nkind = \"link\"\ntarget = \"follower\"\nat_s = 5\n{rest}")
}

#[test]
fn every_shape_of_partition_cuts_its_links() {
    let hosts = ["n1", "n2", "n3", "n4", "n5", "c1"].map(str::to_owned);
    let victims = ["n2".to_owned()];
    for (shape, cut, open) in [
        ("shape = \"isolate\"", "n2>c1 n1>n2 n2>n1", "n1>n3 c1>n1"),
        ("shape = \"isolate\"\nfrom = \"peers\"", "n1>n2 n2>n5", "c1>n2 n2>c1"),
        ("shape = \"isolate\"\nfrom = \"clients\"", "c1>n2 n2>c1", "n1>n2 n2>n1"),
        ("shape = \"one-way-out\"", "n2>n1 n2>c1", "n1>n2 c1>n2"),
        ("shape = \"one-way-in\"\nfrom = \"peers\"", "n1>n2 n5>n2", "n2>n1 c1>n2"),
        ("shape = \"halves\"", "n2>n1 n1>n2", "c1>n2 n1>n3"),
        ("shape = \"bridge\"", "n1>n5 n5>n3", "n2>n5 n1>n2 n1>n3 n4>n5"),
    ] {
        let text = with(&partition(&format!("{shape}\ntarget = \"leader\"\nheal_after_s = 4")));
        let fault = plan(&text, &[], 7).expect(shape).faults.remove(0);
        let FaultKind::Partition(partition) = fault.kind else { panic!("{:?}", fault.kind) };
        let cuts = partition.cuts(&hosts, &victims).expect("known hosts");
        let cuts: BTreeSet<String> = cuts.iter().map(|d| format!("{}>{}", d.from, d.to)).collect();
        for way in cut.split(' ') {
            assert!(cuts.contains(way), "{shape}: {way} is open in {cuts:?}");
        }
        for way in open.split(' ') {
            assert!(!cuts.contains(way), "{shape}: {way} is cut");
        }
    }
    let ring = plan(&with(&partition("shape = \"ring\"\nheal_after_s = 4")), &[], 7);
    assert_eq!(ring.expect("a plan").faults[0].target, FaultTarget::All);
}

#[test]
fn a_fault_of_links_that_cannot_be_is_refused_with_its_line() {
    let isolate = "shape = \"isolate\"\ntarget = \"leader\"\n";
    for (text, expected) in [
        (partition(isolate), vec!["`faults.f1.heal_after_s` is missing"]),
        (partition("target = \"leader\"\nheal_after_s = 1"), vec!["shape` is missing", "halves"]),
        (
            partition("shape = \"isolat\"\ntarget = \"leader\"\nheal_after_s = 1"),
            vec!["test.toml:12: `faults.f1.shape`", "did you mean `isolate`?"],
        ),
        (
            partition("shape = \"bridge\"\ntarget = \"minority\"\nheal_after_s = 1"),
            vec!["`faults.f1.target` is `minority`", "a bridge is one node"],
        ),
        (
            partition("shape = \"halves\"\ntarget = \"all\"\nheal_after_s = 1"),
            vec!["leaves nobody on the other side"],
        ),
        (
            partition("shape = \"ring\"\ntarget = \"leader\"\nheal_after_s = 1"),
            vec!["`faults.f1.target`", "among all nodes"],
        ),
        (
            partition(
                "shape = \"halves\"\nfrom = \"peers\"\ntarget = \"leader\"\nheal_after_s = 1",
            ),
            vec!["`faults.f1.from` is not for shape `halves`"],
        ),
        (
            partition(&format!("{isolate}heal_after_s = 3\nflap_down_s = 1")),
            vec!["`faults.f1.flap_up_s` is missing"],
        ),
        (
            partition(&format!("{isolate}heal_after_s = 3\nflap_down_s = 1\nflap_up_s = 1")),
            vec!["would not go down and up three times"],
        ),
        (
            partition(&format!("{isolate}heal_after_s = 3\nflap_down_s = 0.1\nflap_up_s = 0.5")),
            vec!["`faults.f1.flap_down_s` is 0.1 s", "at least 0.4 s"],
        ),
        (
            partition(&format!("{isolate}heal_after_s = 60")),
            vec!["heal_after_s", "ends the fault at 65 s"],
        ),
        (link("heal_after_s = 1"), vec!["test.toml:9: `faults.f1`", "says nothing of the links"]),
        (link("delay_ms = -1\nheal_after_s = 1"), vec!["test.toml:13:", "delay_ms` is -1"]),
        (
            link("loss_percent = 101\nheal_after_s = 1"),
            vec!["loss_percent` is 101", "from 0 to 100"],
        ),
        (link("way = \"up\"\ndelay_ms = 1\nheal_after_s = 1"), vec!["`both`, `out` or `in`"]),
        (link("delay = 1\nheal_after_s = 1"), vec!["did you mean `delay_ms`?"]),
        (
            link("delay_ms = 20\nreorder_percent = 5\nloss_percent = 1\nheal_after_s = 1"),
            vec!["`faults.f1.reorder_percent`", "make them two faults"],
        ),
    ] {
        refused(&text, &[], &expected);
    }
    // Two where the cluster is too small for them.
    let ring = partition("shape = \"ring\"\nheal_after_s = 1");
    refused(&ring, &["cluster.nodes=3"], &["`ring`, which cuts nothing among 3 nodes"]);
    let over_loopback = with(&partition(&format!("{isolate}heal_after_s = 1")));
    let over_loopback = over_loopback.replace("network = \"cross-az\"\n", "");
    let error = plan(&over_loopback, &[], 7).expect_err("there are no links");
    for part in ["`faults.f1.kind` needs links", "cluster.network = \"same-az\"", "cross-region"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn links_that_get_worse_keep_what_is_not_said() {
    let text = with(&link("loss_percent = 5\nheal_after_s = 4"));
    let plan = plan(&text, &[], 7).expect("a plan");
    let FaultKind::Link(link) = plan.faults[0].kind else { panic!("{:?}", plan.faults[0].kind) };
    assert_eq!((link.overlay.delay, link.overlay.rate_bits_per_second), (None, None));
    // It takes nobody out: what strikes the same node meanwhile is no contradiction.
    assert!(!plan.faults[0].kind.takes_out());
}

const RANDOM: &str = r#"
[random]
mean_gap_s = 2
first_s = 3
until_s = 50
[[random.faults]]
weight = 3
kind = "kill"
target = "one"
restart_after_s = [1, 3]
[[random.faults]]
kind = "partition"
shape = "isolate"
target = "leader"
from = "peers"
heal_after_s = [2, 4]
[[random.faults]]
kind = "link"
target = "follower"
delay_ms = [5, 50]
heal_after_s = 2
"#;

#[test]
fn drawn_faults_are_the_seeds_and_stay_within_their_bounds() {
    let of = |seed| plan(&with(RANDOM), &[], seed).expect("a plan").faults;
    assert_eq!(of(1), of(1));
    assert_ne!(of(1), of(2));
    let mut kinds = BTreeSet::new();
    for seed in 0..20 {
        let faults = of(seed);
        assert!(faults.len() >= 3, "seed {seed}: {} faults", faults.len());
        let mut free_at = 3.0;
        for fault in &faults {
            let (at, held) = (fault.at.as_secs_f64(), fault.kind.holds().expect("they end"));
            assert!(
                at >= free_at,
                "seed {seed}: {} begins at {at} s, before {free_at} s",
                fault.id
            );
            free_at = at + held.as_secs_f64();
            assert!(free_at <= 50.001, "seed {seed}: {} ends at {free_at} s", fault.id);
            kinds.insert(fault.kind.name());
        }
    }
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["kill", "link", "partition"]);
    // A weight of three beside one and one.
    let kills = |seed| of(seed).iter().filter(|fault| fault.kind.name() == "kill").count();
    let (killed, all): (usize, usize) =
        ((0..60).map(kills).sum(), (0..60).map(|seed| of(seed).len()).sum());
    let share = killed as f64 / all as f64;
    assert!((0.5..0.7).contains(&share), "{killed} of {all} are kills");
}

#[test]
fn drawn_faults_are_in_the_plan_that_is_shown_and_in_the_one_that_is_kept() {
    let plan = plan(&with(RANDOM), &[], 5).expect("a plan");
    let shown = plan.to_string();
    for fault in &plan.faults {
        assert!(shown.contains(&format!("{}: ", fault.id)), "{} is not in {shown}", fault.id);
    }
    let kept = toml::to_string(&plan.to_profile()).expect("TOML");
    let mut again = Profile::from_text("test", "manifest.toml", &kept)
        .plan(&[], 5, "test/")
        .expect("the same plan");
    for (fault, original) in again.faults.iter_mut().zip(&plan.faults) {
        fault.id.clone_from(&original.id);
    }
    assert_eq!(again, plan);
}

#[test]
fn overlapping_faults_leave_each_its_victims() {
    let text = with(RANDOM).replace("first_s = 3", "overlap = true\nmean_gap_s = 0.7\nfirst_s = 3");
    let text = text.replacen("mean_gap_s = 2\n", "", 1);
    let overlaps = (0..5).any(|seed| {
        let faults = plan(&text, &[], seed).expect("sound").faults;
        faults.windows(2).any(|pair| pair[0].at + pair[0].kind.holds().expect("ends") > pair[1].at)
    });
    assert!(overlaps, "none in five seeds");
}

#[test]
fn random_faults_that_cannot_be_are_refused_with_their_line() {
    let one = |rest: &str| {
        format!("[random]\nmean_gap_s = 2\n[[random.faults]]\nkind = \"kill\"\n{rest}")
    };
    refused("[random]\nfirst_s = 1", &[], &["`random.mean_gap_s` is missing"]);
    refused("[random]\nmean_gap_s = 2", &[], &["`random.faults` is missing"]);
    refused(
        &one("target = \"n9\""),
        &[],
        &["test.toml:13: `random.faults.1.target`", "`n9` does not exist"],
    );
    refused(
        &one("target = \"one\"\nat_s = 3"),
        &[],
        &["`random.faults.1.at_s` is not for a fault that is drawn"],
    );
    refused(&one("target = \"one\"\nweight = 0"), &[], &["weight` is 0", "above 0"]);
    refused(
        &one("target = \"one\"\nrestart_after_s = [4, 1]"),
        &[],
        &["a range of two, as in [1, 4]"],
    );
    refused(
        &one("target = \"one\"\nrestart_after_s = [1, 400]"),
        &[],
        &["ends the fault at 400 s"],
    );
    refused("[random]\nmean_gap_s = 2\nuntil_s = 90", &[], &["`random.until_s` is 90 s"]);
}
