//! The switch itself: one thread, which sleeps until a packet comes, one is due, or it is told
//! something.
//!
//! Invariant: it never waits for one packet while another is due, and never spins. Its sleep ends
//! to the microsecond: the thread has no timer slack, and a real-time priority where the user may
//! give it one.

use std::io::Write;
use std::num::NonZeroU64;
use std::process::ExitCode;
use std::time::Instant;

use hdrhistogram::Histogram;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::thread::set_current_timer_slack;
use thread_priority::unix::{ScheduleParams, set_thread_priority_and_policy, thread_native_id};
use thread_priority::{RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy};
use tun_rs::SyncDevice;

use super::super::{Change, Direction, Traffic};
use super::fabric::Fabric;
use super::tun;
use super::wire::{Answer, Port, Request, Setup, Speed};
use crate::Error;

/// Packets read from one port before the others, and what is due, have their turn.
const BATCH: usize = 64;

/// What the switch's process does, from its first line of input to the last.
pub(in crate::lab) fn work() -> Result<ExitCode, Error> {
    let mut input = Input::default();
    let Some(line) = input.next_line()? else { return Ok(ExitCode::FAILURE) };
    let setup: Setup = read(&line)?;
    let devices: Result<Vec<SyncDevice>, String> = setup.ports.iter().map(tun::open).collect();
    let devices = match devices {
        Ok(devices) => devices,
        Err(reason) => {
            answer(&Answer::Failed(reason))?;
            return Ok(ExitCode::from(2));
        }
    };
    take_precedence();
    answer(&Answer::Done)?;
    let addresses = setup.ports.iter().map(|port| port.address).collect();
    Loop {
        ports: setup.ports,
        devices,
        fabric: Fabric::new(addresses, setup.seed),
        meter: Meter::new(),
        began: Instant::now(),
    }
    .run(&mut input)
}

struct Loop {
    ports: Vec<Port>,
    devices: Vec<SyncDevice>,
    fabric: Fabric,
    meter: Meter,
    began: Instant,
}

impl Loop {
    fn run(mut self, input: &mut Input) -> Result<ExitCode, Error> {
        let stdin = std::io::stdin();
        let mut buffer = [0; 2048];
        loop {
            let ready = {
                let mut fds: Vec<PollFd<'_>> =
                    self.devices.iter().map(|d| PollFd::new(d, PollFlags::IN)).collect();
                fds.push(PollFd::new(&stdin, PollFlags::IN));
                let sleep = self.fabric.next_due_ns().map(|due_ns| {
                    let sleep_ns = due_ns.saturating_sub(self.now_ns());
                    Timespec {
                        tv_sec: (sleep_ns / 1_000_000_000) as i64,
                        tv_nsec: (sleep_ns % 1_000_000_000) as _,
                    }
                });
                match poll(&mut fds, sleep.as_ref()) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(errno) => return Err(broken(&format!("cannot wait: {errno}"))),
                }
                let ready: u64 = fds
                    .iter()
                    .enumerate()
                    .filter(|(_, fd)| !fd.revents().is_empty())
                    .map(|(number, _)| 1 << number)
                    .sum();
                ready
            };
            self.deliver();
            for number in 0..self.devices.len() {
                if ready & (1 << number) != 0 {
                    self.read_port(number, &mut buffer)?;
                    self.deliver();
                }
            }
            if ready & (1 << self.devices.len()) != 0 {
                match input.next_line()? {
                    Some(line) => answer(&self.obey(read(&line)?))?,
                    None => return Ok(ExitCode::SUCCESS),
                }
            }
        }
    }

    fn read_port(&mut self, number: usize, buffer: &mut [u8]) -> Result<(), Error> {
        for _ in 0..BATCH {
            match self.devices[number].recv(buffer) {
                Ok(bytes) => {
                    let now_ns = self.now_ns();
                    self.fabric.take(now_ns, number, &buffer[..bytes]);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => {
                    let name = &self.ports[number].name;
                    return Err(broken(&format!("cannot read from {name}: {error}")));
                }
            }
        }
        Ok(())
    }

    /// Sends all that is due.
    fn deliver(&mut self) {
        loop {
            let now = Instant::now();
            let now_ns = now.duration_since(self.began).as_nanos() as u64;
            let (devices, meter) = (&self.devices, &mut self.meter);
            let any = self.fabric.deliver_due(now_ns, |leaving| {
                // A host whose interface was taken down gets nothing, as it would by any cable.
                let sent = devices[leaving.to].send(leaving.packet).is_ok();
                meter.delivered(now_ns, now_ns - leaving.due_ns);
                sent
            });
            if !any {
                return;
            }
        }
    }

    fn obey(&mut self, request: Request) -> Answer {
        match request {
            Request::Set(changes) => {
                let placed: Option<Vec<_>> = changes.iter().map(|c| self.place(c)).collect();
                let Some(placed) = placed else { return Answer::Failed("no such host".into()) };
                for ((from, to), change) in placed.into_iter().zip(&changes) {
                    self.fabric.set(from, to, change.state);
                }
                Answer::Done
            }
            Request::Report => {
                Answer::Report { traffic: self.traffic(), speed: self.meter.speed() }
            }
        }
    }

    fn place(&self, change: &Change) -> Option<(usize, usize)> {
        let port = |name: &str| self.ports.iter().position(|port| port.name == name);
        Some((port(&change.direction.from)?, port(&change.direction.to)?))
    }

    fn traffic(&self) -> Vec<Traffic> {
        let mut traffic = Vec::new();
        for (from, sender) in self.ports.iter().enumerate() {
            for (to, receiver) in self.ports.iter().enumerate().filter(|(to, _)| *to != from) {
                let (delivered_packets, dropped_packets) = self.fabric.traffic(from, to);
                let direction = Direction { from: sender.name.clone(), to: receiver.name.clone() };
                traffic.push(Traffic { direction, delivered_packets, dropped_packets });
            }
        }
        traffic
    }

    fn now_ns(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }
}

/// Measures the switch.
struct Meter {
    added_ns: Histogram<u64>,
    second: u64,
    in_second: u64,
    peak: u64,
}

impl Meter {
    fn new() -> Self {
        // Two digits up to a minute: 30 kB, and no allocation later.
        let histogram = Histogram::new_with_bounds(1, 60_000_000_000, 2);
        let added_ns = histogram.expect("bounds that are in order");
        Self { added_ns, second: 0, in_second: 0, peak: 0 }
    }

    fn delivered(&mut self, now_ns: u64, added_ns: u64) {
        self.added_ns.saturating_record(added_ns);
        let second = now_ns / 1_000_000_000;
        if second != self.second {
            (self.second, self.in_second) = (second, 0);
        }
        self.in_second += 1;
        self.peak = self.peak.max(self.in_second);
    }

    fn speed(&self) -> Speed {
        let micros = |nanos: u64| nanos as f64 / 1000.0;
        let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF);
        let cpu_seconds = usage.map_or(0.0, |usage| {
            let seconds = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6;
            seconds(usage.user_time()) + seconds(usage.system_time())
        });
        Speed {
            peak_packets_per_second: self.peak,
            delivered_packets: self.added_ns.len(),
            added_delay_p50_us: micros(self.added_ns.value_at_quantile(0.5)),
            added_delay_p99_us: micros(self.added_ns.value_at_quantile(0.99)),
            added_delay_max_us: micros(self.added_ns.max()),
            cpu_seconds,
        }
    }
}

/// Sleeps that end on time, and a turn before the nodes: they share the machine with what stands
/// for their network, and in earnest they do not.
fn take_precedence() {
    set_current_timer_slack(NonZeroU64::new(1)).ok();
    let lowest = ThreadPriority::from_posix(ScheduleParams { sched_priority: 1 });
    let fifo = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    // An ordinary user may not; the figures then tell what that cost.
    set_thread_priority_and_policy(thread_native_id(), lowest, fifo).ok();
}

/// Lines of standard input, read as they come: what lies in no buffer of the library's is seen by
/// `poll`.
#[derive(Default)]
struct Input {
    unread: Vec<u8>,
}

impl Input {
    /// The next line; `None` at the end. Waits for it if need be: the other side writes whole
    /// lines, and one at a time.
    fn next_line(&mut self) -> Result<Option<Vec<u8>>, Error> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                return Ok(Some(self.unread.drain(..=end).collect()));
            }
            let mut buffer = [0; 4096];
            match rustix::io::read(std::io::stdin(), &mut buffer) {
                Ok(0) => return Ok(None),
                Ok(bytes) => self.unread.extend_from_slice(&buffer[..bytes]),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(broken(&format!("cannot read its orders: {errno}"))),
            }
        }
    }
}

fn read<T: serde::de::DeserializeOwned>(line: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(line).map_err(|error| broken(&format!("got strange orders: {error}")))
}

fn answer(answer: &Answer) -> Result<(), Error> {
    let written = serde_json::to_vec(answer).map_err(std::io::Error::from).and_then(|mut line| {
        line.push(b'\n');
        let mut out = std::io::stdout().lock();
        out.write_all(&line)?;
        out.flush()
    });
    written.map_err(|error| broken(&format!("cannot answer: {error}")))
}

fn broken(how: &str) -> Error {
    Error::Switch(how.to_owned())
}
