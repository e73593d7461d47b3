//! A membership's bytes, as log and snapshots hold them.
//!
//! Invariant: what was put is taken back equal; taking takes any bytes whatever without panic.
//!
//! Voters, outgoing and learners: each a count (4) and ids (8 each). Then the context: its length
//! (4) and its bytes. Integers are little-endian.

use bytes::{Buf, BufMut, Bytes};
use raft::{Membership, NodeId};

/// Bytes that [`put`] puts.
pub(crate) fn encoded_bytes(membership: &Membership<Bytes>) -> usize {
    let Membership { voters, outgoing, learners, context } = membership;
    4 * 4 + 8 * (voters.len() + outgoing.len() + learners.len()) + context.len()
}

/// Appends a membership to `out`.
pub(crate) fn put(out: &mut Vec<u8>, membership: &Membership<Bytes>) {
    for nodes in [&membership.voters, &membership.outgoing, &membership.learners] {
        out.put_u32_le(nodes.len() as u32);
        nodes.iter().for_each(|node| out.put_u64_le(*node));
    }
    out.put_u32_le(membership.context.len() as u32);
    out.put_slice(&membership.context);
}

/// Takes a membership from the front of `bytes`; `None` where they end before it does.
pub(crate) fn take(bytes: &mut Bytes) -> Option<Membership<Bytes>> {
    Some(Membership {
        voters: take_nodes(bytes)?,
        outgoing: take_nodes(bytes)?,
        learners: take_nodes(bytes)?,
        context: take_data(bytes)?,
    })
}

fn take_nodes(bytes: &mut Bytes) -> Option<Vec<NodeId>> {
    let count = bytes.try_get_u32_le().ok()? as usize;
    (count <= bytes.len() / 8).then(|| (0..count).map(|_| bytes.get_u64_le()).collect())
}

/// Takes a length (4) and so many bytes.
pub(crate) fn take_data(bytes: &mut Bytes) -> Option<Bytes> {
    let len = bytes.try_get_u32_le().ok()? as usize;
    (len <= bytes.len()).then(|| bytes.split_to(len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_is_taken_back_and_nothing_from_less() {
        let membership = Membership {
            voters: vec![1, u64::MAX],
            outgoing: vec![3],
            learners: vec![],
            context: Bytes::from_static(b"addresses"),
        };
        let mut bytes = Vec::new();
        put(&mut bytes, &membership);
        assert_eq!(bytes.len(), encoded_bytes(&membership));
        for len in 0..bytes.len() {
            assert_eq!(take(&mut Bytes::copy_from_slice(&bytes[..len])), None, "cut at {len}");
        }
        bytes.push(7);
        let mut bytes = Bytes::from(bytes);
        assert_eq!(take(&mut bytes), Some(membership));
        assert_eq!(bytes[..], [7]);
    }
}
