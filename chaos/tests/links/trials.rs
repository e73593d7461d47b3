//! The trials. Each sets the conditions that it needs, and the next one begins with none.
//!
//! Delays are medians, which a busy machine can only lengthen, and what passes in a second is less on
//! one: such a figure may be measured up to three times, and one of them must be right. Shares are held against the binomial distribution, four deviations to both sides: with a sound
//! implementation one run in sixteen thousand fails.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use chaos::lab::links::flapping::Flapping;
use chaos::lab::links::{Bursts, Conditions, Direction, Loss, Network, Partition, Share, Spread};
use chaos::lab::{Host, Lab};

use crate::measure::{counter, datagrams, ping, quantile, reaching, transfer};

pub(crate) type Body = fn(&Stage);

pub(crate) const ALL: &[(&str, Body)] = &[
    ("a_delay_of_1_ms", |stage| a_delay(stage, 1.0)),
    ("a_delay_of_10_ms", |stage| a_delay(stage, 10.0)),
    ("a_delay_of_50_ms", |stage| a_delay(stage, 50.0)),
    ("a_delay_of_200_ms", |stage| a_delay(stage, 200.0)),
    ("delays_of_both_directions_add_up", delays_add_up),
    ("conditions_are_of_one_direction", conditions_are_of_one_direction),
    ("normal_jitter_is_as_wide_as_asked", |stage| jitter(stage, Spread::Normal, 1.349)),
    ("uniform_jitter_is_as_wide_as_asked", |stage| jitter(stage, Spread::Uniform, 1.0)),
    ("jitter_keeps_tcp_in_order", jitter_keeps_tcp_in_order),
    ("reordering_is_seen_by_tcp", reordering_is_seen_by_tcp),
    ("loss_of_1_percent", |stage| loss(stage, 1.0)),
    ("loss_of_10_percent", |stage| loss(stage, 10.0)),
    ("loss_is_seen_by_tcp_and_not_told_to_the_sender", loss_is_seen_by_tcp),
    ("bursts_are_as_long_as_asked", bursts_are_as_long_as_asked),
    ("copies_arrive_as_often_as_asked", copies_arrive_as_often_as_asked),
    ("corrupt_packets_are_refused_by_the_receiver", corrupt_packets_are_refused),
    ("a_rate_of_5_mbit_holds", |stage| rate(stage, 5)),
    ("a_rate_of_20_mbit_holds", |stage| rate(stage, 20)),
    ("every_partition_cuts_its_directions_and_no_other", every_partition),
    ("a_flapping_link_comes_and_goes", a_flapping_link_comes_and_goes),
    ("what_is_refused_changes_nothing", what_is_refused_changes_nothing),
];

/// Bugs that can be planted in the switch, each with the trial that must catch it.
pub(crate) const PLANTED: [(&str, &str); 3] = [
    ("switch-ignores-loss", "loss_of_10_percent"),
    ("switch-delays-one-direction", "delays_of_both_directions_add_up"),
    ("switch-reorders", "jitter_keeps_tcp_in_order"),
];

/// Figures, and not checks.
pub(crate) const BY_HAND: &[(&str, Body)] = &[("speed", speed)];

/// The lab and its links.
pub(crate) struct Stage {
    lab: Lab,
    network: Arc<Mutex<Network>>,
}

impl Stage {
    pub(crate) fn new(lab: Lab, network: Arc<Mutex<Network>>) -> Self {
        Self { lab, network }
    }

    fn host(&self, name: &str) -> &Host {
        self.lab.host(name).expect("a host")
    }

    fn network(&self) -> MutexGuard<'_, Network> {
        self.network.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From `n1` to `n2` these conditions, everywhere else none.
    fn set(&self, conditions: Conditions) {
        let way = Direction { from: "n1".into(), to: "n2".into() };
        self.network().set(&[(way, conditions)]).expect("set");
    }

    fn ends(&self) -> (&Host, &Host) {
        (self.host("n1"), self.host("n2"))
    }
}

fn delayed(delay_ms: f64) -> Conditions {
    Conditions { delay: Duration::from_secs_f64(delay_ms / 1000.0), ..Default::default() }
}

fn percent(percent: f64) -> Share {
    Share::percent("share", percent).expect("a share")
}

/// 2 % or 0.3 ms, whichever is more; and half a digit, for `ping` tells tenths from 10 ms on.
fn tolerance_ms(asked_ms: f64) -> f64 {
    let digit_ms = if asked_ms < 10.0 { 0.001 } else { 0.1 };
    (0.02 * asked_ms).max(0.3) + digit_ms / 2.0
}

fn assert_about(measured_ms: f64, asked_ms: f64) {
    assert!(
        (measured_ms - asked_ms).abs() <= tolerance_ms(asked_ms),
        "asked for {asked_ms} ms, measured {measured_ms} ms"
    );
}

/// Of `count`, `share` should have had it, and `seen` did.
fn assert_binomial(seen: usize, count: usize, share: f64) {
    let (mean, variance) = (count as f64 * share, count as f64 * share * (1.0 - share));
    let bound = 4.0 * variance.sqrt();
    assert!(
        (seen as f64 - mean).abs() <= bound,
        "{seen} of {count}; {mean:.0} with 4 deviations of {bound:.0} are right"
    );
}

/// The least of up to three measurements: the first that is good enough ends it.
fn least(good_enough: f64, measure: impl Fn() -> f64) -> f64 {
    let mut least = f64::INFINITY;
    for _ in 0..3 {
        least = least.min(measure());
        if least <= good_enough {
            break;
        }
    }
    least
}

fn a_delay(stage: &Stage, ms: f64) {
    stage.set(delayed(ms));
    let (n1, n2) = stage.ends();
    let most = ms + tolerance_ms(ms);
    let measured = least(most, || ping(n1, n2, 41, 20.0).median_ms());
    println!("asked for {ms} ms, p50 {measured:.3} ms");
    assert_about(measured, ms);
}

fn delays_add_up(stage: &Stage) {
    stage.set(delayed(5.0));
    let back = Direction { from: "n2".into(), to: "n1".into() };
    stage.network().set(&[(back.clone(), delayed(20.0))]).expect("set");
    let (n1, n2) = stage.ends();
    let measured = least(25.0 + tolerance_ms(25.0), || ping(n1, n2, 21, 30.0).median_ms());
    stage.network().set(&[(back, delayed(0.0))]).expect("set");
    println!("asked for 5 ms and 20 ms, p50 {measured:.3} ms");
    assert_about(measured, 25.0);
}

fn conditions_are_of_one_direction(stage: &Stage) {
    stage.set(Conditions { loss: Loss::Independent(Share::ALL), ..Default::default() });
    let (n1, n2) = stage.ends();
    let gap = Duration::from_millis(1);
    assert_eq!(datagrams(n1, n2, 50, gap).len(), 0);
    assert_eq!(datagrams(n2, n1, 50, gap).len(), 50);
    assert_eq!(datagrams(n1, stage.host("n3"), 50, gap).len(), 50);
    assert_eq!(datagrams(stage.host("c1"), n2, 50, gap).len(), 50);
    stage.set(Conditions::default());
    assert_eq!(datagrams(n1, n2, 50, gap).len(), 50);
}

/// Jitter of 2 ms around 12 ms; echoes are further apart than jitter reaches, so that none waits
/// for another. By quartiles: what a busy machine does to a few echoes is not the link's.
fn jitter(stage: &Stage, spread: Spread, quartiles_of_jitter: f64) {
    let jitter = Duration::from_millis(2);
    stage.set(Conditions { jitter, spread, ..delayed(12.0) });
    let (n1, n2) = stage.ends();
    let asked_ms = 2.0 * quartiles_of_jitter;
    // Of 300, the distance of the quartiles is uncertain by 7 %.
    let right = |ms: f64| (0.75..1.3).contains(&(ms / asked_ms));
    let mut seen = Vec::new();
    while seen.len() < 3 && !seen.last().is_some_and(|(_, quartiles_ms)| right(*quartiles_ms)) {
        let pings = ping(n1, n2, 300, 20.0);
        let at = |share| quantile(&pings.round_trips_ms, share);
        seen.push((at(0.5), at(0.75) - at(0.25)));
    }
    println!("median and distance of the quartiles, ms: {seen:.2?}");
    let (median_ms, quartiles_ms) = seen[seen.len() - 1];
    assert!((median_ms - 12.0).abs() <= 1.0, "median {median_ms} ms");
    assert!(right(quartiles_ms), "{quartiles_ms} ms between the quartiles, not {asked_ms}");
}

fn jitter_keeps_tcp_in_order(stage: &Stage) {
    let jitter = Duration::from_millis(3);
    let rate_bits_per_second = Some(20_000_000);
    stage.set(Conditions { jitter, rate_bits_per_second, ..delayed(10.0) });
    let (n1, n2) = stage.ends();
    // A machine that stands still for long enough has TCP send again what was not lost.
    let again = least(0.0, || {
        let seen = transfer(n1, n2, Duration::from_secs(1));
        assert!(seen.bits_per_second > 1e6, "{} bit/s", seen.bits_per_second);
        assert_eq!(seen.out_of_order, 0);
        seen.retransmitted as f64
    });
    assert_eq!(again, 0.0, "segments were sent again");
}

fn reordering_is_seen_by_tcp(stage: &Stage) {
    let rate_bits_per_second = Some(20_000_000);
    stage.set(Conditions { reorder: percent(5.0), rate_bits_per_second, ..delayed(10.0) });
    let (n1, n2) = stage.ends();
    let seen = transfer(n1, n2, Duration::from_secs(1));
    assert!(seen.out_of_order > 0, "no segment came out of order");
}

fn loss(stage: &Stage, lost: f64) {
    stage.set(Conditions { loss: Loss::Independent(percent(lost)), ..Default::default() });
    let (n1, n2) = stage.ends();
    let pings = ping(n1, n2, 2000, 2.0);
    println!("{} of {} lost", pings.lost(), pings.sent);
    assert_binomial(pings.lost(), pings.sent, lost / 100.0);
}

fn loss_is_seen_by_tcp(stage: &Stage) {
    let loss = Loss::Independent(percent(2.0));
    stage.set(Conditions { loss, rate_bits_per_second: Some(20_000_000), ..delayed(2.0) });
    let (n1, n2) = stage.ends();
    let seen = transfer(n1, n2, Duration::from_secs(1));
    assert!(seen.retransmitted > 0, "nothing was sent again");
}

fn bursts_are_as_long_as_asked(stage: &Stage) {
    let bursts = Bursts {
        turns_bad: percent(2.0),
        turns_good: percent(20.0),
        loss_while_bad: Share::ALL,
        loss_while_good: Share::default(),
    };
    stage.set(Conditions { loss: Loss::Bursts(bursts), ..Default::default() });
    let (n1, n2) = stage.ends();
    let count = 5000;
    let arrived: BTreeSet<u32> =
        datagrams(n1, n2, count, Duration::from_micros(500)).into_iter().collect();
    let lost: Vec<bool> = (0..count).map(|number| !arrived.contains(&number)).collect();
    let all = lost.iter().filter(|lost| **lost).count();
    let bursts = lost.windows(2).filter(|pair| !pair[0] && pair[1]).count();
    println!("{all} of {count} lost, in {bursts} bursts");
    // 1 / 11 of the packets, five at a time; about 90 bursts, so each figure is uncertain by 15 %.
    let share = all as f64 / f64::from(count);
    assert!((0.045..0.145).contains(&share), "{share} lost");
    let length = all as f64 / bursts as f64;
    assert!((3.0..7.5).contains(&length), "{length} packets in a burst");
}

fn copies_arrive_as_often_as_asked(stage: &Stage) {
    stage.set(Conditions { duplicate: percent(20.0), ..Default::default() });
    let (n1, n2) = stage.ends();
    let pings = ping(n1, n2, 1000, 2.0);
    println!("{} of {} came twice", pings.copies, pings.sent);
    assert_eq!(pings.lost(), 0);
    assert_binomial(pings.copies, pings.sent, 0.2);
}

fn corrupt_packets_are_refused(stage: &Stage) {
    let (n1, n2) = stage.ends();
    stage.set(Conditions { corrupt: percent(50.0), ..Default::default() });
    let refused = || {
        counter(n2, "Udp", "InCsumErrors")
            + counter(n2, "Udp", "NoPorts")
            + counter(n2, "Ip", "InHdrErrors")
            + counter(n2, "Ip", "InAddrErrors")
    };
    let before = refused();
    let arrived = datagrams(n1, n2, 600, Duration::from_millis(1));
    let refused = refused() - before;
    println!("{} of 600 arrived, {refused} were refused by n2's kernel", arrived.len());
    assert_binomial(600 - arrived.len(), 600, 0.5);
    // A flipped bit may also lie where it makes the packet somebody else's.
    assert!(refused as usize > (600 - arrived.len()) / 2);
}

/// Payload is 1448 bytes in packets of 1500.
fn rate(stage: &Stage, megabits: u64) {
    stage.set(Conditions { rate_bits_per_second: Some(megabits * 1_000_000), ..delayed(1.0) });
    let (n1, n2) = stage.ends();
    let asked = megabits as f64;
    let off_by = least(0.05, || {
        let seen = transfer(n1, n2, Duration::from_secs(2));
        let measured = seen.bits_per_second * 1500.0 / 1448.0 / 1e6;
        println!("asked for {megabits} Mbit/s, measured {measured:.2}");
        (measured / asked - 1.0).abs()
    });
    assert!(off_by <= 0.05, "off by {:.1} %", 100.0 * off_by);
}

fn every_partition(stage: &Stage) {
    stage.set(Conditions::default());
    let names = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let hosts: Vec<String> = stage.network().hosts().to_vec();
    let whole = reaching(&stage.lab);
    assert_eq!(whole.len(), hosts.len() * (hosts.len() - 1), "{whole:?}");
    for partition in [
        Partition::Isolate(names("n1")),
        Partition::Halves(names("n1 n2")),
        Partition::OneWay { from: names("n1"), to: names("n2 n3") },
        Partition::Bridge("n3".into()),
        Partition::Ring,
        Partition::FromClients(names("n1 n2")),
        Partition::FromPeers(names("n4")),
    ] {
        let cut = stage.network().cut(&partition).expect("cut");
        let cuts = partition.cuts(&hosts).expect("known hosts");
        let open: BTreeSet<Direction> = whole.difference(&cuts).cloned().collect();
        assert_eq!(reaching(&stage.lab), open, "{partition:?}");
        stage.network().heal(cut).expect("healed");
    }
    assert_eq!(reaching(&stage.lab), whole);
}

fn a_flapping_link_comes_and_goes(stage: &Stage) {
    stage.set(Conditions::default());
    let whole = reaching(&stage.lab);
    let partition = Partition::Halves(vec!["n1".into()]);
    let time = Duration::from_millis(700);
    let cuts = partition.cuts(stage.network().hosts()).expect("known hosts");
    let flapping = Flapping::start(stage.network.clone(), cuts, time, time).expect("cut");
    let mut seen = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(30);
    while seen.len() < 4 {
        assert!(Instant::now() < deadline, "it changed only {} times", seen.len());
        let up = reaching(&stage.lab) == whole;
        if seen.last() != Some(&up) {
            seen.push(up);
        }
    }
    assert_eq!(seen, [false, true, false, true]);
    assert!(flapping.stop().expect("healed") >= 2);
    assert_eq!(reaching(&stage.lab), whole);
}

fn what_is_refused_changes_nothing(stage: &Stage) {
    stage.set(delayed(0.0));
    let unknown = Partition::Isolate(vec!["n9".into()]);
    let refused = stage.network().cut(&unknown).expect_err("unknown").to_string();
    assert!(refused.contains("no host is called `n9`"), "{refused}");
    let way = |to: &str| Direction { from: "n1".into(), to: to.into() };
    let lost = Conditions { loss: Loss::Independent(Share::ALL), ..Default::default() };
    assert!(stage.network().set(&[(way("n2"), lost), (way("n9"), lost)]).is_err());
    let (n1, n2) = stage.ends();
    assert_eq!(datagrams(n1, n2, 20, Duration::from_millis(1)).len(), 20);
}

/// The switch's own speed, seen from outside: echoes between two hosts, alone and beside 50,000
/// packets/s between two others, and the most that passes.
fn speed(stage: &Stage) {
    stage.set(Conditions::default());
    let (n1, n2) = stage.ends();
    let echo = |what: &str| {
        let pings = ping(stage.host("n3"), stage.host("n4"), 1000, 2.0);
        let (p50, p99) =
            (quantile(&pings.round_trips_ms, 0.5), quantile(&pings.round_trips_ms, 0.99));
        println!("{what}: round trip p50 {p50:.3} ms, p99 {p99:.3} ms (two passages)");
    };
    echo("idle");
    for per_second in [50_000, 1_000_000] {
        let count = per_second.min(300_000) * 3;
        let unread = counter(n2, "Udp", "RcvbufErrors");
        thread::scope(|scope| {
            let flood = scope.spawn(|| {
                let began = Instant::now();
                let arrived = flood(n1, n2, count, per_second);
                (arrived, began.elapsed())
            });
            echo(&format!("beside {per_second} packets/s asked"));
            let (arrived, took) = flood.join().expect("flooded");
            let unread = counter(n2, "Udp", "RcvbufErrors") - unread;
            println!(
                "{arrived} of {count} arrived in {:.2} s: {:.0}/s; {unread} more came, and the \
                 receiving program was too slow for them",
                took.as_secs_f64(),
                arrived as f64 / took.as_secs_f64()
            );
        });
    }
}

/// Sends `count` datagrams of 200 bytes, in bunches of a millisecond; how many arrived.
fn flood(from: &Host, to: &Host, count: u32, per_second: u32) -> usize {
    let socket = |host: &Host| {
        let bound = host.within(|| std::net::UdpSocket::bind((host.address(), 0)));
        bound.expect("entered").expect("bound")
    };
    let (sender, receiver) = (socket(from), socket(to));
    let address = receiver.local_addr().expect("bound");
    receiver.set_read_timeout(Some(Duration::from_millis(500))).expect("set");
    thread::scope(|scope| {
        let arrivals = scope.spawn(move || {
            let (mut arrived, mut buffer) = (0, [0; 256]);
            while receiver.recv(&mut buffer).is_ok() {
                arrived += 1;
            }
            arrived
        });
        let (began, bunch) = (Instant::now(), per_second / 1000);
        for number in 0..count {
            if number % bunch == 0 {
                let due = began + Duration::from_millis(u64::from(number / bunch));
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            sender.send_to(&[7; 200], address).ok();
        }
        arrivals.join().expect("received")
    })
}
