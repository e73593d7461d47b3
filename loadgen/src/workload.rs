//! What each operation does: put or get, on which key, with which value.
//!
//! Invariant: a written value names the write that made it and nothing else has that value, so
//! that whoever reads it, now or after the run, knows which write it saw.

use bytes::Bytes;
use history::Kind;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use rand_distr::Zipf;

use crate::record::ReadValue;
use crate::spec::{KeyDistribution, Keys, LoadSpec, MIN_VALUE_BYTES};

/// Draws operations, endlessly, from a seed.
pub(crate) struct Workload {
    rng: Xoshiro256PlusPlus,
    put_share: f64,
    count: u32,
    zipf: Option<Zipf<f64>>,
}

impl Workload {
    pub(crate) fn new(spec: &LoadSpec, seed: u64) -> Self {
        let Keys { count, distribution, .. } = &spec.keys;
        let zipf = match distribution {
            KeyDistribution::Uniform => None,
            // Refused only for what a sound spec does not hold; uniform is then all that is left.
            KeyDistribution::Zipfian { exponent } => Zipf::new(f64::from(*count), *exponent).ok(),
        };
        let rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        Self { rng, put_share: spec.put_share, count: *count, zipf }
    }

    /// The next operation's kind and key. Key 0 is the most popular where popularity differs.
    pub(crate) fn draw(&mut self) -> (Kind, u32) {
        let kind = if self.rng.random::<f64>() < self.put_share { Kind::Put } else { Kind::Get };
        let key = match &self.zipf {
            None => self.rng.random_range(0..self.count),
            Some(zipf) => (self.rng.sample(zipf) as u32).clamp(1, self.count) - 1,
        };
        (kind, key)
    }
}

/// The values of a run: 16 hex digits of the write's number, then filler that the seed and that
/// number determine.
#[derive(Clone, Debug)]
pub struct Values {
    filler: Bytes,
    filler_bytes: usize,
}

/// Fillers start at one of this many places, so that neighbours differ in more than their number.
const FILLER_STARTS: usize = 61;

impl Values {
    /// The values of a run with this size and seed.
    pub fn new(value_bytes: usize, seed: u64) -> Self {
        const LETTERS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let filler_bytes = value_bytes.saturating_sub(MIN_VALUE_BYTES);
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let filler = (0..filler_bytes + FILLER_STARTS)
            .map(|_| LETTERS[rng.random_range(0..LETTERS.len())])
            .collect();
        Self { filler, filler_bytes }
    }

    /// What the put with this number writes.
    pub fn value(&self, sequence: u64) -> Bytes {
        let mut value = Vec::with_capacity(MIN_VALUE_BYTES + self.filler_bytes);
        value.extend_from_slice(Self::text(sequence).as_bytes());
        value.extend_from_slice(self.filler_of(sequence));
        value.into()
    }

    /// Which write a value comes from; a value damaged in any byte is foreign.
    pub fn read(&self, value: &[u8]) -> ReadValue {
        let number = value
            .split_at_checked(MIN_VALUE_BYTES)
            .and_then(|(digits, rest)| Some((std::str::from_utf8(digits).ok()?, rest)))
            .and_then(|(digits, rest)| Some((u64::from_str_radix(digits, 16).ok()?, rest)));
        match number {
            Some((sequence, rest)) if rest == self.filler_of(sequence) => {
                ReadValue::Written(sequence)
            }
            _ => ReadValue::Foreign,
        }
    }

    /// What a get that found this value (or no key) read.
    pub(crate) fn read_answer(&self, value: Option<&[u8]>) -> ReadValue {
        value.map_or(ReadValue::Absent, |value| self.read(value))
    }

    /// The digits that make a value unique; what histories show of it.
    pub fn text(sequence: u64) -> String {
        format!("{sequence:016x}")
    }

    fn filler_of(&self, sequence: u64) -> &[u8] {
        let start = (sequence % FILLER_STARTS as u64) as usize;
        &self.filler[start..start + self.filler_bytes]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::spec;

    #[test]
    fn a_value_names_its_write_and_damage_shows() {
        let values = Values::new(100, 1);
        let value = values.value(0xabc);
        assert_eq!(value.len(), 100);
        assert_eq!(&value[..16], b"0000000000000abc");
        assert_eq!(values.read(&value), ReadValue::Written(0xabc));
        let mut damaged = value.to_vec();
        damaged[99] ^= 1;
        assert_eq!(values.read(&damaged), ReadValue::Foreign);
        assert_eq!(values.read(b"short"), ReadValue::Foreign);
        assert_eq!(values.read(&value[..50]), ReadValue::Foreign);
        let bare = Values::new(MIN_VALUE_BYTES, 1);
        assert_eq!(bare.read(&bare.value(7)), ReadValue::Written(7));
    }

    #[test]
    fn zipfian_ranks_have_their_shares_and_uniform_keys_are_even() {
        let draws = 200_000;
        let shares = |distribution| {
            let mut spec = spec();
            spec.keys.count = 100;
            spec.keys.distribution = distribution;
            let mut workload = Workload::new(&spec, 5);
            let mut counts = [0u32; 100];
            (0..draws).for_each(|_| counts[workload.draw().1 as usize] += 1);
            counts.map(|count| f64::from(count) / f64::from(draws))
        };
        let even = shares(KeyDistribution::Uniform);
        assert!(even.iter().all(|share| (share - 0.01).abs() < 0.002), "{even:?}");
        let skewed = shares(KeyDistribution::Zipfian { exponent: 1.0 });
        let harmonic: f64 = (1..=100).map(|rank| 1.0 / f64::from(rank)).sum();
        for rank in [1, 2, 10, 100] {
            let expected = 1.0 / f64::from(rank) / harmonic;
            let share = skewed[rank as usize - 1];
            assert!((share / expected - 1.0).abs() < 0.15, "rank {rank}: {share} of {expected}");
        }
    }

    #[test]
    fn the_mix_is_kept() {
        let mut spec = spec();
        spec.put_share = 0.25;
        let mut workload = Workload::new(&spec, 9);
        let puts = (0..100_000).filter(|_| workload.draw().0 == Kind::Put).count();
        assert!((24_000..26_000).contains(&puts), "{puts}");
    }
}
