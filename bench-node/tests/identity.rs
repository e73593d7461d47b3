//! A data directory belongs to one process, one member, one cluster; and it forgets nobody.

use std::path::Path;

use bench_node::Member;
use bench_node::disk::{Blocking, Disk, DiskFile, Fault, Simulated};
use bench_node::identity::{DataDir, Fresh, IdentityError};

const CLUSTER: u64 = 0xc1;
const MEMBER: u64 = 1;

fn open<D: Disk>(disk: &D, dir: &Path, incarnation: u64) -> Result<DataDir<D>, IdentityError> {
    DataDir::open_on(disk.clone(), dir, CLUSTER, MEMBER, Fresh { incarnation, founders: &[] })
}

fn belongs_to_one_member<D: Disk>(disk: &D, dir: &Path) {
    let mut first = open(disk, dir, 7).unwrap();
    assert!(first.fresh() && !first.introduced() && first.known_peers().is_empty());
    assert_eq!(first.incarnation(), 7);
    first.remember(2, 20).unwrap();
    first.remember(2, 20).expect("the same again is fine");
    first.remember(3, u64::MAX).unwrap();
    first.set_introduced().unwrap();

    let Err(IdentityError::Locked { path, holder }) = open(disk, dir, 8) else {
        panic!("a directory in use was opened");
    };
    assert_eq!(path, dir);
    assert_eq!(holder, Some(format!("process {}", std::process::id())));
    drop(first);

    let mut again = open(disk, dir, 9).unwrap();
    assert!(!again.fresh() && again.introduced());
    assert_eq!(again.incarnation(), 7, "drawn once");
    assert_eq!(again.known_peers().iter().collect::<Vec<_>>(), [(&2, &20), (&3, &u64::MAX)]);
    let stranger = again.remember(2, 21).unwrap_err();
    assert!(
        matches!(stranger, IdentityError::Stranger { peer: 2, known: 20, met: 21 }),
        "{stranger}"
    );
    assert_eq!(again.known_peers()[&2], 20);
    again.forget(&[2, 4]).unwrap();
    drop(again);
    let again = open(disk, dir, 9).unwrap();
    assert_eq!(again.known_peers().keys().collect::<Vec<_>>(), [&3], "struck off for good");
    drop(again);

    for (cluster, member) in [(CLUSTER, 2), (0xc2, MEMBER)] {
        let fresh = Fresh { incarnation: 1, founders: &[] };
        let error =
            DataDir::open_on(disk.clone(), dir, cluster, member, fresh).map(drop).unwrap_err();
        assert!(matches!(error, IdentityError::Foreign { .. }), "{error}");
        for named in [cluster, member, CLUSTER, MEMBER] {
            assert!(error.to_string().contains(&format!("{named:016x}")), "{error}");
        }
    }
    assert!(open(disk, dir, 1).is_ok(), "a refusal holds no lock");
}

#[test]
fn a_directory_belongs_to_one_member() {
    let dir = tempfile::tempdir().unwrap();
    belongs_to_one_member(&Blocking, &dir.path().join("new/data"));
    belongs_to_one_member(&Simulated::new(1), Path::new("/new/data"));
}

/// Whatever a configuration says later: the log goes on from these.
#[test]
fn a_directory_keeps_the_founders_it_was_made_with() {
    let (disk, dir) = (Simulated::new(4), Path::new("/data"));
    let founder = |id: u64| Member {
        id,
        name: format!("n{id}"),
        peer: format!("h:{id}"),
        client: format!("c:{id}"),
    };
    let founders = [founder(MEMBER), founder(2)];
    let with = |founders: &[Member]| {
        let fresh = Fresh { incarnation: 7, founders };
        DataDir::open_on(disk.clone(), dir, CLUSTER, MEMBER, fresh).unwrap()
    };
    assert_eq!(with(&founders).founders(), Some(&founders[..]));
    assert_eq!(with(&[]).founders(), Some(&founders[..]));
}

#[test]
fn a_directory_with_other_things_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("thesis.tex"), "years of work").unwrap();
    let error = DataDir::open(dir.path(), CLUSTER, MEMBER).map(drop).unwrap_err();
    assert!(matches!(error, IdentityError::NotADataDir { .. }), "{error}");
    assert!(error.to_string().contains("thesis.tex"), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);

    // What is left of a member whose identity file is gone.
    let dir = tempfile::tempdir().unwrap();
    drop(DataDir::open(dir.path(), CLUSTER, MEMBER).unwrap());
    std::fs::create_dir(dir.path().join("wal")).unwrap();
    std::fs::remove_file(dir.path().join("identity")).unwrap();
    let error = DataDir::open(dir.path(), CLUSTER, MEMBER).map(drop).unwrap_err();
    assert!(matches!(error, IdentityError::NotADataDir { .. }), "{error}");

    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = DataDir::open(&file, CLUSTER, MEMBER).map(drop).unwrap_err();
    assert!(error.to_string().contains(&file.display().to_string()), "{error}");
}

#[test]
fn any_damage_to_the_identity_is_refused() {
    let (disk, dir) = (Simulated::new(2), Path::new("/data"));
    open(&disk, dir, 7).unwrap().remember(2, 20).unwrap();
    let path = dir.join("identity");
    let whole = disk.bytes(&path).unwrap();
    let refused = |what: String| {
        let error = open(&disk, dir, 8).map(drop).expect_err(&what);
        assert!(matches!(error, IdentityError::Damaged { .. }), "{what}: {error}");
        assert!(error.to_string().contains("/data/identity"), "{error}");
    };
    for bit in 0..whole.len() * 8 {
        disk.corrupt(&path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        refused(format!("bit {bit}"));
        disk.corrupt(&path, |bytes| *bytes = whole.clone());
    }
    for len in 0..whole.len() {
        disk.corrupt(&path, |bytes| bytes.truncate(len));
        refused(format!("cut at {len}"));
        disk.corrupt(&path, |bytes| *bytes = whole.clone());
    }
    assert_eq!(open(&disk, dir, 8).unwrap().incarnation(), 7);
}

/// Every fault at every operation, then a kill or a power cut: what was reported is there, and
/// what is there is whole.
#[test]
fn what_was_reported_survives_every_fault() {
    let dir = Path::new("/data");
    let faults = [Fault::Eio, Fault::Enospc, Fault::PowerLoss, Fault::Kill];
    let mut failed = 0;
    for (seed, at) in (0..20_u64).flat_map(|seed| (0..40).map(move |at| (seed, at))) {
        for fault in faults {
            let disk = Simulated::new(seed);
            disk.arm(at, fault);
            let mut reported = 0;
            let mut fresh = false;
            let result = open(&disk, dir, 7).and_then(|mut data| {
                fresh = true;
                for peer in 2..6 {
                    data.remember(peer, peer * 10)?;
                    reported = peer;
                }
                data.set_introduced()?;
                reported = 6;
                Ok(())
            });
            failed += u64::from(result.is_err());
            let power = fault == Fault::PowerLoss || seed % 2 == 0;
            let disk = if power { disk.cut_power() } else { disk.kill_process() };
            let data = open(&disk, dir, 8)
                .unwrap_or_else(|error| panic!("seed {seed}, {fault:?} at {at}: {error}"));
            let what = format!("seed {seed}, {fault:?} at {at}");
            assert!(!fresh || data.incarnation() == 7, "{what}: forgot itself");
            for peer in 2..6.min(reported + 1) {
                assert_eq!(data.known_peers().get(&peer), Some(&(peer * 10)), "{what}");
            }
            assert!(data.introduced() || reported < 6, "{what}");
        }
    }
    assert!(failed > 1000, "only {failed} runs met their fault");
}

#[test]
fn errors_of_the_disk_name_the_path_and_say_what_to_do() {
    let disk = Simulated::new(3);
    disk.create_dir_all(Path::new("/data")).unwrap();
    disk.set_free_bytes(Some(10));
    let error = open(&disk, Path::new("/data"), 7).map(drop).unwrap_err().to_string();
    assert!(error.contains("/data/identity.new") && error.contains("free space"), "{error}");
    let file = disk.create(Path::new("/data/x")).unwrap();
    disk.arm(0, Fault::Eio);
    let error = file.sync().unwrap_err().to_string();
    assert!(error.contains("/data/x") && error.contains("the device fails"), "{error}");
}
