//! Walks one fault of the plan: waits for its time, chooses its victims, injects, verifies, heals,
//! and waits until the victims have caught up.
//!
//! Invariant: every fault of the plan ends in one record, also one that could not be applied: it
//! is then not effective, and its proof says why.

mod link;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use chaos::journal::{Journal, Noted};
use chaos::lab::disks::{Loss, Moment, Slow};
use chaos::{Baseline, DiskFault, DiskTrouble, End, Fault, Pause, PowerLoss, Victim};
use loadgen::clock::RunClock;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::runtime::Handle;

use super::choose::{Field, NoChoice, choose};
use super::cluster::{Cluster, Own};
use super::status::View;
use super::witness::Peers;
use super::{ready, replace, transfer};
use crate::evidence::FaultRecord;
use crate::plan::{DiskFaultKind, FaultKind, FaultPlan};

/// How long a fault that is never undone is looked at, in election timeouts, and at least.
const VERIFY_TIMEOUTS: u32 = 5;
pub(super) const VERIFY_AT_LEAST: Duration = Duration::from_secs(5);

/// How long a killed process may take until it is gone: the kernel first frees its memory.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// How long a terminated process may take to end by itself.
const TERMINATE_PATIENCE: Duration = Duration::from_secs(10);

/// How long the other ends may take to see that a process is gone.
const GONE_SETTLE: Duration = Duration::from_secs(1);

/// How often it is asked whether a process is gone.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// How long a fault waits for a leader that it needs.
const LEADER_PATIENCE: Duration = Duration::from_secs(10);

/// How long victims may take to catch up.
const RECOVERY_DEADLINE: Duration = Duration::from_secs(30);

/// How often a fault that bit is looked at while it holds.
const WATCH_EVERY: Duration = Duration::from_millis(250);

const ASK_EVERY: Duration = Duration::from_millis(20);

/// What the faults of one walk share.
pub(super) struct Stage {
    pub(super) cluster: Arc<Cluster>,
    pub(super) clock: RunClock,
    pub(super) journal: Journal,
    pub(super) election_timeout: Duration,
    pub(super) seed: u64,
    pub(super) says: Arc<dyn Fn(&str) + Send + Sync>,
    /// The nodes that a fault holds now.
    pub(super) held: Mutex<Vec<String>>,
}

/// Chosen victims, and what the cluster looked like then.
struct Chosen {
    victims: Vec<String>,
    view: View,
}

/// Faults that were applied, with their notes in the journal.
pub(super) type Applied = Vec<(Box<dyn Fault>, Noted)>;

/// What came of undoing a fault.
struct Undone {
    /// It had held on every victim that could be asked.
    held: bool,
    seen: String,
    /// Victims that could not be brought back, and why.
    problems: Vec<String>,
}

/// Walks fault number `number` of the plan; its record, and what went wrong when it was undone.
/// The victims of one that is not undone stay held.
pub(super) async fn walk(
    stage: Arc<Stage>,
    plan: FaultPlan,
    number: u64,
) -> (FaultRecord, Vec<String>) {
    let at = stage.clock.instant_at(plan.at.as_nanos() as i64);
    let baseline = stage.wait_for(at, plan.kind).await;
    let mut record = FaultRecord {
        id: plan.id.clone(),
        kind: plan.kind.name().to_owned(),
        target: plan.target.to_string(),
        victims: Vec::new(),
        injected_ns: stage.clock.now_ns(),
        term_at_injection: None,
        leader_at_injection: None,
        effective: false,
        proof: String::new(),
        healed_ns: None,
        recovered_ns: None,
    };
    let problems = match strike(&stage, &plan, number, baseline, &mut record).await {
        Ok(problems) => problems,
        Err(why) => {
            record.effective = false;
            record.proof = join(&record.proof, &format!("{why:#}"));
            stage.release(plan.kind, &record.victims);
            Vec::new()
        }
    };
    (stage.says)(&format!(
        "{} {} {}: {}",
        record.id,
        record.kind,
        record.victims.join(", "),
        if record.effective { "bit" } else { "did not bite" }
    ));
    problems.iter().for_each(|problem| (stage.says)(problem));
    (record, problems)
}

async fn strike(
    stage: &Arc<Stage>,
    plan: &FaultPlan,
    number: u64,
    baseline: anyhow::Result<Option<Baseline>>,
    record: &mut FaultRecord,
) -> anyhow::Result<Vec<String>> {
    let mut random = StdRng::seed_from_u64(stage.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let Chosen { victims, view } = stage.choose(plan, &mut random).await?;
    record.victims.clone_from(&victims);
    record.term_at_injection = view.term();
    record.leader_at_injection = view.leader().map(|leader| leader.node.clone());
    (stage.says)(&format!("{} {} {}", plan.id, plan.kind.name(), victims.join(", ")));
    if plan.kind == FaultKind::Transfer {
        transfer::hand_over(stage, &view, record).await?;
        record.healed_ns = Some(stage.clock.now_ns());
        stage.release(plan.kind, &record.victims);
        record.recovered_ns = stage.recovered(&record.victims).await;
        return Ok(Vec::new());
    }

    if let FaultKind::Replace { rejoin_after } = plan.kind {
        let place = replace::Place::of(&victims, stage, &view)?;
        let kill = FaultKind::Kill { restart_after: None };
        let killed = bite(stage, &plan.id, kill, None, victims, &view, record).await?;
        return replace::replace(stage, place, record, killed, rejoin_after).await;
    }
    let applied = bite(stage, &plan.id, plan.kind, baseline?, victims, &view, record).await?;
    let Some(holds) = plan.kind.holds() else { return Ok(Vec::new()) };
    let heal_at = stage.clock.instant_at(record.injected_ns) + holds;
    let applied = watch_until(heal_at, applied).await?;
    let (inside, kind) = (stage.clone(), plan.kind);
    let Undone { held, seen, problems } = on_thread(move || inside.heal(applied, kind)).await??;
    record.effective &= held;
    record.proof = join(&record.proof, &seen);
    if !problems.is_empty() {
        // It bit all the same; but it was not undone, and holds its victims to the end of the run.
        return Ok(problems);
    }
    record.healed_ns = Some(stage.clock.now_ns());
    stage.release(plan.kind, &record.victims);
    record.recovered_ns = stage.recovered(&record.victims).await;
    Ok(Vec::new())
}

/// Applies `kind` to the victims and looks until it is seen to hold, or should have been.
async fn bite(
    stage: &Arc<Stage>,
    id: &str,
    kind: FaultKind,
    baseline: Option<Baseline>,
    victims: Vec<String>,
    view: &View,
    record: &mut FaultRecord,
) -> anyhow::Result<Applied> {
    // Signals are sent and looked after on a thread: both may take their time.
    let (inside, id) = (stage.clone(), id.to_owned());
    let (injected_ns, mut applied) =
        on_thread(move || inside.inject(&id, kind, baseline, &victims)).await??;
    record.injected_ns = injected_ns;

    let holds = kind.holds();
    let heal_at = holds.map(|holds| stage.clock.instant_at(injected_ns) + holds);
    let verify_until = heal_at.unwrap_or_else(|| {
        Instant::now() + (stage.election_timeout * VERIFY_TIMEOUTS).max(VERIFY_AT_LEAST)
    });
    let gone_by = exit_patience(kind).map(|patience| verify_until.max(Instant::now() + patience));
    let mut peers = stage.peers(&record.victims, view, kind, injected_ns);
    let (findings, back) = on_thread(move || {
        let look = |(fault, _): &mut (Box<dyn Fault>, Noted)| {
            let mut until = verify_until;
            // Before the process has ended there is nothing to prove, and nothing to start again:
            // a restart may be due sooner than that.
            if let Some(gone_by) = gone_by {
                wait_until_gone(fault.victim(), gone_by);
                until = until.max(Instant::now() + GONE_SETTLE);
            }
            fault.verify(&mut peers, until)
        };
        let findings: Vec<_> = applied.iter_mut().map(look).collect();
        (findings, applied)
    })
    .await?;
    applied = back;
    record.effective = findings.iter().all(|finding| finding.effective);
    let seen: Vec<_> = findings.into_iter().map(|finding| finding.seen).collect();
    record.proof = seen.join("; ");

    Ok(applied)
}

/// Watches what was applied until `heal_at`, which no look may delay.
async fn watch_until(heal_at: Instant, mut applied: Applied) -> anyhow::Result<Applied> {
    while Instant::now() + 2 * WATCH_EVERY < heal_at {
        tokio::time::sleep(WATCH_EVERY).await;
        applied = on_thread(move || {
            applied.iter_mut().for_each(|(fault, _)| fault.watch());
            applied
        })
        .await?;
    }
    tokio::time::sleep_until(heal_at.into()).await;
    Ok(applied)
}

/// How long the victim of a fault that ends it may take to be gone.
fn exit_patience(kind: FaultKind) -> Option<Duration> {
    match kind {
        FaultKind::Kill { .. } => Some(KILL_PATIENCE),
        FaultKind::Terminate { .. } => Some(TERMINATE_PATIENCE),
        FaultKind::Disk(fault) if matches!(fault.kind, DiskFaultKind::PowerLoss { .. }) => {
            Some(KILL_PATIENCE)
        }
        FaultKind::Pause { .. }
        | FaultKind::Partition(_)
        | FaultKind::Link(_)
        | FaultKind::Disk(_)
        | FaultKind::Transfer
        | FaultKind::Replace { .. } => None,
    }
}

fn wait_until_gone(victim: &Victim, deadline: Instant) {
    while victim.exit().is_none() && Instant::now() < deadline {
        std::thread::sleep(LOOK_EVERY);
    }
}

impl Stage {
    /// Waits until `at`, when a fault of `kind` begins; what the hosts measured until then, where its
    /// proof rests on that.
    async fn wait_for(
        self: &Arc<Self>,
        at: Instant,
        kind: FaultKind,
    ) -> anyhow::Result<Option<Baseline>> {
        let baseline = match kind {
            FaultKind::Link(_) => {
                let inside = self.clone();
                let looked = on_thread(move || link::baseline(inside.own()?, at)).await;
                looked.flatten().map(Some)
            }
            _ => Ok(None),
        };
        tokio::time::sleep_until(at.into()).await;
        baseline
    }

    /// The victims, which are held from now on; waits for a leader where the target needs one.
    async fn choose(&self, plan: &FaultPlan, random: &mut StdRng) -> anyhow::Result<Chosen> {
        let deadline = Instant::now() + LEADER_PATIENCE;
        loop {
            let view = self.cluster.view(&self.clock).await;
            match self.choose_now(plan, &view, random) {
                Ok(victims) => return Ok(Chosen { victims, view }),
                Err(NoChoice::NoLeader) if Instant::now() < deadline => {
                    tokio::time::sleep(ASK_EVERY).await;
                }
                Err(NoChoice::NoLeader) => {
                    bail!("no node led within {} s", LEADER_PATIENCE.as_secs())
                }
                Err(NoChoice::Impossible(why)) => bail!(why),
            }
        }
    }

    fn choose_now(
        &self,
        plan: &FaultPlan,
        view: &View,
        random: &mut StdRng,
    ) -> Result<Vec<String>, NoChoice> {
        let members: Vec<_> = self.cluster.nodes().iter().map(|node| node.name.clone()).collect();
        let mut held = self.lock_held();
        let leader = view.leader().map(|leader| leader.node.as_str());
        let field = Field { members: &members, leader, held: &held };
        let victims = choose(&plan.target, &field, random)?;
        if plan.kind.takes_out() {
            held.extend(victims.iter().cloned());
        }
        Ok(victims)
    }

    /// Notes and applies `kind` to every victim, or to their links; the time is from just before
    /// the first signal.
    fn inject(
        &self,
        id: &str,
        kind: FaultKind,
        baseline: Option<Baseline>,
        victims: &[String],
    ) -> anyhow::Result<(i64, Applied)> {
        let own = self.own()?;
        let mut ready = Vec::new();
        let seed = |name: &str| seed_of(self.seed, id, name);
        for mut fault in faults(own, kind, baseline, victims, &seed)? {
            fault.available()?;
            let noted = self.journal.note(id, fault.victim(), fault.undo())?;
            ready.push((fault, noted));
        }
        victims.iter().filter(|_| kind.ends()).for_each(|name| own.expect_down(name, true));
        let injected_ns = self.clock.now_ns();
        for (fault, noted) in &mut ready {
            // A refused signal shows in what is verified; those already struck must be healed.
            if let Err(error) = fault.inject(noted) {
                (self.says)(&error.to_string());
            }
        }
        Ok((injected_ns, ready))
    }

    /// Undoes every fault; one that cannot be undone keeps no other from it.
    fn heal(&self, applied: Applied, kind: FaultKind) -> anyhow::Result<Undone> {
        let own = self.own()?;
        let (mut held, mut seen, mut problems) = (true, Vec::new(), Vec::new());
        for (mut fault, noted) in applied {
            let healed = match fault.heal(own) {
                Ok(healed) => healed,
                Err(error) => {
                    problems.push(error.to_string());
                    continue;
                }
            };
            if kind.ends() {
                own.expect_down(healed.victim.name(), false);
            }
            held &= healed.held;
            seen.push(healed.seen);
            if let Err(error) = self.journal.done(noted) {
                problems.push(error.to_string());
            }
        }
        Ok(Undone { held, seen: seen.join("; "), problems })
    }

    /// When every victim had caught up with the leader, if within the deadline.
    pub(super) async fn recovered(&self, victims: &[String]) -> Option<i64> {
        let deadline = Instant::now() + RECOVERY_DEADLINE;
        while Instant::now() < deadline {
            if ready::caught_up(&self.cluster, &self.clock, victims).await.is_ok() {
                return Some(self.clock.now_ns());
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
        None
    }

    fn peers(&self, victims: &[String], view: &View, kind: FaultKind, injected_ns: i64) -> Peers {
        let excused = match kind {
            FaultKind::Link(_) => true,
            FaultKind::Partition(plan) => !plan.deposes(victims.len(), self.cluster.nodes().len()),
            _ => false,
        };
        let mut struck = self.lock_held().clone();
        struck.extend(victims.iter().cloned());
        Peers {
            peers: self.cluster.asked(&struck),
            victims: victims.to_vec(),
            leader: view.leader().map(|leader| (leader.node.clone(), leader.member_id)),
            term: view.term().unwrap_or(0),
            clock: self.clock,
            runtime: Handle::current(),
            election_timeout: self.election_timeout,
            holds: kind.holds(),
            injected_ns,
            excused: excused.then(|| "it takes no leadership away".to_owned()),
        }
    }

    /// Notes that it was undone.
    pub(super) fn done(&self, noted: Noted) -> anyhow::Result<()> {
        Ok(self.journal.done(noted)?)
    }

    pub(super) fn own(&self) -> anyhow::Result<&Own> {
        self.cluster.own().ok_or_else(|| anyhow!("the cluster is not ours to break"))
    }

    pub(super) fn release(&self, kind: FaultKind, victims: &[String]) {
        if kind.takes_out() {
            let mut held = self.lock_held();
            for victim in victims {
                // Another fault may hold it too.
                if let Some(at) = held.iter().position(|node| node == victim) {
                    held.remove(at);
                }
            }
        }
    }

    fn lock_held(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.held.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Another for each fault and victim.
fn seed_of(seed: u64, fault: &str, victim: &str) -> u64 {
    let letters = fault.bytes().chain(victim.bytes());
    letters.fold(seed, |seed, letter| seed.rotate_left(7) ^ u64::from(letter))
}

/// What `kind` comes to: a fault for each victim, or one for the links of all.
fn faults(
    own: &Own,
    kind: FaultKind,
    baseline: Option<Baseline>,
    victims: &[String],
    seed: &dyn Fn(&str) -> u64,
) -> anyhow::Result<Vec<Box<dyn Fault>>> {
    let hold = |name: &String| own.victim(name).ok_or_else(|| anyhow!("{name} is not ours"));
    let victims: Vec<Victim> = victims.iter().map(hold).collect::<anyhow::Result<_>>()?;
    let each = |fault: fn(Victim) -> Box<dyn Fault>| victims.iter().cloned().map(fault).collect();
    Ok(match kind {
        FaultKind::Kill { .. } => each(|victim| Box::new(End::kill(victim))),
        FaultKind::Terminate { .. } => each(|victim| Box::new(End::terminate(victim))),
        FaultKind::Pause { .. } => each(|victim| Box::new(Pause::of(victim))),
        FaultKind::Partition(plan) => vec![link::cut(own, &plan, victims)?],
        FaultKind::Link(plan) => vec![link::impair(own, &plan, victims, baseline)?],
        FaultKind::Disk(fault) => disk_faults(own, fault.kind, victims, seed)?,
        FaultKind::Transfer | FaultKind::Replace { .. } => {
            bail!("{} is not done to processes alone", kind.name())
        }
    })
}

fn disk_faults(
    own: &Own,
    kind: DiskFaultKind,
    victims: Vec<Victim>,
    seed: &dyn Fn(&str) -> u64,
) -> anyhow::Result<Vec<Box<dyn Fault>>> {
    let laid = own.disks().ok_or_else(|| anyhow!("the cluster has no emulated disks"))?;
    let trouble = match kind {
        DiskFaultKind::Stall => DiskTrouble::Stall,
        DiskFaultKind::Slow { factor, added_ms } => {
            DiskTrouble::Slow { slow: Slow { factor, added_ms }, median_ms: laid.median_ms() }
        }
        DiskFaultKind::Full => DiskTrouble::Full,
        DiskFaultKind::Error { writes, syncs } => DiskTrouble::Error { writes, syncs },
        DiskFaultKind::PowerLoss { torn, in_sync } => {
            let loss = |name: &str| match torn {
                true => Loss::Torn { seed: seed(name) },
                false => Loss::Whole,
            };
            let moment = match in_sync {
                true => Moment::InSync { share: StdRng::seed_from_u64(seed("")).random() },
                false => Moment::Now,
            };
            let losses = PowerLoss::of(victims, laid.disks.clone(), moment, loss);
            return Ok(losses.into_iter().map(|loss| Box::new(loss) as Box<dyn Fault>).collect());
        }
    };
    let fault =
        |victim| Box::new(DiskFault::new(victim, laid.disks.clone(), trouble)) as Box<dyn Fault>;
    Ok(victims.into_iter().map(fault).collect())
}

/// Runs `work` on a thread of its own. Not on the runtime's pool: when a run is broken off, the
/// program does not wait for a fault that is being watched.
pub(super) async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    let (done, result) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("fault".into()).spawn(move || done.send(work()).ok())?;
    Ok(result.await?)
}

fn join(first: &str, second: &str) -> String {
    if first.is_empty() { second.to_owned() } else { format!("{first}; {second}") }
}
