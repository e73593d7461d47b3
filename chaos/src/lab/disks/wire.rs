//! What a lab and the server of its disks say to each other: one message of JSON at a time over a
//! socket that keeps messages apart, with a file where one is handed over.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::breaker::Moment;
use super::disk::Trouble;
use super::figures::Figures;
use super::ledger::{Loss, Lost};
use super::volume::DiskSpec;

/// To the server. Every disk is meant by the name of its host.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Serve this directory's files to the mount whose `/dev/fuse` comes along; at first as fast as
    /// the host can.
    Attach { name: String, dir: PathBuf, spec: DiskSpec, seed: u64 },
    /// Take its time from now on.
    TakeTime { name: String, transit_ns: u64 },
    /// What is wrong with it from now on.
    Set { name: String, trouble: Trouble },
    /// Their power goes, all at once.
    CutPower { names: Vec<String>, moment: Moment },
    /// Tell whether it has power.
    HasPower { name: String },
    /// Its mount is gone: take back what was not synced.
    LosePower { name: String, loss: Loss },
    /// Serve a new mount.
    Remount { name: String },
    /// Tell its figures.
    Figures { name: String },
    /// Its mount is gone for good.
    Detach { name: String },
}

/// From the server.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Done,
    Power(bool),
    Lost(Lost),
    Figures(Box<Figures>),
    Failed(String),
}

/// The longest message.
const MAX_BYTES: usize = 64 << 10;

pub(super) fn send(
    socket: impl AsFd,
    message: &impl Serialize,
    file: Option<BorrowedFd<'_>>,
) -> std::io::Result<()> {
    let text = serde_json::to_vec(message)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut along = SendAncillaryBuffer::new(&mut space);
    let files: Vec<BorrowedFd<'_>> = file.into_iter().collect();
    if !files.is_empty() {
        along.push(SendAncillaryMessage::ScmRights(&files));
    }
    sendmsg(socket, &[IoSlice::new(&text)], &mut along, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The next message; `None`: the other side is gone.
pub(super) fn receive<T: DeserializeOwned>(
    socket: impl AsFd,
) -> std::io::Result<Option<(T, Option<OwnedFd>)>> {
    let mut text = vec![0; MAX_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut along = RecvAncillaryBuffer::new(&mut space);
    let got = loop {
        let mut pieces = [IoSliceMut::new(&mut text)];
        match recvmsg(&socket, &mut pieces, &mut along, RecvFlags::CMSG_CLOEXEC) {
            Ok(got) => break got,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    };
    if got.bytes == 0 {
        return Ok(None);
    }
    let mut file = None;
    for message in along.drain() {
        if let RecvAncillaryMessage::ScmRights(mut files) = message {
            file = files.next();
        }
    }
    Ok(Some((serde_json::from_slice(&text[..got.bytes])?, file)))
}
