//! A victim's TCP connections as the kernel's socket table shows them.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use procfs::net::{TcpNetEntries, TcpNetEntry, TcpState};
use procfs::process::{FDTarget, Process};
use procfs::{FromReadSI, current_system_info};

use crate::{Error, Victim};

/// The two ends of a connection, the victim's first.
type Ends = (SocketAddr, SocketAddr);

/// The connections that a victim holds now.
pub(crate) fn connections_of(victim: &Victim) -> Result<HashSet<Ends>, Error> {
    let established = |entry: &TcpNetEntry| entry.state == TcpState::Established;
    Ok(own_entries(victim)?
        .into_iter()
        .filter(established)
        .map(|entry| (entry.local_address, entry.remote_address))
        .collect())
}

/// How many of `before` the other ends still hold as established.
pub(crate) fn still_established(victim: &Victim, before: &HashSet<Ends>) -> usize {
    let Ok(entries) = tables_around(victim) else { return before.len() };
    entries
        .iter()
        .filter(|entry| entry.state == TcpState::Established)
        .filter(|entry| before.contains(&(entry.remote_address, entry.local_address)))
        .count()
}

/// Bytes that others sent and the victim has not read.
pub(crate) fn unread_bytes(victim: &Victim) -> Result<u64, Error> {
    let open =
        |entry: &TcpNetEntry| matches!(entry.state, TcpState::Established | TcpState::CloseWait);
    Ok(own_entries(victim)?.iter().filter(|e| open(e)).map(|e| u64::from(e.rx_queue)).sum())
}

/// The ports among `ports` of `host` that accept connections.
pub(crate) fn answering(host: Ipv4Addr, ports: &[u16]) -> Vec<u16> {
    let connects = |port: &u16| {
        let address = SocketAddr::from((host, *port));
        TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok()
    };
    ports.iter().copied().filter(connects).collect()
}

fn own_entries(victim: &Victim) -> Result<Vec<TcpNetEntry>, Error> {
    let process = victim.proc()?;
    let inodes: HashSet<u64> = process
        .fd()
        .map_err(|error| victim.proc_error(error))?
        .filter_map(|fd| match fd.ok()?.target {
            FDTarget::Socket(inode) => Some(inode),
            _ => None,
        })
        .collect();
    let entries = table(&process).map_err(|error| victim.proc_error(error))?;
    Ok(entries.into_iter().filter(|entry| inodes.contains(&entry.inode)).collect())
}

/// The tables in which the victim's peers are, which are there also after its end.
fn tables_around(victim: &Victim) -> procfs::ProcResult<Vec<TcpNetEntry>> {
    let Some(lab) = victim.lab() else {
        // Nodes share our network.
        return table(&Process::myself()?);
    };
    let mut entries = Vec::new();
    for host in lab.hosts() {
        let read = || {
            let of_thread = |name: &str| {
                let path = format!("/proc/thread-self/net/{name}");
                TcpNetEntries::from_file(path, current_system_info()).map(|entries| entries.0)
            };
            let mut entries = of_thread("tcp")?;
            entries.extend(of_thread("tcp6").unwrap_or_default());
            Ok(entries)
        };
        let read: procfs::ProcResult<Vec<TcpNetEntry>> =
            host.within(read).map_err(|error| procfs::ProcError::Other(error.to_string()))?;
        entries.extend(read?);
    }
    Ok(entries)
}

fn table(process: &Process) -> procfs::ProcResult<Vec<TcpNetEntry>> {
    let mut entries = process.tcp()?;
    // Without IPv6 in the kernel there is no such table.
    entries.extend(process.tcp6().unwrap_or_default());
    Ok(entries)
}
