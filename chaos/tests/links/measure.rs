//! How the trials measure: ping, a TCP transfer with the kernel's counters, and datagrams.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use chaos::lab::links::Direction;
use chaos::lab::{Host, Lab};

/// What a run of `ping` saw.
pub(crate) struct Pings {
    pub(crate) sent: usize,
    /// Round trips, in ms, without those of copies.
    pub(crate) round_trips_ms: Vec<f64>,
    pub(crate) copies: usize,
}

/// Sends `count` echoes from one host to another, one every `interval_ms`.
pub(crate) fn ping(from: &Host, to: &Host, count: usize, interval_ms: f64) -> Pings {
    let mut ping = Command::new("ping");
    ping.args(["-n", "-W", "1", "-c", &count.to_string()]);
    ping.args(["-i", &format!("{}", interval_ms / 1000.0), &to.address().to_string()]);
    let child = from.spawn(ping.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let output = child.expect("ping (Debian: iputils-ping)").wait_with_output().expect("ended");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("packets transmitted"), "ping said {text} {output:?}");
    let (mut round_trips_ms, mut copies) = (Vec::new(), 0);
    for line in text.lines().filter(|line| line.contains("icmp_seq=")) {
        if line.contains("(DUP!)") {
            copies += 1;
        } else if let Some(time) = line.split("time=").nth(1) {
            let ms = time.split(' ').next().expect("a number").parse();
            round_trips_ms.push(ms.expect("a number"));
        }
    }
    Pings { sent: count, round_trips_ms, copies }
}

impl Pings {
    pub(crate) fn median_ms(&self) -> f64 {
        quantile(&self.round_trips_ms, 0.5)
    }

    pub(crate) fn lost(&self) -> usize {
        self.sent - self.round_trips_ms.len()
    }
}

pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    assert!(!sorted.is_empty(), "nothing arrived");
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

/// What a TCP transfer saw.
pub(crate) struct Transfer {
    /// Payload per second, once it was under way.
    pub(crate) bits_per_second: f64,
    /// Segments that came out of order, as the receiver's kernel counts them.
    pub(crate) out_of_order: u64,
    /// Segments that the sender's kernel sent again.
    pub(crate) retransmitted: u64,
}

/// Sends as fast as TCP can, for `time` and half a second before, which is not counted.
pub(crate) fn transfer(from: &Host, to: &Host, time: Duration) -> Transfer {
    let listener = to.within(|| TcpListener::bind((to.address(), 0))).expect("entered");
    let listener = listener.expect("bound");
    let address = listener.local_addr().expect("bound");
    let before = (counter(to, "TcpExt", "TCPOFOQueue"), counter(from, "Tcp", "RetransSegs"));
    let sender = from.within(|| TcpStream::connect(address)).expect("entered");
    let mut sender = sender.expect("connected");
    let (mut receiver, _) = listener.accept().expect("accepted");
    let bits_per_second = thread::scope(|scope| {
        scope.spawn(move || {
            // Ends when the receiver closes.
            while sender.write(&[7; 65_536]).is_ok() {}
        });
        let read_for = |receiver: &mut TcpStream, time: Duration| {
            let (began, mut bytes, mut buffer) = (Instant::now(), 0, vec![0; 1 << 20]);
            while began.elapsed() < time {
                bytes += receiver.read(&mut buffer).expect("connected");
            }
            8.0 * bytes as f64 / began.elapsed().as_secs_f64()
        };
        read_for(&mut receiver, Duration::from_millis(500));
        let rate = read_for(&mut receiver, time);
        drop(receiver);
        rate
    });
    Transfer {
        bits_per_second,
        out_of_order: counter(to, "TcpExt", "TCPOFOQueue") - before.0,
        retransmitted: counter(from, "Tcp", "RetransSegs") - before.1,
    }
}

/// A counter of a host's kernel, by its group and its name.
pub(crate) fn counter(host: &Host, group: &str, name: &str) -> u64 {
    let read = |file| host.within(|| std::fs::read_to_string(file)).expect("entered");
    let text = ["/proc/thread-self/net/netstat", "/proc/thread-self/net/snmp"]
        .map(|file| read(file).expect("readable"))
        .concat();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(group)?.strip_prefix(':'));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    let found = pairs.find(|(found, _)| *found == name).expect("the counter");
    found.1.parse().expect("a number")
}

/// Of a datagram: so large that its link-layer header, in which a flipped bit does little, is small
/// beside it.
const DATAGRAM_BYTES: usize = 1000;

/// Sends `count` numbered datagrams, one every `interval`, and gives the numbers that arrived, in
/// their order of arrival.
pub(crate) fn datagrams(from: &Host, to: &Host, count: u32, interval: Duration) -> Vec<u32> {
    let (sender, receiver) = (socket(from), socket(to));
    let address = receiver.local_addr().expect("bound");
    receiver.set_read_timeout(Some(Duration::from_millis(1500))).expect("set");
    thread::scope(|scope| {
        let arrivals = scope.spawn(move || {
            let (mut arrived, mut buffer) = (Vec::new(), [0; DATAGRAM_BYTES]);
            while let Ok(DATAGRAM_BYTES) = receiver.recv(&mut buffer) {
                let number = buffer[..4].try_into().expect("four bytes");
                arrived.push(u32::from_be_bytes(number));
                if arrived.len() == count as usize {
                    // All are here; only a copy, of which none is asked, could still come.
                    receiver.set_read_timeout(Some(Duration::from_millis(100))).expect("set");
                }
            }
            arrived
        });
        let began = Instant::now();
        for number in 0..count {
            let due = began + interval * number;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            // A loss on our own interface would be told here.
            let mut datagram = [0; DATAGRAM_BYTES];
            datagram[..4].copy_from_slice(&number.to_be_bytes());
            sender.send_to(&datagram, address).expect("sent");
        }
        arrivals.join().expect("received")
    })
}

fn socket(host: &Host) -> UdpSocket {
    let bound = host.within(|| UdpSocket::bind((host.address(), 0)));
    bound.expect("entered").expect("bound")
}

/// In which directions a datagram arrives now, between all hosts.
pub(crate) fn reaching(lab: &Lab) -> BTreeSet<Direction> {
    let sockets: BTreeMap<&str, UdpSocket> =
        lab.hosts().iter().map(|host| (host.name(), socket(host))).collect();
    let addresses: BTreeMap<SocketAddr, &str> =
        sockets.iter().map(|(name, s)| (s.local_addr().expect("bound"), *name)).collect();
    for (from, socket) in &sockets {
        for (address, _) in addresses.iter().filter(|(_, to)| *to != from) {
            socket.send_to(b"?", address).expect("sent");
        }
    }
    let mut reached = BTreeSet::new();
    for (to, socket) in &sockets {
        // The links have no delay here: what arrives, arrives at once.
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("set");
        while let Ok((_, address)) = socket.recv_from(&mut [0; 8]) {
            let from = addresses[&address];
            reached.insert(Direction { from: from.to_owned(), to: (*to).to_owned() });
        }
    }
    reached
}
