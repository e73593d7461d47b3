//! What the keys of a run hold after it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::error::LoadError;
use crate::record::ReadValue;
use crate::spec::LoadSpec;
use crate::target::admin;
use crate::workload::Values;

/// Every key under a run's prefix, read linearizably.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FinalState {
    /// The run's keys that are there, by number.
    pub keys: BTreeMap<u32, FinalKey>,
    /// Names under the prefix that are not keys of the run.
    pub foreign: Vec<String>,
}

/// What one key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FinalKey {
    /// Whose value.
    pub value: ReadValue,
    /// Puts since the key was created.
    pub version: i64,
    /// Revision of its first put.
    pub create_revision: i64,
    /// Revision of its last put.
    pub mod_revision: i64,
}

/// An answer should hold about this much.
const PAGE_BYTES: usize = 1 << 20;
const MAX_PAGE_KEYS: usize = 1000;

/// Reads the state back; asks again, all endpoints in turn, until `patience` is over.
pub async fn read_final_state(
    endpoints: &[String],
    spec: &LoadSpec,
    patience: Duration,
) -> Result<FinalState, LoadError> {
    let page_keys = (PAGE_BYTES / (spec.value_bytes + 100)).clamp(1, MAX_PAGE_KEYS) as i64;
    let prefix = &spec.keys.prefix;
    let values = Values::new(spec.value_bytes, spec.seed);
    let mut state = FinalState::default();
    for kv in admin::range_prefix(endpoints, prefix, page_keys, patience).await? {
        match number_of(&kv.key, spec) {
            Some(key) => {
                let held = FinalKey {
                    value: values.read(&kv.value),
                    version: kv.version,
                    create_revision: kv.create_revision,
                    mod_revision: kv.mod_revision,
                };
                state.keys.insert(key, held);
            }
            None => state.foreign.push(String::from_utf8_lossy(&kv.key).into_owned()),
        }
    }
    Ok(state)
}

fn number_of(key: &[u8], spec: &LoadSpec) -> Option<u32> {
    let name = std::str::from_utf8(key).ok()?;
    let number = name.strip_prefix(&spec.keys.prefix)?.parse().ok()?;
    (number < spec.keys.count && spec.keys.name(number) == name).then_some(number)
}
