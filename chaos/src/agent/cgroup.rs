//! Limits of a control group: IO of one disk, CPU, memory. By cgroup v2 where the group has the
//! controller there, else by v1.
//!
//! Our mark is the value that we wrote. Invariant: a setting is given back only while it is what the
//! fault made it; one that someone has changed since is theirs.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use api::agent::Observation;
use procfs::process::Process;

use super::Strike;
use super::observation::Seen;
use super::order::{Device, IoLimits};
use super::undo::{Setting, Undo};
use crate::Error;
use crate::fault::{does_half, does_nothing};
use crate::journal::Noted;

/// How long the victim is looked at before the fault, for its rates.
const BEFORE: Duration = Duration::from_millis(500);

/// Rates over less are too uncertain.
const LEAST: Duration = Duration::from_secs(1);

/// What a rate may be over its limit: buffers, and ends of windows.
const OVER: f64 = 1.15;

/// Held back in so many of the periods, twice the limit would have made its use larger than `OVER`.
const HELD_BACK: f64 = 0.6;

/// As v1 has it.
const V1_CPU: (&str, &str) = ("cpu.cfs_quota_us", "cpu.cfs_period_us");

/// A limit on a control group.
pub(super) struct Limit {
    settings: Vec<Setting>,
    watched: Watched,
    before: Rates,
    then: Sample,
}

/// What is limited, and where its use is read.
enum Watched {
    Io { version: Version, folder: PathBuf, device: Device, limits: IoLimits },
    Cpu { stat: PathBuf, cpus: f64, used: CpuUse },
    Memory { version: Version, folder: PathBuf, limit_bytes: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// Counts and sizes, by name.
type Counts = BTreeMap<&'static str, f64>;

struct Sample {
    at: Instant,
    counts: Counts,
}

/// Of what counts up, per second.
type Rates = Counts;

impl Limit {
    /// Of the IO of `cgroup` on `device`.
    pub(super) fn io(cgroup: &str, device: Device, limits: IoLimits) -> Result<Self, Error> {
        let (version, file) =
            find(cgroup, "io", "io.max", "blkio", "blkio.throttle.read_bps_device")?;
        let folder = parent(&file);
        let numbers = &device.numbers;
        let mut settings = Vec::new();
        match version {
            Version::V2 => {
                let unset = "rbps=max wbps=max riops=max wiops=max".to_owned();
                let before = line_of(&file, numbers)?.unwrap_or_else(|| unset.clone());
                let had: HashMap<&str, &str> =
                    before.split_whitespace().filter_map(|part| part.split_once('=')).collect();
                let part = |(word, limit): (&str, Option<u64>)| match limit {
                    Some(limit) => format!("{word}={}", doubled_if_planted(limit)),
                    None => format!("{word}={}", had.get(word).unwrap_or(&"max")),
                };
                let ours = limits.each().map(part).join(" ");
                settings.push(Setting { file, device: Some(numbers.clone()), unset, before, ours });
            }
            Version::V1 => {
                let files = ["read_bps", "write_bps", "read_iops", "write_iops"];
                for (name, (_, limit)) in files.into_iter().zip(limits.each()) {
                    let Some(limit) = limit else { continue };
                    let file = folder.join(format!("blkio.throttle.{name}_device"));
                    let unset = "0".to_owned();
                    let before = line_of(&file, numbers)?.unwrap_or_else(|| unset.clone());
                    let ours = doubled_if_planted(limit).to_string();
                    settings.push(Setting {
                        file,
                        device: Some(numbers.clone()),
                        unset,
                        before,
                        ours,
                    });
                }
            }
        }
        Self::of(settings, Watched::Io { version, folder, device, limits })
    }

    /// Of the processors' time of `cgroup`.
    pub(super) fn cpu(cgroup: &str, cpus: f64) -> Result<Self, Error> {
        let (version, file) = find(cgroup, "cpu", "cpu.max", "cpu", V1_CPU.0)?;
        let folder = parent(&file);
        let before = value_of(&file)?;
        let period = match version {
            Version::V1 => value_of(&folder.join(V1_CPU.1))?,
            Version::V2 => before.split_whitespace().nth(1).unwrap_or("100000").to_owned(),
        };
        let period_us: f64 = period.parse().unwrap_or(100_000.0);
        let asked = if does_half() { 2.0 * cpus } else { cpus };
        // The kernel has none below a millisecond.
        let quota_us = (asked * period_us).round().max(1000.0) as u64;
        let ours = match version {
            Version::V1 => quota_us.to_string(),
            Version::V2 => format!("{quota_us} {period}"),
        };
        let setting = Setting { file, device: None, unset: String::new(), before, ours };
        let watched =
            Watched::Cpu { stat: folder.join("cpu.stat"), cpus, used: CpuUse::of(folder.clone()) };
        Self::of(vec![setting], watched)
    }

    /// Of the memory of `cgroup`.
    pub(super) fn memory(
        cgroup: &str,
        max_bytes: Option<u64>,
        high_bytes: Option<u64>,
    ) -> Result<Self, Error> {
        let (version, file) =
            find(cgroup, "memory", "memory.max", "memory", "memory.limit_in_bytes")?;
        let folder = parent(&file);
        let mut settings = Vec::new();
        let wanted = match version {
            Version::V2 => [("memory.high", high_bytes), ("memory.max", max_bytes)],
            Version::V1 if high_bytes.is_some() => {
                return Err(Error::NotHere {
                    what: format!("cgroup {cgroup}"),
                    reason: "is one of cgroup v1, which cannot slow processes down; give max_bytes"
                        .into(),
                });
            }
            Version::V1 => [("memory.limit_in_bytes", max_bytes), ("", None)],
        };
        let page_bytes = procfs::page_size();
        for (name, bytes) in wanted {
            let Some(bytes) = bytes else { continue };
            let file = folder.join(name);
            let before = value_of(&file)?;
            // The kernel counts in pages.
            let ours = (doubled_if_planted(bytes) / page_bytes * page_bytes).to_string();
            settings.push(Setting { file, device: None, unset: String::new(), before, ours });
        }
        let limit_bytes = max_bytes.into_iter().chain(high_bytes).min().unwrap_or(0);
        Self::of(settings, Watched::Memory { version, folder, limit_bytes })
    }

    fn of(settings: Vec<Setting>, mut watched: Watched) -> Result<Self, Error> {
        let first = watched.sample()?;
        std::thread::sleep(BEFORE);
        let then = watched.sample()?;
        let before = rates(&first, &then, &watched);
        Ok(Self { settings, watched, before, then })
    }
}

impl Strike for Limit {
    fn undo(&self) -> Undo {
        Undo::Settings(self.settings.clone())
    }

    fn apply(&mut self, _noted: &Noted) -> Result<(), Error> {
        for setting in self.settings.iter().filter(|_| !does_nothing()) {
            setting.write(&setting.ours)?;
            let now = setting.read()?;
            if now != setting.ours {
                // It would not be known for ours later.
                setting.write(&setting.before)?;
                let doing = format!("set {} to {}", setting.file.display(), setting.ours);
                let problem = std::io::Error::other(format!("the kernel made {now} of it"));
                return Err(Error::Host { doing, problem });
            }
        }
        self.then = self.watched.sample()?;
        Ok(())
    }

    fn observe(&mut self) -> Result<Observation, Error> {
        let now = self.watched.sample()?;
        let rates = rates(&self.then, &now, &self.watched);
        let mut seen = Seen::default();
        for (name, rate) in &rates {
            seen.figure(*name, self.before.get(name).copied(), Some(*rate));
        }
        let elapsed = now.at - self.then.at;
        if elapsed < LEAST {
            seen.part(false, format!("looked at for only {elapsed:.1?} so far"));
            return Ok(seen.told());
        }
        self.watched.judge(&self.before, &rates, &mut seen);
        Ok(seen.told())
    }
}

impl Watched {
    fn sample(&mut self) -> Result<Sample, Error> {
        let counts = match self {
            Watched::Io { version, folder, device, .. } => io_counts(*version, folder, device)?,
            Watched::Cpu { stat, used, .. } => {
                let text = read(stat)?;
                let count = |name| word_after(&text, name).unwrap_or(0.0);
                BTreeMap::from([
                    ("cpus_used", used.look()),
                    ("periods_per_second", count("nr_periods")),
                    ("throttled_per_second", count("nr_throttled")),
                ])
            }
            Watched::Memory { version: Version::V2, folder, .. } => {
                let events = read(&folder.join("memory.events"))?;
                let count = |name| word_after(&events, name).unwrap_or(0.0);
                let current = value_of(&folder.join("memory.current"))?;
                BTreeMap::from([
                    ("memory_bytes", current.parse().unwrap_or(0.0)),
                    ("limit_hits_per_second", count("high") + count("max")),
                    ("oom_kills_per_second", count("oom_kill")),
                ])
            }
            Watched::Memory { version: Version::V1, folder, .. } => {
                let value = |name| {
                    value_of(&folder.join(name)).map(|text| text.parse::<f64>().unwrap_or(0.0))
                };
                BTreeMap::from([
                    ("memory_bytes", value("memory.usage_in_bytes")?),
                    ("limit_hits_per_second", value("memory.failcnt")?),
                ])
            }
        };
        Ok(Sample { at: Instant::now(), counts })
    }

    fn judge(&self, before: &Rates, now: &Rates, seen: &mut Seen) {
        let of = |rates: &Rates, name| rates.get(name).copied().unwrap_or(0.0);
        match self {
            Watched::Io { limits, .. } => {
                let (names, limits) = (IO, limits.each());
                let limited = names.into_iter().zip(limits).filter_map(|(n, (_, l))| Some((n, l?)));
                for (name, limit) in limited {
                    let (was, is, limit) = (of(before, name), of(now, name), limit as f64);
                    let reads = format!("{name} {was:.0} -> {is:.0} (limit {limit:.0})");
                    // That it wants more than twice the limit cannot be seen once it is there.
                    let wants = was > 2.0 * limit;
                    let right = wants && (0.5..=OVER).contains(&(is / limit));
                    let why = if wants { "" } else { ": it did not want twice as much before" };
                    seen.part(right, reads + why);
                }
            }
            Watched::Cpu { cpus, .. } => {
                let (was, is) = (of(before, "cpus_used"), of(now, "cpus_used"));
                let throttled =
                    of(now, "throttled_per_second") / of(now, "periods_per_second").max(1.0);
                let reads = format!(
                    "uses {was:.2} -> {is:.2} CPUs (limit {cpus}), held back in {:.0} % of all periods",
                    100.0 * throttled
                );
                // In a period in which it was held back it used all that it had.
                seen.part(is <= OVER * cpus && throttled >= HELD_BACK, reads);
            }
            Watched::Memory { limit_bytes, .. } => {
                let (was, is) = (of(before, "memory_bytes"), of(now, "memory_bytes"));
                let hits = of(now, "limit_hits_per_second");
                let limit = *limit_bytes as f64;
                let reads = format!(
                    "has {was:.0} -> {is:.0} bytes (limit {limit:.0}), at the limit {hits:.1} times a \
                     second"
                );
                // Memory also gets less by itself.
                let right = is <= OVER * limit && is >= 0.5 * limit && hits > 0.0;
                seen.part(right, reads);
            }
        }
    }
}

/// In the order of [`IoLimits::each`].
const IO: [&str; 4] =
    ["read_bytes_per_second", "written_bytes_per_second", "reads_per_second", "writes_per_second"];

fn io_counts(version: Version, folder: &Path, device: &Device) -> Result<Counts, Error> {
    let counts = match version {
        Version::V2 => {
            let line = line_of(&folder.join("io.stat"), &device.numbers)?.unwrap_or_default();
            ["rbytes=", "wbytes=", "rios=", "wios="].map(|word| {
                let part = line.split_whitespace().find_map(|part| part.strip_prefix(word));
                part.and_then(|count| count.parse().ok()).unwrap_or(0.0)
            })
        }
        Version::V1 => {
            let bytes = read(&folder.join("blkio.throttle.io_service_bytes"))?;
            let times = read(&folder.join("blkio.throttle.io_serviced"))?;
            let numbers = &device.numbers;
            let count = |text, kind| word_after(text, &format!("{numbers} {kind}")).unwrap_or(0.0);
            [
                count(&bytes, "Read"),
                count(&bytes, "Write"),
                count(&times, "Read"),
                count(&times, "Write"),
            ]
        }
    };
    Ok(IO.into_iter().zip(counts).collect())
}

/// What counts becomes rates; sizes stay.
fn rates(then: &Sample, now: &Sample, watched: &Watched) -> Rates {
    let seconds = (now.at - then.at).as_secs_f64().max(1e-3);
    let is_size = |name: &str| matches!(watched, Watched::Memory { .. }) && name == "memory_bytes";
    let rate = |(name, count): (&&'static str, &f64)| match is_size(name) {
        true => (*name, *count),
        false => {
            let before = then.counts.get(name).copied().unwrap_or(0.0);
            (*name, (count - before).max(0.0) / seconds)
        }
    };
    now.counts.iter().map(rate).collect()
}

/// CPU time of the processes in a group and in those below it, also of those that ended.
struct CpuUse {
    folder: PathBuf,
    seen: HashMap<(i32, u64), u64>,
    used_ticks: u64,
}

impl CpuUse {
    fn of(folder: PathBuf) -> Self {
        Self { folder, seen: HashMap::new(), used_ticks: 0 }
    }

    /// In seconds, since the first look.
    fn look(&mut self) -> f64 {
        for pid in pids(&self.folder) {
            // One that has just ended is left out.
            let Ok(stat) = Process::new(pid).and_then(|process| process.stat()) else { continue };
            let ticks = stat.utime + stat.stime;
            let before = self.seen.insert((pid, stat.starttime), ticks);
            self.used_ticks += before.map_or(0, |before| ticks.saturating_sub(before));
        }
        self.used_ticks as f64 / procfs::ticks_per_second() as f64
    }
}

fn pids(folder: &Path) -> Vec<i32> {
    let text = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            pids.extend(self::pids(&entry.path()));
        }
    }
    pids
}

/// Gives back what is still ours.
pub(super) fn give_back(settings: &[Setting]) -> Result<String, Error> {
    let mut told = Vec::new();
    // In reverse, as in every undo of several steps.
    for setting in settings.iter().rev() {
        let Setting { file, before, ours, .. } = setting;
        let name = file.display();
        if !file.exists() {
            told.push(format!("{name} is gone"));
            continue;
        }
        let now = setting.read()?;
        told.push(if now == *before {
            format!("{name} has what it had: {before}")
        } else if now == *ours {
            setting.write(before)?;
            format!("{name} has again what it had: {before}")
        } else {
            format!("{name} was changed to {now} by somebody else, and left so")
        });
    }
    Ok(told.join("; "))
}

impl Setting {
    fn read(&self) -> Result<String, Error> {
        match &self.device {
            None => value_of(&self.file),
            Some(numbers) => {
                Ok(line_of(&self.file, numbers)?.unwrap_or_else(|| self.unset.clone()))
            }
        }
    }

    fn write(&self, value: &str) -> Result<(), Error> {
        let line = match &self.device {
            None => value.to_owned(),
            Some(numbers) => format!("{numbers} {value}"),
        };
        let doing = || format!("write `{line}` to {}", self.file.display());
        std::fs::write(&self.file, &line).map_err(|problem| Error::Host { doing: doing(), problem })
    }
}

/// Where the controller of `cgroup` is: the file `v2` in a mounted cgroup v2, or `v1` of cgroup v1's
/// hierarchy `controller`.
fn find(
    cgroup: &str,
    what: &str,
    v2: &str,
    controller: &str,
    v1: &str,
) -> Result<(Version, PathBuf), Error> {
    let doing = || "read /proc/self/mountinfo".to_owned();
    let mounts = Process::myself().and_then(|process| process.mountinfo()).map_err(|error| {
        Error::Host { doing: doing(), problem: std::io::Error::other(error.to_string()) }
    })?;
    let (mut first, mut second) = (None, None);
    let mut is_there = false;
    for mount in &mounts {
        let folder = mount.mount_point.join(cgroup);
        let is_v1 = mount.fs_type == "cgroup" && mount.super_options.contains_key(controller);
        let (version, file) = match &*mount.fs_type {
            "cgroup2" => (&mut second, folder.join(v2)),
            _ if is_v1 => (&mut first, folder.join(v1)),
            _ => continue,
        };
        is_there |= folder.is_dir();
        if version.is_none() && file.exists() {
            *version = Some(file);
        }
    }
    match (second, first, is_there) {
        (Some(file), _, _) => Ok((Version::V2, file)),
        (None, Some(file), _) => Ok((Version::V1, file)),
        (None, None, is_there) => Err(Error::NotHere {
            what: format!("cgroup {cgroup}"),
            reason: match is_there {
                false => "is not there; are its processes running?".into(),
                true => format!(
                    "has no `{what}` controller: with cgroup v2, enable it in \
                     cgroup.subtree_control of the group above"
                ),
            },
        }),
    }
}

fn doubled_if_planted(value: u64) -> u64 {
    if does_half() { 2 * value } else { value }
}

fn parent(file: &Path) -> PathBuf {
    file.parent().map(Path::to_owned).unwrap_or_default()
}

fn read(file: &Path) -> Result<String, Error> {
    let doing = || format!("read {}", file.display());
    std::fs::read_to_string(file).map_err(|problem| Error::Host { doing: doing(), problem })
}

fn value_of(file: &Path) -> Result<String, Error> {
    Ok(read(file)?.trim().to_owned())
}

/// What stands after the device's numbers.
fn line_of(file: &Path, numbers: &str) -> Result<Option<String>, Error> {
    let text = read(file)?;
    let rest = |line: &str| line.strip_prefix(numbers)?.strip_prefix(' ').map(str::to_owned);
    Ok(text.lines().find_map(rest).map(|line| line.trim().to_owned()))
}

/// The number after `name` at the beginning of a line.
fn word_after(text: &str, name: &str) -> Option<f64> {
    let rest = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
    text.lines().find_map(rest)
}
