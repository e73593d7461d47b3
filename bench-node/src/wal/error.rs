//! What can be wrong with a log.

use std::fmt;
use std::path::PathBuf;

use crate::GroupId;
use crate::disk::DiskError;

/// Why a log cannot be used, or can no longer be.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WalError {
    /// The disk failed; what reached it is unknown.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Bytes that were durable are not there any more, or make no sense.
    #[error(
        "{}: damaged at byte {offset}: {kind}. Nothing was changed. This member must not start \
         from this log: remove the member from its cluster, empty its data directory, and add it \
         again (restoring an older copy of the directory would break promises it has made)",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What.
        kind: DamageKind,
    },
    /// The log was written in another version of the format.
    #[error(
        "{}: this log is in format version {found}, and this program knows version {} only. \
         Nothing was changed. Start this member with the program that wrote the log; or, if the \
         rest of its cluster holds the data, remove the member from the cluster, empty its data \
         directory, and add it again",
        path.display(),
        super::segment::VERSION
    )]
    Version {
        /// A segment of it.
        path: PathBuf,
        /// The version.
        found: u32,
    },
    /// There is no log where there was one.
    #[error(
        "{}: the log is gone: there is no batch in it, though this member took part in its \
         cluster, and what it voted for and acknowledged was there. Nothing was changed. If the \
         log was moved or its volume is not mounted, put it back; otherwise remove the member \
         from its cluster, empty its data directory, and add it again (restoring an older copy \
         would break promises it has made)",
        path.display()
    )]
    Missing {
        /// The log's directory.
        path: PathBuf,
    },
    /// An earlier write or sync failed; nothing is acknowledged any more.
    #[error("the log stopped after an earlier failure: {reason}")]
    Poisoned {
        /// That failure.
        reason: String,
    },
    /// A write that does not follow from what the log holds. Nothing of its batch was written.
    #[error(
        "a write of group {group} contradicts the log: {reason}. This is a bug of this program; \
         the log is as it was before"
    )]
    Contradiction {
        /// Whose.
        group: GroupId,
        /// How.
        reason: String,
    },
    /// One batch cannot hold this.
    #[error("a write of {bytes} bytes is more than a batch holds (4 GiB)")]
    TooLarge {
        /// Bytes of records.
        bytes: usize,
    },
    /// The system would not start a thread.
    #[error("cannot start the log's thread: {reason}")]
    Thread {
        /// What the system said.
        reason: String,
    },
}

/// What is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DamageKind {
    /// The first block of a segment.
    SegmentHeader {
        /// What is wrong with it.
        reason: String,
    },
    /// The first segment of a start is missing, and with it what it cut.
    MissingSegment {
        /// Its number.
        number: u64,
    },
    /// A batch is missing or does not match its checksum, though it was durable.
    Batch {
        /// Its sequence number.
        sequence: u64,
        /// The last batch that is recorded as durable.
        durable_prefix: u64,
    },
    /// A batch matches its checksum and makes no sense.
    Content {
        /// Its sequence number.
        sequence: u64,
        /// What is wrong with it.
        reason: String,
    },
}

impl fmt::Display for DamageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SegmentHeader { reason } => write!(f, "{reason}"),
            Self::MissingSegment { number } => {
                write!(f, "it rests on segment {number}, which is missing")
            }
            Self::Batch { sequence, durable_prefix } => write!(
                f,
                "batch {sequence} is missing or does not match its checksum, and the log records \
                 all batches up to {durable_prefix} as durable"
            ),
            Self::Content { sequence, reason } => {
                write!(f, "batch {sequence} matches its checksum and makes no sense: {reason}")
            }
        }
    }
}
