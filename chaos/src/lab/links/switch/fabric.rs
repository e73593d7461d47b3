//! What the switch holds: every direction's state, and the packets that are under way.
//!
//! Invariant: pure; time comes in. Packets with the same due time leave in the order in which they
//! came.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::Ipv4Addr;

use super::super::State;
use super::fate::{Arrival, Fate};
use super::planted::Planted;

/// All directions between the ports of one switch.
pub(super) struct Fabric {
    ports: Vec<Ipv4Addr>,
    /// By sender, then by receiver.
    ways: Vec<Way>,
    under_way: BinaryHeap<Reverse<UnderWay>>,
    /// Packets that wait, by their place; and the places that are free.
    packets: Vec<Vec<u8>>,
    free: Vec<usize>,
    sequence: u64,
}

struct Way {
    state: State,
    fate: Fate,
    queue_limit: u32,
    queued: u32,
    delivered: u64,
    dropped: u64,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct UnderWay {
    due_ns: u64,
    sequence: u64,
    way: usize,
    place: usize,
}

/// A packet that leaves the switch.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Leaving<'a> {
    /// To this port.
    pub(super) to: usize,
    /// It was due then.
    pub(super) due_ns: u64,
    /// Itself.
    pub(super) packet: &'a [u8],
}

impl Fabric {
    /// With all ways open, under no conditions.
    pub(super) fn new(ports: Vec<Ipv4Addr>, seed: u64) -> Self {
        let planted = |number| Planted::of(number / ports.len(), number % ports.len());
        let way = |number| Way {
            state: State::Open(Default::default()),
            fate: Fate::new(seed, number as u64, planted(number)),
            queue_limit: 0,
            queued: 0,
            delivered: 0,
            dropped: 0,
        };
        let ways = (0..ports.len() * ports.len()).map(way).collect();
        let mut fabric = Self {
            ports,
            ways,
            under_way: BinaryHeap::new(),
            packets: Vec::new(),
            free: Vec::new(),
            sequence: 0,
        };
        for from in 0..fabric.ports.len() {
            for to in 0..fabric.ports.len() {
                fabric.set(from, to, State::Open(Default::default()));
            }
        }
        fabric
    }

    /// Gives a way its new state; what is under way on it stays so.
    pub(super) fn set(&mut self, from: usize, to: usize, state: State) {
        let number = self.way(from, to);
        let way = &mut self.ways[number];
        way.state = state;
        way.queue_limit = match state {
            State::Open(conditions) => conditions.queue_packets(),
            State::Cut => 0,
        };
    }

    /// Takes in an IPv4 packet that port `from` sent. One that is for nobody here is dropped
    /// without account.
    pub(super) fn take(&mut self, now_ns: u64, from: usize, packet: &[u8]) {
        let Some(to) = self.receiver(packet).filter(|to| *to != from) else { return };
        let number = self.way(from, to);
        let way = &mut self.ways[number];
        let arrivals = way.fate.decide(&way.state, now_ns, packet.len());
        if arrivals[0].is_none() {
            way.dropped += 1;
        }
        for Arrival { due_ns, flipped_bit } in arrivals.into_iter().flatten() {
            let way = &mut self.ways[number];
            if way.queued >= way.queue_limit {
                way.dropped += 1;
                continue;
            }
            way.queued += 1;
            let place = self.free.pop().unwrap_or_else(|| {
                self.packets.push(Vec::with_capacity(2048));
                self.packets.len() - 1
            });
            let copy = &mut self.packets[place];
            copy.clear();
            copy.extend_from_slice(packet);
            if let Some(bit) = flipped_bit {
                copy[bit / 8] ^= 1 << (bit % 8);
            }
            self.sequence += 1;
            let sequence = self.sequence;
            self.under_way.push(Reverse(UnderWay { due_ns, sequence, way: number, place }));
        }
    }

    /// When the next packet is due.
    pub(super) fn next_due_ns(&self) -> Option<u64> {
        self.under_way.peek().map(|Reverse(next)| next.due_ns)
    }

    /// The next packet, if it is due; it is `deliver`ed, and counted by whether that worked.
    pub(super) fn deliver_due(
        &mut self,
        now_ns: u64,
        deliver: impl FnOnce(Leaving<'_>) -> bool,
    ) -> bool {
        if self.next_due_ns().is_none_or(|due_ns| due_ns > now_ns) {
            return false;
        }
        let Some(Reverse(UnderWay { due_ns, way: number, place, .. })) = self.under_way.pop()
        else {
            return false;
        };
        let to = number % self.ports.len();
        let arrived = deliver(Leaving { to, due_ns, packet: &self.packets[place] });
        let way = &mut self.ways[number];
        way.queued -= 1;
        match arrived {
            true => way.delivered += 1,
            false => way.dropped += 1,
        }
        self.free.push(place);
        true
    }

    /// Packets delivered and dropped on a way so far.
    pub(super) fn traffic(&self, from: usize, to: usize) -> (u64, u64) {
        let way = &self.ways[self.way(from, to)];
        (way.delivered, way.dropped)
    }

    fn way(&self, from: usize, to: usize) -> usize {
        from * self.ports.len() + to
    }

    fn receiver(&self, packet: &[u8]) -> Option<usize> {
        const IPV4: u8 = 4;
        if packet.first()? >> 4 != IPV4 {
            return None;
        }
        let address: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
        self.ports.iter().position(|port| port.octets() == address)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::super::{Conditions, Share};
    use super::*;

    const MS: u64 = 1_000_000;

    fn fabric() -> Fabric {
        Fabric::new((1..=3).map(|n| Ipv4Addr::new(10, 73, 0, n)).collect(), 1)
    }

    /// A packet to host `to`, told from others by `tag`.
    fn packet(to: u8, tag: u8) -> Vec<u8> {
        let mut packet = vec![0; 21];
        packet[0] = 0x45;
        packet[16..20].copy_from_slice(&[10, 73, 0, to]);
        packet[20] = tag;
        packet
    }

    fn leaving(fabric: &mut Fabric, now_ns: u64) -> Vec<(usize, u8)> {
        let mut left = Vec::new();
        while fabric.deliver_due(now_ns, |leaving| {
            left.push((leaving.to, leaving.packet[20]));
            true
        }) {}
        left
    }

    fn delayed(delay_ms: u64) -> State {
        State::Open(Conditions { delay: Duration::from_millis(delay_ms), ..Default::default() })
    }

    #[test]
    fn packets_leave_when_they_are_due_and_in_order() {
        let mut fabric = fabric();
        fabric.set(0, 1, delayed(5));
        for tag in 1..=3 {
            fabric.take(0, 0, &packet(2, tag));
        }
        fabric.take(0, 2, &packet(2, 9));
        assert_eq!(leaving(&mut fabric, 0), [(1, 9)]);
        assert_eq!(fabric.next_due_ns(), Some(5 * MS));
        assert_eq!(leaving(&mut fabric, 5 * MS - 1), []);
        assert_eq!(leaving(&mut fabric, 5 * MS), [(1, 1), (1, 2), (1, 3)]);
        assert_eq!(fabric.traffic(0, 1), (3, 0));
    }

    #[test]
    fn a_cut_stops_what_comes_and_not_what_is_under_way() {
        let mut fabric = fabric();
        fabric.set(0, 1, delayed(5));
        fabric.take(0, 0, &packet(2, 1));
        fabric.set(0, 1, State::Cut);
        fabric.take(0, 0, &packet(2, 2));
        fabric.take(0, 1, &packet(1, 3));
        assert_eq!(leaving(&mut fabric, 9 * MS), [(0, 3), (1, 1)]);
        assert_eq!(fabric.traffic(0, 1), (1, 1));
    }

    #[test]
    fn a_corrupt_packet_differs_in_one_bit() {
        let mut fabric = fabric();
        let corrupt = Conditions { corrupt: Share::ALL, ..Default::default() };
        fabric.set(0, 1, State::Open(corrupt));
        let sent = packet(2, 1);
        fabric.take(0, 0, &sent);
        let mut bits = 0;
        assert!(fabric.deliver_due(0, |leaving| {
            bits = leaving.packet.iter().zip(&sent).map(|(a, b)| (a ^ b).count_ones()).sum();
            true
        }));
        assert_eq!(bits, 1);
    }

    #[test]
    fn a_full_queue_drops_and_says_so() {
        let mut fabric = fabric();
        let slow = Conditions { rate_bits_per_second: Some(8_000), ..Default::default() };
        fabric.set(0, 1, State::Open(slow));
        let limit = slow.queue_packets();
        (0..limit + 10).for_each(|_| fabric.take(0, 0, &packet(2, 1)));
        assert_eq!(fabric.traffic(0, 1), (0, 10));
        assert_eq!(leaving(&mut fabric, u64::MAX).len(), limit as usize);
    }

    #[test]
    fn what_is_for_nobody_is_dropped() {
        let mut fabric = fabric();
        for stray in [packet(9, 1), packet(1, 1), vec![], vec![0x60; 40], vec![0x45; 10]] {
            fabric.take(0, 0, &stray);
        }
        assert_eq!(fabric.next_due_ns(), None);
    }
}
