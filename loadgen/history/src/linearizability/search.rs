//! Wing and Gong's search with Lowe's memory, and rules 3 to 7 of the module.
//!
//! Invariant: if a configuration can be completed, then so can one of those that are tried from it.
//! Each rule keeps that, by the argument beside it; so the search ends empty-handed only where there
//! is no order.

use super::limits::{Budget, Exhausted};
use super::prepare::{NONE, Prepared, Step, prepare};
use super::records::ABSENT;
use super::seen::Seen;

/// What is known of steps on one register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// There is an order.
    Ordered,
    /// There is none.
    NoOrder,
    /// Not decided within the budget.
    Exhausted(Exhausted),
}

/// Decides whether steps on one register have an order.
pub(super) fn decide(steps: &[Step], mut budget: Budget) -> Decision {
    let Some(prepared) = prepare(steps) else { return Decision::NoOrder };
    match Search::new(&prepared).run(&mut budget) {
        Ok(true) => Decision::Ordered,
        Ok(false) => Decision::NoOrder,
        Err(limit) => Decision::Exhausted(limit),
    }
}

/// A configuration is remembered once in so many steps where there is no choice, so that a long
/// way without one is not gone again from each of the choices before it.
const REMEMBER_EVERY: usize = 8;

struct Search<'a> {
    steps: &'a [Step],
    /// How many of the steps took effect; these come first, and have ranks.
    must: usize,
    /// Ranks are the order of completion.
    by_rank: Vec<u32>,
    rank: Vec<u32>,
    values: Vec<Value>,
    /// Reads that took effect, by value, each value's in the order of invocation.
    reads: Vec<u32>,
    /// Cas that took effect, by the value they expect.
    cas: Vec<u32>,

    /// The configuration: the register,
    state: u32,
    /// the rank of the first untaken step,
    first: u32,
    /// the ranks that were taken beyond it, ascending,
    ahead: Vec<u32>,
    /// and of each kind of twins the last taken, ascending.
    used: Vec<u32>,

    /// Untaken writes that took effect, in the order of invocation.
    writes: Untaken,
    twins: Vec<Twins>,
    /// To which twins each step belongs that may have taken effect.
    twins_of: Vec<u32>,
    /// What was taken, and the register before it.
    trail: Vec<(u32, u32)>,
    choices: Vec<Choice>,
    /// What the choices have left to try, the next of each last.
    untried: Vec<u32>,
    seen: Seen,
    remembered_at: usize,
    room: Room,
}

/// What is untaken around one value.
#[derive(Clone, Default)]
struct Value {
    /// Steps that write it.
    writers: u32,
    /// Steps that took effect and observe it.
    needs: u32,
    /// Of these, cas.
    cas_needs: u32,
    /// Steps that may have taken effect and observe it.
    wants: u32,
    /// Its reads: a range of `reads`.
    next_read: usize,
    end_read: usize,
    /// Its cas, taken or not: a range of `cas`.
    start_cas: usize,
    end_cas: usize,
}

/// Steps that may have taken effect and do the same; the first untaken one stands for all.
#[derive(Clone, Copy)]
struct Twins {
    start: usize,
    next: usize,
    end: usize,
}

/// Where something else can be tried.
struct Choice {
    /// What had been taken then.
    trail: usize,
    /// Where its part of `untried` begins.
    untried: usize,
}

/// Room that each step of the search uses anew.
#[derive(Default)]
struct Room {
    enabled: Vec<u32>,
    candidates: Vec<u32>,
}

/// How far a block came (rule 4).
enum Block {
    /// All of it was taken.
    Closed,
    /// It cannot be completed from here.
    Dead,
    /// Not a block, or not one that must be taken whole.
    Open,
}

impl<'a> Search<'a> {
    fn new(prepared: &'a Prepared) -> Self {
        let Prepared { steps, must, twins, values } = prepared;
        let took_effect = &steps[..*must];
        let mut by_rank: Vec<u32> = (0..*must as u32).collect();
        by_rank.sort_by_key(|step| steps[*step as usize].complete_ns);
        let mut rank = vec![0; *must];
        by_rank.iter().enumerate().for_each(|(at, step)| rank[*step as usize] = at as u32);

        let mut of = vec![Value::default(); *values];
        for (index, step) in steps.iter().enumerate() {
            if step.writes != NONE {
                of[step.writes as usize].writers += 1;
            }
            if step.observes != NONE {
                let value = &mut of[step.observes as usize];
                match (index < *must, step.is_read()) {
                    (true, read) => {
                        value.needs += 1;
                        value.cas_needs += u32::from(!read);
                    }
                    (false, _) => value.wants += 1,
                }
            }
        }
        let (mut reads_end, mut cas_end) = (0, 0);
        for value in &mut of {
            (value.next_read, value.end_read) = (reads_end, reads_end);
            (value.start_cas, value.end_cas) = (cas_end, cas_end);
            reads_end += (value.needs - value.cas_needs) as usize;
            cas_end += value.cas_needs as usize;
        }
        let (mut reads, mut cas) = (vec![0; reads_end], vec![0; cas_end]);
        for (index, step) in took_effect.iter().enumerate().filter(|(_, s)| s.observes != NONE) {
            let value = &mut of[step.observes as usize];
            let (list, end) = match step.is_read() {
                true => (&mut reads, &mut value.end_read),
                false => (&mut cas, &mut value.end_cas),
            };
            list[*end] = index as u32;
            *end += 1;
        }
        Self {
            steps,
            must: *must,
            by_rank,
            rank,
            values: of,
            reads,
            cas,
            state: ABSENT,
            first: 0,
            ahead: Vec::new(),
            used: Vec::new(),
            writes: Untaken::new(took_effect),
            twins: twins
                .iter()
                .map(|twins| Twins { start: twins.start, next: twins.start, end: twins.end })
                .collect(),
            twins_of: (0..)
                .zip(twins)
                .flat_map(|(n, twins)| twins.clone().map(move |_| n))
                .collect(),
            trail: Vec::with_capacity(*must),
            choices: Vec::new(),
            untried: Vec::new(),
            seen: Seen::default(),
            remembered_at: 0,
            room: Room::default(),
        }
    }

    /// Whether there is an order.
    fn run(mut self, budget: &mut Budget) -> Result<bool, Exhausted> {
        loop {
            budget.step(self.seen.bytes())?;
            self.take_reads();
            if self.first as usize == self.must {
                return Ok(true);
            }
            let candidates = self.candidates();
            let going_on = match candidates {
                None => true,
                Some(0) => false,
                Some(_) if self.seen_before() => {
                    self.room.candidates.clear();
                    false
                }
                Some(_) => {
                    self.choose();
                    true
                }
            };
            if !going_on && !self.go_back() {
                return Ok(false);
            }
        }
    }

    /// The memory, where it can be of use.
    fn seen_before(&mut self) -> bool {
        if self.choices.is_empty() {
            self.seen.forget_before(self.first);
        }
        let is_choice = self.room.candidates.len() > 1;
        let went_far = self.trail.len() / REMEMBER_EVERY != self.remembered_at / REMEMBER_EVERY;
        if !is_choice && (self.choices.is_empty() || !went_far) {
            return false;
        }
        self.remembered_at = self.trail.len();
        let twins_of = |step: u32| self.twins_of[step as usize - self.must];
        !self.seen.enter((self.state, self.first), &self.ahead, &self.used, twins_of)
    }

    /// Takes the first candidate, and keeps the others to be tried.
    fn choose(&mut self) {
        let mut candidates = std::mem::take(&mut self.room.candidates);
        let first = candidates.remove(0);
        if !candidates.is_empty() {
            self.choices.push(Choice { trail: self.trail.len(), untried: self.untried.len() });
            self.untried.extend(candidates.iter().rev());
        }
        candidates.clear();
        self.room.candidates = candidates;
        self.take(first);
    }

    /// Back to the last choice, and on with what it has left; false if none is.
    fn go_back(&mut self) -> bool {
        let Some(choice) = self.choices.last() else { return false };
        let (trail, untried) = (choice.trail, choice.untried);
        self.give_back_to(trail);
        self.remembered_at = trail;
        let next = self.untried.pop().expect("a choice has something left");
        if self.untried.len() == untried {
            self.choices.pop();
        }
        self.take(next);
        true
    }

    /// Until when steps can be taken: when the first untaken one completes.
    fn limit_ns(&self) -> i64 {
        self.by_rank.get(self.first as usize).map_or(i64::MAX, |step| self.step(*step).complete_ns)
    }

    fn step(&self, step: u32) -> &'a Step {
        &self.steps[step as usize]
    }

    fn value(&self, value: u32) -> &Value {
        &self.values[value as usize]
    }

    /// Rule 3. Each one taken may let others be taken.
    fn take_reads(&mut self) {
        loop {
            let value = self.value(self.state);
            if value.next_read == value.end_read {
                return;
            }
            let read = self.reads[value.next_read];
            if self.step(read).invoke_ns > self.limit_ns() {
                return;
            }
            self.take(read);
        }
    }

    /// Finds what can be taken here, the most promising first, and says how much it is. `None`: a
    /// block was taken, and the search is elsewhere. All reads that can be taken have been.
    fn candidates(&mut self) -> Option<usize> {
        let limit_ns = self.limit_ns();
        let mut room = std::mem::take(&mut self.room);
        let Room { enabled, candidates } = &mut room;
        enabled.clear();
        enabled.extend(self.writes.invoked_until(self.steps, limit_ns));
        let took_effect = enabled.len();
        let open = self.twins.iter().filter(|twins| twins.next < twins.end);
        enabled.extend(
            open.map(|twins| twins.next as u32)
                .filter(|step| self.step(*step).invoke_ns <= limit_ns),
        );

        // Rule 7: whoever holds all others up can be served. (Asked before rule 4 takes away what
        // cannot be taken yet.)
        let holding_up = self.step(self.by_rank[self.first as usize]).observes;
        let waits = holding_up != NONE && holding_up != self.state;
        let stuck = waits && !enabled.iter().any(|step| self.step(*step).writes == holding_up);

        // Rule 4.
        let observes_state = |step: &u32| self.step(*step).observes == self.state;
        if !stuck && !enabled.iter().any(observes_state) {
            let mut kept = 0;
            for index in 0..enabled.len() {
                let step = enabled[index];
                let block = match index < took_effect && self.step(step).observes == NONE {
                    true => self.take_block(step, limit_ns),
                    false => Block::Open,
                };
                match block {
                    Block::Closed => {
                        self.room = room;
                        return None;
                    }
                    Block::Dead => {}
                    Block::Open => {
                        enabled[kept] = step;
                        kept += 1;
                    }
                }
            }
            enabled.truncate(kept);
        }

        candidates.clear();
        if !stuck {
            candidates.extend(enabled.iter().filter(|step| self.may_be_taken(**step, enabled)));
            candidates.sort_by_key(|step| {
                let step = self.step(*step);
                (waits && step.writes != holding_up, !step.must, step.complete_ns)
            });
            self.drop_twins(candidates);
        }
        let number = candidates.len();
        self.room = room;
        Some(number)
    }

    /// Whether a step that was invoked in time could be part of an order from here.
    fn may_be_taken(&self, index: u32, enabled: &[u32]) -> bool {
        let step = self.step(index);
        let observes_state = step.observes == self.state;
        if step.observes != NONE && !observes_state {
            return false;
        }
        if step.writes != self.state {
            // Rule 7: what is still to be observed, and cannot be written again, stays.
            let here = self.value(self.state);
            let still_needed = here.needs - u32::from(observes_state && step.must);
            if still_needed > 0 && here.writers == 0 {
                return false;
            }
        }
        // Rule 5.
        step.must || (step.writes != self.state && self.is_awaited(index, enabled))
    }

    /// Whether a step that could be taken right behind this one observes what it writes.
    fn is_awaited(&self, index: u32, enabled: &[u32]) -> bool {
        let written = self.step(index).writes;
        let value = self.value(written);
        let read_waits = value.next_read < value.end_read
            && self.step(self.reads[value.next_read]).invoke_ns <= self.limit_ns();
        let observes = |other: &u32| *other != index && self.step(*other).observes == written;
        read_waits || enabled.iter().any(observes)
    }

    /// Rule 6: of candidates that do the same, the first stays. Steps that took effect come before
    /// those that may have, and earlier completions before later ones.
    fn drop_twins(&self, candidates: &mut Vec<u32>) {
        let does = |step: u32| (self.step(step).observes, self.step(step).writes);
        let mut kept = 0;
        for index in 0..candidates.len() {
            let candidate = candidates[index];
            let alone = self.value(self.step(candidate).writes).writers == 1;
            if alone || !candidates[..kept].iter().any(|other| does(*other) == does(candidate)) {
                candidates[kept] = candidate;
                kept += 1;
            }
        }
        candidates.truncate(kept);
    }

    /// Rule 4: takes an unconditional write that took effect and the whole block that it opens, or
    /// nothing. No cas that could go on from the register can be taken here.
    fn take_block(&mut self, opening: u32, limit_ns: i64) -> Block {
        let written = self.step(opening).writes;
        let value = self.value(written);
        if value.writers != 1 || value.wants != 0 {
            return Block::Open;
        }
        if value.cas_needs == 0 {
            // Seen without trying: nothing is missing, or the first untaken step, which is not in
            // the block, keeps its last read from being taken.
            let all_invoked = value.next_read == value.end_read
                || self.step(self.reads[value.end_read - 1]).invoke_ns <= limit_ns;
            if all_invoked {
                self.take(opening);
                return Block::Closed;
            }
            let first = self.by_rank[self.first as usize];
            if first != opening && self.step(first).observes != written {
                return Block::Dead;
            }
        }
        let before = self.trail.len();
        self.take(opening);
        let block = loop {
            self.take_reads();
            let Value { needs, cas_needs, wants, writers, .. } = *self.value(self.state);
            match (needs, cas_needs) {
                _ if wants > 0 => break Block::Open,
                (0, _) => break Block::Closed,
                (1, 1) => {}
                // A read that cannot be taken yet, or a second cas: whatever is taken instead
                // overwrites the value, which nobody writes again.
                _ => break Block::Dead,
            }
            debug_assert_eq!(writers, 0, "the block took its value's last writer");
            let next = self.untaken_cas(self.state);
            if self.step(next).invoke_ns > self.limit_ns() {
                break Block::Dead;
            }
            if self.value(self.step(next).writes).writers != 1 {
                break Block::Open;
            }
            self.take(next);
        };
        if !matches!(block, Block::Closed) {
            self.give_back_to(before);
        }
        block
    }

    /// The only cas that took effect, expects this value, and is untaken.
    fn untaken_cas(&self, value: u32) -> u32 {
        let Value { start_cas, end_cas, .. } = *self.value(value);
        let mut cas = self.cas[start_cas..end_cas].iter();
        *cas.find(|step| !self.is_taken(**step)).expect("a cas is needed, so one is untaken")
    }

    fn is_taken(&self, step: u32) -> bool {
        let rank = self.rank[step as usize];
        rank < self.first || self.ahead.binary_search(&rank).is_ok()
    }

    fn take(&mut self, index: u32) {
        let step = *self.step(index);
        self.trail.push((index, self.state));
        if step.observes != NONE {
            let value = &mut self.values[step.observes as usize];
            match (step.must, step.is_read()) {
                (true, true) => {
                    (value.needs, value.next_read) = (value.needs - 1, value.next_read + 1)
                }
                (true, false) => {
                    (value.needs, value.cas_needs) = (value.needs - 1, value.cas_needs - 1)
                }
                (false, _) => value.wants -= 1,
            }
        }
        if step.writes != NONE {
            self.values[step.writes as usize].writers -= 1;
            self.state = step.writes;
        }
        if !step.must {
            let twins = self.twins_of_mut(index);
            twins.next += 1;
            let first = index == twins.start as u32;
            let at = self.used.partition_point(|used| *used < index);
            match first {
                true => self.used.insert(at, index),
                false => self.used[at - 1] = index,
            }
            return;
        }
        if !step.is_read() {
            self.writes.take(index);
        }
        let rank = self.rank[index as usize];
        if rank == self.first {
            let following =
                (rank + 1..).zip(&self.ahead).take_while(|(next, taken)| next == *taken);
            let following = following.count();
            self.ahead.drain(..following);
            self.first = rank + 1 + following as u32;
        } else {
            let at = self.ahead.partition_point(|taken| *taken < rank);
            self.ahead.insert(at, rank);
        }
    }

    fn twins_of_mut(&mut self, index: u32) -> &mut Twins {
        &mut self.twins[self.twins_of[index as usize - self.must] as usize]
    }

    fn give_back_to(&mut self, length: usize) {
        while self.trail.len() > length {
            self.give_back();
        }
    }

    /// Undoes the last `take`.
    fn give_back(&mut self) {
        let (index, state) = self.trail.pop().expect("something was taken");
        let step = *self.step(index);
        self.state = state;
        if step.observes != NONE {
            let value = &mut self.values[step.observes as usize];
            match (step.must, step.is_read()) {
                (true, true) => {
                    (value.needs, value.next_read) = (value.needs + 1, value.next_read - 1)
                }
                (true, false) => {
                    (value.needs, value.cas_needs) = (value.needs + 1, value.cas_needs + 1)
                }
                (false, _) => value.wants += 1,
            }
        }
        if step.writes != NONE {
            self.values[step.writes as usize].writers += 1;
        }
        if !step.must {
            let twins = self.twins_of_mut(index);
            twins.next -= 1;
            let first = index == twins.start as u32;
            let at = self.used.partition_point(|used| *used < index);
            match first {
                true => drop(self.used.remove(at)),
                false => self.used[at] = index - 1,
            }
            return;
        }
        if !step.is_read() {
            self.writes.give_back(index);
        }
        let rank = self.rank[index as usize];
        if rank < self.first {
            self.ahead.splice(..0, rank + 1..self.first);
            self.first = rank;
        } else {
            let at = self.ahead.partition_point(|taken| *taken < rank);
            self.ahead.remove(at);
        }
    }
}

/// The untaken writes in the order of invocation: a list from which any can be taken, and to which
/// the last one taken can be given back (Knuth's dancing links).
struct Untaken {
    next: Vec<u32>,
    previous: Vec<u32>,
}

impl Untaken {
    /// The writes among these steps. The end of the list, both ways, is the number behind the last
    /// step's.
    fn new(took_effect: &[Step]) -> Self {
        let end = took_effect.len();
        let mut list =
            Self { next: vec![end as u32; end + 1], previous: vec![end as u32; end + 1] };
        let mut last = end;
        for (index, _) in took_effect.iter().enumerate().filter(|(_, step)| !step.is_read()) {
            list.next[last] = index as u32;
            list.previous[index] = last as u32;
            last = index;
        }
        list.next[last] = end as u32;
        list.previous[end] = last as u32;
        list
    }

    fn invoked_until(&self, steps: &[Step], limit_ns: i64) -> impl Iterator<Item = u32> {
        let end = self.next.len() as u32 - 1;
        let mut at = end;
        std::iter::from_fn(move || {
            at = self.next[at as usize];
            (at != end && steps[at as usize].invoke_ns <= limit_ns).then_some(at)
        })
    }

    fn take(&mut self, index: u32) {
        let (next, previous) = (self.next[index as usize], self.previous[index as usize]);
        self.next[previous as usize] = next;
        self.previous[next as usize] = previous;
    }

    fn give_back(&mut self, index: u32) {
        let (next, previous) = (self.next[index as usize], self.previous[index as usize]);
        self.next[previous as usize] = index;
        self.previous[next as usize] = index;
    }
}
