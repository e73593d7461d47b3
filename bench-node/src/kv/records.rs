//! The keys with their records, in order, in pages that clones share.
//!
//! Invariant: a clone is a snapshot: it costs a reference for each page, and no later change shows
//! in it. So a read that takes long works on a clone, and holds up nobody. While a clone lives, the
//! first change of each page that it shares copies that page.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::Record;

/// A page with more keys is split. Small enough that copying one is a matter of microseconds, large
/// enough that the references to a million keys' pages are copied in less than a millisecond.
const MAX_PAGE_KEYS: usize = 128;
/// A page with fewer keys is joined with a neighbour that has room for them.
const MIN_PAGE_KEYS: usize = MAX_PAGE_KEYS / 4;

type Page = Vec<(Bytes, Record)>;

/// All keys.
#[derive(Clone, Debug, Default)]
pub(super) struct Records {
    /// By a bound below each page's keys and above those of the page before. No page is empty, and
    /// the first one's bound is the empty key.
    pages: BTreeMap<Bytes, Arc<Page>>,
}

impl Records {
    pub(super) fn get(&self, key: &[u8]) -> Option<&Record> {
        self.get_key_value(key).map(|(_, record)| record)
    }

    pub(super) fn get_key_value(&self, key: &[u8]) -> Option<(&Bytes, &Record)> {
        let (_, page) = self.pages.range::<[u8], _>(up_to(key)).next_back()?;
        let (key, record) = &page[position(page, key).ok()?];
        Some((key, record))
    }

    pub(super) fn contains_key(&self, key: &[u8]) -> bool {
        self.get_key_value(key).is_some()
    }

    /// In the order of keys.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Bytes, &Record)> {
        self.pages.values().flat_map(|page| page.iter()).map(|(key, record)| (key, record))
    }

    /// From `first` on, as far as `end`.
    pub(super) fn range(
        &self,
        first: &[u8],
        end: Bound<&[u8]>,
    ) -> impl Iterator<Item = (&Bytes, &Record)> {
        // The page that `first` belongs to begins before it.
        let bound = self.pages.range::<[u8], _>(up_to(first)).next_back().map(|(bound, _)| bound);
        let from = bound.map_or(&[][..], |bound| &bound[..]);
        let pages = self.pages.range::<[u8], _>((Bound::Included(from), Bound::Unbounded));
        let first_at = pages.clone().next().map_or(0, |(_, page)| before(page, first));
        let below_end = move |key: &[u8]| match end {
            Bound::Excluded(end) => key < end,
            Bound::Included(end) => key <= end,
            Bound::Unbounded => true,
        };
        pages
            .flat_map(|(_, page)| page.iter())
            .skip(first_at)
            .map(|(key, record)| (key, record))
            .take_while(move |(key, _)| below_end(key))
    }

    /// Sets a key; the record that it had.
    pub(super) fn insert(&mut self, key: Bytes, record: Record) -> Option<Record> {
        let Some((_, page)) = self.pages.range_mut::<[u8], _>(up_to(&key)).next_back() else {
            self.pages.insert(Bytes::new(), Arc::new(vec![(key, record)]));
            return None;
        };
        let page = Arc::make_mut(page);
        match position(page, &key) {
            Ok(at) => return Some(std::mem::replace(&mut page[at].1, record)),
            Err(at) => page.insert(at, (key, record)),
        }
        if page.len() > MAX_PAGE_KEYS {
            // Keys that only grow fill their pages.
            let upper = page.split_off(MAX_PAGE_KEYS / 2);
            let bound = upper[0].0.clone();
            self.pages.insert(bound, Arc::new(upper));
        }
        None
    }

    /// Takes a key out.
    pub(super) fn remove(&mut self, key: &[u8]) -> Option<Record> {
        let (bound, page) = self.pages.range_mut::<[u8], _>(up_to(key)).next_back()?;
        let at = position(page, key).ok()?;
        let page = Arc::make_mut(page);
        let (_, record) = page.remove(at);
        if page.len() < MIN_PAGE_KEYS {
            let bound = bound.clone();
            self.join(&bound);
        }
        Some(record)
    }

    /// Joins the page at `bound` with the one before it (the first, with the one after it), where it
    /// is empty or both together leave room for more.
    fn join(&mut self, bound: &Bytes) {
        let lower = self.pages.range::<[u8], _>(below(bound)).next_back();
        let lower = lower.map_or(Bytes::new(), |(lower, _)| lower.clone());
        let upper = self.pages.range::<[u8], _>(above(&lower)).next();
        let Some(upper) = upper.map(|(upper, _)| upper.clone()) else {
            if self.pages[&lower].is_empty() {
                self.pages.clear();
            }
            return;
        };
        let (in_lower, in_upper) = (self.pages[&lower].len(), self.pages[&upper].len());
        if in_lower.min(in_upper) > 0 && in_lower + in_upper > MAX_PAGE_KEYS / 2 {
            return;
        }
        let keys = self.pages.remove(&upper).map(Arc::unwrap_or_clone);
        let page = self.pages.get_mut(&lower).map(Arc::make_mut);
        page.expect("it was found").extend(keys.expect("it was found"));
    }
}

fn up_to(key: &[u8]) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (Bound::Unbounded, Bound::Included(key))
}

fn below(key: &[u8]) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (Bound::Unbounded, Bound::Excluded(key))
}

fn above(key: &[u8]) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (Bound::Excluded(key), Bound::Unbounded)
}

/// Where a key is in its page, or where it would be.
fn position(page: &Page, key: &[u8]) -> Result<usize, usize> {
    page.binary_search_by(|(other, _)| other[..].cmp(key))
}

/// How many of a page's keys lie before `key`.
fn before(page: &Page, key: &[u8]) -> usize {
    position(page, key).unwrap_or_else(|at| at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    /// Against a plain map, with snapshots that must stay as they were.
    #[test]
    fn pages_hold_what_a_map_holds_and_snapshots_what_it_held() {
        for seed in 0..20 {
            let mut random = StdRng::seed_from_u64(seed);
            let (mut records, mut model) = (Records::default(), BTreeMap::new());
            let mut snapshots: Vec<(Records, BTreeMap<Bytes, Record>)> = Vec::new();
            // Grows, shrinks to nothing, and grows again.
            for (steps, inserts) in [(3_000, 0.8), (6_000, 0.2), (1_000, 0.6)] {
                for step in 0..steps {
                    let key = key(random.random_range(0..1_500));
                    if random.random_bool(inserts) {
                        let record = Record { version: step, ..Default::default() };
                        let old = records.insert(key.clone(), record.clone());
                        assert_eq!(old, model.insert(key, record), "seed {seed}, step {step}");
                    } else {
                        assert_eq!(records.remove(&key), model.remove(&key), "seed {seed}");
                    }
                    if random.random_bool(0.001) {
                        snapshots.push((records.clone(), model.clone()));
                    }
                }
                assert_sound(&records);
                assert_same(&mut random, &records, &model);
            }
            for (records, model) in &snapshots {
                assert_sound(records);
                assert_same(&mut random, records, model);
            }
            model.keys().for_each(|key| drop(records.remove(key)));
            assert!(records.pages.is_empty(), "seed {seed}");
        }
    }

    fn key(number: u32) -> Bytes {
        // The empty key too, and keys that begin as others do.
        Bytes::from("k".repeat(number as usize % 7) + &number.to_string()[1..])
    }

    fn assert_same(random: &mut StdRng, records: &Records, model: &BTreeMap<Bytes, Record>) {
        assert!(records.iter().eq(model.iter()));
        for _ in 0..200 {
            let [first, end] = [0, 1].map(|_: u8| key(random.random_range(0..1_500)));
            assert_eq!(records.get_key_value(&first), model.get_key_value(&first));
            let bounds = [Bound::Unbounded, Bound::Excluded(&end[..]), Bound::Included(&end[..])];
            for bound in bounds.into_iter().filter(|end| *end == Bound::Unbounded || first < end_of(end)) {
                let expected = model.range::<[u8], _>((Bound::Included(&first[..]), bound));
                assert!(records.range(&first, bound).eq(expected), "{first:?} to {bound:?}");
            }
        }
    }

    fn end_of<'a>(bound: &Bound<&'a [u8]>) -> &'a [u8] {
        match bound {
            Bound::Included(end) | Bound::Excluded(end) => end,
            Bound::Unbounded => &[],
        }
    }

    /// What the module promises of its pages.
    fn assert_sound(records: &Records) {
        let bounds: Vec<_> = records.pages.keys().collect();
        assert!(bounds.first().is_none_or(|first| first.is_empty()));
        for (index, (bound, page)) in records.pages.iter().enumerate() {
            assert!(!page.is_empty() && page.len() <= MAX_PAGE_KEYS);
            assert!(page.is_sorted_by(|a, b| a.0 < b.0) && page[0].0 >= *bound);
            assert!(bounds.get(index + 1).is_none_or(|next| page[page.len() - 1].0 < **next));
        }
    }
}
