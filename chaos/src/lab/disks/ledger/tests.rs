//! The ledger against a plain model: files in memory, and what they were when last synced.

use std::collections::{BTreeMap, HashMap};

use super::*;

/// Files as they are, and as they would be after the power went.
#[derive(Default)]
struct Model {
    now: HashMap<Inode, Vec<u8>>,
    durable: HashMap<Inode, Vec<u8>>,
    ledger: Ledger,
}

impl Model {
    fn write(&mut self, inode: Inode, offset: usize, bytes: &[u8]) {
        let file = self.now.entry(inode).or_default();
        let old_len = file.len();
        let end = offset + bytes.len();
        let before = Before::of(&file[offset.min(old_len)..end.min(old_len)]);
        if end > old_len {
            file.resize(end, 0);
        }
        file[offset..end].copy_from_slice(bytes);
        let (offset, len, old_len) = (offset as u64, bytes.len() as u64, old_len as u64);
        self.ledger.wrote(inode, Written { offset, len, before, old_len });
    }

    fn truncate(&mut self, inode: Inode, to: usize) {
        let file = self.now.entry(inode).or_default();
        let old_len = file.len();
        let before = Before::of(&file[to.min(old_len)..]);
        file.resize(to, 0);
        let (offset, len) = (to.min(old_len) as u64, to.abs_diff(old_len) as u64);
        self.ledger.wrote(inode, Written { offset, len, before, old_len: old_len as u64 });
    }

    fn sync(&mut self, inode: Inode) {
        let now = self.ledger.now();
        self.ledger.file_synced(inode, now);
        self.durable.insert(inode, self.now.entry(inode).or_default().clone());
    }

    fn lose(&mut self, loss: Loss) -> Lost {
        let lens: HashMap<Inode, u64> =
            self.now.iter().map(|(inode, file)| (*inode, file.len() as u64)).collect();
        let (undo, _, lost) = self.ledger.lose(loss, |inode| lens[&inode]);
        for step in undo {
            match step {
                Undo::Write { inode, offset, bytes } => {
                    let file = self.now.get_mut(&inode).expect("known");
                    let end = offset as usize + bytes.len();
                    if end > file.len() {
                        file.resize(end, 0);
                    }
                    file[offset as usize..end].copy_from_slice(&bytes);
                }
                Undo::SetLen { inode, len } => {
                    self.now.get_mut(&inode).expect("known").resize(len as usize, 0);
                }
                Undo::Rename(_) => unreachable!("no names here"),
            }
        }
        lost
    }
}

/// Some hundred random writes, truncations and syncs on two files.
fn worked(seed: u64) -> Model {
    let mut random = StdRng::seed_from_u64(seed);
    let mut model = Model::default();
    for inode in [1, 2] {
        model.sync(inode);
    }
    for _ in 0..random.random_range(1..200) {
        let inode = random.random_range(1..=2);
        match random.random_range(0..10) {
            0 => model.sync(inode),
            1 => model.truncate(inode, random.random_range(0..6000)),
            _ => {
                let bytes = vec![random.random::<u8>(); random.random_range(1..2000)];
                model.write(inode, random.random_range(0..5000), &bytes);
            }
        }
    }
    model
}

#[test]
fn what_was_synced_stays_and_all_else_is_lost() {
    for seed in 0..300 {
        let mut model = worked(seed);
        model.lose(Loss::Whole);
        assert_eq!(model.now, model.durable, "seed {seed}");
    }
}

#[test]
fn torn_every_sector_is_the_last_or_the_durable_one() {
    let mut mixed = 0;
    for seed in 0..300 {
        let mut model = worked(seed);
        let last = model.now.clone();
        model.lose(Loss::Torn { seed });
        for (inode, file) in &model.now {
            let (last, durable) = (&last[inode], &model.durable[inode]);
            assert!(file.len() == last.len() || file.len() == durable.len(), "seed {seed}");
            let sector = |of: &[u8], at: usize| {
                let mut bytes: Vec<u8> = of.iter().skip(at).take(512).copied().collect();
                bytes.resize(512.min(file.len() - at), 0);
                bytes
            };
            let mut kinds = BTreeSet::new();
            for at in (0..file.len()).step_by(512) {
                let (seen, new, old) = (sector(file, at), sector(last, at), sector(durable, at));
                assert!(seen == new || seen == old, "seed {seed}, file {inode}, at {at}");
                kinds.insert((seen == new, seen == old));
            }
            mixed += usize::from(kinds.contains(&(true, false)) && kinds.contains(&(false, true)));
        }
    }
    assert!(mixed > 50, "only {mixed} files were torn");
}

#[test]
fn a_sync_covers_only_what_came_before_it() {
    let mut model = Model::default();
    model.sync(1);
    model.write(1, 0, b"first");
    let began = model.ledger.now();
    model.write(1, 5, b"second");
    model.ledger.file_synced(1, began);
    let lost = model.lose(Loss::Whole);
    assert_eq!(model.now[&1], b"first");
    assert_eq!((lost.unsynced_writes, lost.lost_bytes), (1, 6));
}

fn at(dir: Inode, name: &str) -> Name {
    Name { dir, name: name.into() }
}

/// What the names are after the power went, from what they were.
fn names_after(mut ledger: Ledger, names: &[(Inode, &str)]) -> Vec<String> {
    let mut there: BTreeMap<Name, ()> =
        names.iter().map(|(dir, name)| (at(*dir, name), ())).collect();
    let (undo, _, _) = ledger.lose(Loss::Whole, |_| 0);
    for step in undo {
        let Undo::Rename(renamed) = step else { continue };
        match renamed {
            Renamed::Made { at, .. } => drop(there.remove(&at)),
            Renamed::Removed { at, .. } => drop(there.insert(at, ())),
            Renamed::Moved { from, to, replaced } => {
                there.remove(&to);
                there.insert(from, ());
                if replaced.is_some() {
                    there.insert(to, ());
                }
            }
        }
    }
    there.into_keys().map(|name| format!("{}/{}", name.dir, name.name.to_string_lossy())).collect()
}

#[test]
fn names_live_until_their_directory_is_synced() {
    let mut ledger = Ledger::default();
    ledger.renamed(Renamed::Made { at: at(1, "new"), inode: 10 });
    ledger.renamed(Renamed::Removed { at: at(1, "old"), aside: "0".into() });
    let before = [(1, "new")];
    let mut synced = Ledger { last: ledger.last, names: ledger.names.clone(), ..Ledger::default() };
    assert_eq!(names_after(ledger, &before), ["1/old"]);
    let now = synced.now();
    assert_eq!(synced.dir_synced(1, now), [OsString::from("0")]);
    assert_eq!(names_after(synced, &before), ["1/new"]);
}

#[test]
fn a_synced_file_keeps_its_new_name_and_its_new_directories() {
    let mut ledger = Ledger::default();
    ledger.renamed(Renamed::Made { at: at(1, "dir"), inode: 10 });
    ledger.renamed(Renamed::Made { at: at(10, "file"), inode: 11 });
    ledger.renamed(Renamed::Made { at: at(10, "other"), inode: 12 });
    let now = ledger.now();
    ledger.file_synced(11, now);
    assert_eq!(
        names_after(ledger, &[(1, "dir"), (10, "file"), (10, "other")]),
        ["1/dir", "10/file"]
    );
}

#[test]
fn a_move_is_lost_with_its_sync_and_kept_with_that_of_its_directory() {
    let moved = || {
        let mut ledger = Ledger::default();
        ledger.renamed(Renamed::Made { at: at(1, "tmp"), inode: 10 });
        let replaced = Some("0".into());
        ledger.renamed(Renamed::Moved { from: at(1, "tmp"), to: at(1, "final"), replaced });
        let now = ledger.now();
        ledger.file_synced(10, now);
        ledger
    };
    assert_eq!(names_after(moved(), &[(1, "final")]), ["1/final", "1/tmp"]);
    let mut synced = moved();
    let now = synced.now();
    synced.dir_synced(1, now);
    assert_eq!(names_after(synced, &[(1, "final")]), ["1/final"]);
}

#[test]
fn what_happened_to_a_name_before_becomes_durable_with_it() {
    let mut ledger = Ledger::default();
    ledger.renamed(Renamed::Removed { at: at(1, "name"), aside: "0".into() });
    ledger.renamed(Renamed::Made { at: at(1, "name"), inode: 10 });
    let now = ledger.now();
    // Only the new file is synced: that the old one is gone must go with it.
    assert_eq!(ledger.file_synced(10, now), [OsString::from("0")]);
    assert_eq!(names_after(ledger, &[(1, "name")]), ["1/name"]);
}

#[test]
fn torn_names_survive_in_their_order() {
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let mut ledger = Ledger::default();
        for number in 0..4 {
            ledger.renamed(Renamed::Made { at: at(1, &number.to_string()), inode: 10 + number });
        }
        let (undo, _, lost) = ledger.lose(Loss::Torn { seed }, |_| 0);
        assert_eq!(undo.len() as u64, lost.lost_names);
        let undone: Vec<Inode> = undo
            .iter()
            .map(|step| match step {
                Undo::Rename(Renamed::Made { inode, .. }) => *inode,
                other => unreachable!("{other:?}"),
            })
            .collect();
        let last_ones: Vec<Inode> = (10..14).rev().take(undone.len()).collect();
        assert_eq!(undone, last_ones, "seed {seed}");
        seen.insert(undone.len());
    }
    assert_eq!(seen.len(), 5);
}
