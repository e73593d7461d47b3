//! Transfers that lose, repeat and garble chunks, over receivers that stop at any moment.

use std::path::Path;

use bench_node::disk::{Fault, Simulated};
use bench_node::kv::Store;
use bench_node::snapshot::{Offer, Options, Outgoing, Snapshot, SnapshotError, Snapshots};
use raft::EntryId;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::model::{DIR, GROUP, names, open, replay, same, seeds, small, store, write};

/// What happened, so that a test can tell that it tested something.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) chunks: u64,
    pub(crate) garbled: u64,
    pub(crate) out_of_place: u64,
    pub(crate) stops: u64,
    /// Starts that went on behind the beginning.
    pub(crate) resumed: u64,
    pub(crate) bytes_again: u64,
}

#[test]
fn a_transfer_is_resumed_over_whatever_happens() {
    let mut tally = Tally::default();
    for seed in seeds(300) {
        if let Err(error) = transfer(seed, &small(), &mut tally) {
            panic!("{error}\n{}", replay(seed, "transfer"));
        }
    }
    println!("{tally:?}");
    if std::env::var_os("RAFTBENCH_SEED").is_none() {
        assert!(tally.garbled > 0 && tally.out_of_place > 0 && tally.resumed > 0, "{tally:?}");
        assert!(tally.bytes_again > 0, "no power cut took anything");
    }
}

/// The node outlives a failure of its snapshots' disk, and is offered the snapshot again: what it
/// says to hold then it must hold without power, too.
#[test]
fn what_is_held_after_a_failure_outlives_the_power() {
    let (origin, sender) = (store(3, 20), Simulated::new(3));
    write(&open(&sender), 50, &origin);
    let outgoing = open(&sender).open_newest(GROUP).unwrap().expect("it was written");
    let mut held_after_a_failure = 0;
    for operation in 0..40 {
        let disk = Simulated::new(operation);
        let snapshots = open(&disk);
        disk.arm(operation, Fault::Eio);
        let mut attempts = 0;
        let received = loop {
            attempts += 1;
            let all = |offset| outgoing.read_chunk(offset, usize::MAX).expect("it is whole");
            let received =
                snapshots.receive(outgoing.snapshot().id).and_then(|offer| match offer {
                    Offer::Held(snapshot) => {
                        held_after_a_failure += u32::from(attempts > 1);
                        Ok(snapshot)
                    }
                    Offer::Wanted(mut incoming) => {
                        let rest = all(incoming.received_up_to());
                        incoming.write_chunk(rest.offset, &rest.bytes, rest.crc)?;
                        incoming.finish()
                    }
                });
            match received {
                Ok(snapshot) => break snapshot,
                Err(SnapshotError::Disk(_)) => assert!(attempts < 3, "one failure was armed"),
                Err(error) => panic!("operation {operation}: {error}"),
            }
        };
        let checked = check(&disk.cut_power(), &received, &outgoing, &origin);
        assert_eq!(checked, Ok(()), "operation {operation}");
    }
    assert!(held_after_a_failure > 0, "no failure came after the name was given");
}

/// Sends one snapshot to a receiver that is stopped again and again.
pub(crate) fn transfer(seed: u64, options: &Options, tally: &mut Tally) -> Result<(), String> {
    let mut random = StdRng::seed_from_u64(seed);
    let origin = store(seed, 200);
    let sender = Simulated::new(seed);
    write(&open(&sender), 50, &origin);
    let outgoing = open(&sender).open_newest(GROUP).unwrap().expect("it was written");

    let mut disk = Simulated::new(seed + 1);
    let mut acknowledged = 0;
    let received = loop {
        if random.random_bool(0.9) {
            let fault = [Fault::Kill, Fault::PowerLoss, Fault::Eio][random.random_range(0..3)];
            disk.arm(random.random_range(0..60), fault);
        }
        let before = acknowledged;
        match receive(&disk, options, &outgoing, &mut random, &mut acknowledged, tally) {
            Ok(snapshot) => break snapshot,
            Err(SnapshotError::Disk(_)) => {}
            Err(error) => return Err(format!("seed {seed}: {error}")),
        }
        tally.stops += 1;
        tally.bytes_again += before.saturating_sub(acknowledged);
        let power = random.random_bool(0.5);
        disk = if power { disk.cut_power() } else { disk.kill_process() };
    };
    let disk = disk.cut_power();
    check(&disk, &received, &outgoing, &origin).map_err(|why| format!("seed {seed}: {why}"))
}

/// One start of the receiver, until it holds the snapshot or its disk fails.
fn receive(
    disk: &Simulated,
    options: &Options,
    outgoing: &Outgoing<Simulated>,
    random: &mut StdRng,
    acknowledged: &mut u64,
    tally: &mut Tally,
) -> Result<Snapshot, SnapshotError> {
    let snapshots = Snapshots::open(disk.clone(), Path::new(DIR), options.clone())?;
    let mut incoming = match snapshots.receive(outgoing.snapshot().id)? {
        Offer::Held(snapshot) => return Ok(snapshot),
        Offer::Wanted(incoming) => incoming,
    };
    tally.resumed += u64::from(incoming.received_up_to() > 0);
    *acknowledged = incoming.received_up_to();
    let bytes = outgoing.snapshot().id.bytes;
    while incoming.received_up_to() < bytes {
        let wanted = incoming.received_up_to();
        let offset = match random.random_range(0..10) {
            0 => wanted.saturating_sub(random.random_range(0..3_000)),
            1 => wanted + random.random_range(0..3_000),
            _ => wanted,
        };
        let chunk = outgoing.read_chunk(offset, random.random_range(1..5_000))?;
        tally.chunks += 1;
        let mut sent = chunk.bytes.to_vec();
        let garbled = random.random_bool(0.05) && !sent.is_empty();
        if garbled {
            let at = random.random_range(0..sent.len());
            sent[at] ^= 1;
        }
        match incoming.write_chunk(chunk.offset, &sent, chunk.crc) {
            Ok(next) => {
                assert!(!garbled, "a garbled chunk was taken");
                let taken = chunk.offset <= wanted && chunk.offset + sent.len() as u64 > wanted;
                tally.out_of_place += u64::from(!taken);
                let expected = if taken { chunk.offset + sent.len() as u64 } else { wanted };
                assert_eq!(next, expected);
            }
            Err(SnapshotError::Chunk { .. }) => {
                assert!(garbled, "a good chunk was refused");
                tally.garbled += 1;
            }
            Err(error) => return Err(error),
        }
        *acknowledged = incoming.received_up_to();
    }
    incoming.finish()
}

fn check(
    disk: &Simulated,
    received: &Snapshot,
    outgoing: &Outgoing<Simulated>,
    origin: &Store,
) -> Result<(), String> {
    if received.id != outgoing.snapshot().id || received.meta != outgoing.snapshot().meta {
        return Err("another snapshot was received".to_owned());
    }
    // Where the log was cut because of it, it must be there.
    let base = received.id.last_included;
    let found = open(disk).load(GROUP, base).map_err(|error| error.to_string())?;
    let (_, loaded) = found.latest.ok_or("nothing was received")?;
    if !same(&loaded, origin) {
        return Err("another store was received".to_owned());
    }
    match names(disk).len() {
        1 => Ok(()),
        _ => Err(format!("{:?} were left", names(disk))),
    }
}

fn wanted(snapshots: &Snapshots<Simulated>, from: &Outgoing<Simulated>) -> u64 {
    match snapshots.receive(from.snapshot().id).unwrap() {
        Offer::Held(_) => panic!("it was not received yet"),
        Offer::Wanted(mut incoming) => {
            let wanted = incoming.received_up_to();
            let chunk = from.read_chunk(wanted, 10_000).unwrap();
            incoming.write_chunk(wanted, &chunk.bytes, chunk.crc).unwrap();
            wanted
        }
    }
}

#[test]
fn another_snapshot_abandons_what_was_received() {
    let sender = open(&Simulated::new(1));
    write(&sender, 10, &store(1, 200));
    let first = sender.open_newest(GROUP).unwrap().unwrap();
    write(&sender, 20, &store(2, 200));
    let second = sender.open_newest(GROUP).unwrap().unwrap();

    let disk = Simulated::new(2);
    let receiver = open(&disk);
    assert_eq!(wanted(&receiver, &first), 0);
    assert!(wanted(&receiver, &first) > 0, "resumed");
    assert_eq!(wanted(&receiver, &second), 0);
    assert_eq!(names(&disk).len(), 1, "the first one's part is gone");
    assert_eq!(wanted(&receiver, &first), 0);

    // A snapshot of its own that reaches further makes the transfer pointless.
    write(&receiver, 15, &store(3, 10));
    assert_eq!(names(&open_again(&disk)).len(), 1);
}

fn open_again(disk: &Simulated) -> Simulated {
    let disk = disk.kill_process();
    open(&disk);
    disk
}

#[test]
fn what_is_not_what_was_announced_is_refused_and_removed() {
    let sender = open(&Simulated::new(1));
    write(&sender, 10, &store(1, 50));
    let outgoing = sender.open_newest(GROUP).unwrap().unwrap();
    let id = outgoing.snapshot().id;
    let chunk = outgoing.read_chunk(0, usize::MAX).unwrap();

    let disk = Simulated::new(2);
    let receiver = open(&disk);
    let offer = |id| match receiver.receive(id).unwrap() {
        Offer::Held(_) => panic!("it was never received"),
        Offer::Wanted(incoming) => incoming,
    };
    let mut incoming = offer(id);
    assert!(
        matches!(
            incoming.write_chunk(1, &chunk.bytes, chunk.crc),
            Err(SnapshotError::Chunk { .. })
        ),
        "too long"
    );
    assert!(matches!(incoming.finish(), Err(SnapshotError::Incomplete { received: 0, .. })));

    let mut garbled = chunk.bytes.to_vec();
    let middle = garbled.len() / 2;
    garbled[middle] ^= 1;
    for (id, bytes) in [
        (id, &garbled[..]),
        (bench_node::snapshot::SnapshotId { crc: id.crc ^ 1, ..id }, &chunk.bytes[..]),
        (
            bench_node::snapshot::SnapshotId {
                last_included: EntryId { index: 11, ..id.last_included },
                ..id
            },
            &chunk.bytes[..],
        ),
    ] {
        let mut incoming = offer(id);
        incoming.write_chunk(0, bytes, crc32c::crc32c(bytes)).unwrap();
        let error = incoming.finish().map(drop).expect_err("it is not what was announced");
        assert!(matches!(error, SnapshotError::Damaged { .. }), "{error}");
        assert!(names(&disk).is_empty());
    }
    let mut incoming = offer(id);
    incoming.write_chunk(0, &chunk.bytes, chunk.crc).unwrap();
    incoming.finish().unwrap();
    assert!(matches!(receiver.receive(id), Ok(Offer::Held(snapshot)) if snapshot.id == id));
}
