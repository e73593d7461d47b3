//! The links of a member, as members come and go.
//!
//! Invariant: there is a link to each one that may turn out to be a member, and, while it talks to
//! us, to one that is not known to be a member here: our log may be behind, and whoever brings it up
//! to date must be answered. A link to who was removed ends once that is committed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use raft::NodeId;
use tokio::task::AbortHandle;

use super::{Acquaintance, Link};
use crate::members::{Rosters, RostersSeen};

/// All links of this member.
pub(crate) struct Links {
    us: NodeId,
    election_timeout: Duration,
    kept: Mutex<BTreeMap<NodeId, Kept>>,
    /// Counts the changes of who is in there.
    version: AtomicU64,
}

struct Kept {
    link: Arc<Link>,
    task: AbortHandle,
    /// It may turn out to be a member.
    listed: bool,
    /// Streams that it has to us.
    visits: usize,
}

impl Links {
    /// None yet.
    pub(crate) fn new(us: NodeId, election_timeout: Duration) -> Self {
        Self { us, election_timeout, kept: Mutex::default(), version: AtomicU64::new(0) }
    }

    /// To this member.
    pub(crate) fn find(&self, id: NodeId) -> Option<Arc<Link>> {
        self.kept().get(&id).map(|kept| Arc::clone(&kept.link))
    }

    /// All of them, if they are not those of this version any more; and the version that they are.
    pub(super) fn newer_than(&self, version: u64) -> Option<(u64, Vec<Arc<Link>>)> {
        if self.version.load(Ordering::Acquire) == version {
            return None;
        }
        let kept = self.kept();
        let links = kept.values().map(|kept| Arc::clone(&kept.link)).collect();
        Some((self.version.load(Ordering::Acquire), links))
    }

    /// Makes the links those of the members, from now on and for ever.
    pub(crate) async fn follow(self: Arc<Self>, mut rosters: RostersSeen, us: Arc<Acquaintance>) {
        loop {
            let seen = rosters.borrow_and_update().clone();
            self.adopt(&seen, &us);
            us.strike_off(&seen).await;
            if rosters.changed().await.is_err() {
                return;
            }
        }
    }

    /// Makes them those of these members.
    pub(crate) fn adopt(&self, rosters: &Rosters, us: &Arc<Acquaintance>) {
        let mut kept = self.kept();
        for (id, kept) in kept.iter_mut() {
            kept.listed = rosters.member(*id).is_some();
        }
        let removed = |id: NodeId| rosters.committed.is_removed(id);
        let gone = |id: NodeId, kept: &Kept| !kept.listed && (kept.visits == 0 || removed(id));
        self.end_where(&mut kept, us, gone);
        for record in rosters.members().filter(|record| record.id != self.us) {
            let name = rosters.name(record.id);
            let known = kept.entry(record.id).or_insert_with(|| self.begin(record.id, &name, us));
            known.listed = true;
            known.link.set_address(&record.peer);
            known.link.rename(&name, &us.metrics);
        }
    }

    /// A member opened a stream to us, and says where it is reached; until the visit is dropped.
    pub(super) fn visit(
        self: &Arc<Self>,
        from: NodeId,
        address: &str,
        us: &Arc<Acquaintance>,
    ) -> Visit {
        let mut kept = self.kept();
        let name = us.events.name(from);
        let known = kept.entry(from).or_insert_with(|| self.begin(from, &name, us));
        known.visits += 1;
        known.link.also_at(address);
        Visit { links: Arc::clone(self), us: Arc::clone(us), from }
    }

    /// Ends all of them.
    pub(crate) fn end_all(&self) {
        let mut kept = self.kept();
        kept.values().for_each(|kept| kept.task.abort());
        kept.clear();
        self.version.fetch_add(1, Ordering::Release);
    }

    fn begin(&self, id: NodeId, name: &str, us: &Arc<Acquaintance>) -> Kept {
        let link = Arc::new(Link::new(id, name, self.election_timeout));
        let task = tokio::spawn(Arc::clone(&link).keep_up(Arc::clone(us))).abort_handle();
        self.version.fetch_add(1, Ordering::Release);
        Kept { link, task, listed: false, visits: 0 }
    }

    fn end_where(
        &self,
        kept: &mut BTreeMap<NodeId, Kept>,
        us: &Acquaintance,
        gone: impl Fn(NodeId, &Kept) -> bool,
    ) {
        kept.retain(|id, kept| {
            let stays = !gone(*id, kept);
            if !stays {
                kept.task.abort();
                kept.link.end(&us.metrics);
                self.version.fetch_add(1, Ordering::Release);
            }
            stays
        });
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<NodeId, Kept>> {
        self.kept.lock().expect("never held across a panic")
    }
}

/// A stream of another member's to us.
pub(super) struct Visit {
    links: Arc<Links>,
    us: Arc<Acquaintance>,
    from: NodeId,
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut kept = self.links.kept();
        if let Some(known) = kept.get_mut(&self.from) {
            known.visits -= 1;
        }
        let gone = |id: NodeId, kept: &Kept| id == self.from && !kept.listed && kept.visits == 0;
        self.links.end_where(&mut kept, &self.us, gone);
    }
}
