//! Errors of the log that several routes share.

use crate::storage::{CommitError, ReadError};

use super::{Code, Problem};

impl From<CommitError> for Problem {
    fn from(error: CommitError) -> Self {
        let detail = error.to_string();
        match error {
            CommitError::Busy | CommitError::StateConflict { .. } => {
                Self::new(Code::QueueFull, "nothing was stored; send it again").retry_after(1)
            }
            CommitError::DiskFull => {
                Self::new(Code::DiskFull, "nothing was stored; the disk is full").retry_after(30)
            }
            CommitError::TooLarge { .. } => Self::new(Code::BodyTooLarge, detail),
            CommitError::StateFull { kind, bytes_max } => Self::new(
                Code::StateFull,
                format!(
                    "nothing was stored; values of the kind {kind} take their whole share of the state ({bytes_max} bytes), so delete some of them first"
                ),
            ),
            CommitError::PartitionUnknown(_) => Self::new(
                Code::StreamUnknown,
                "nothing was stored; the stream has just been deleted",
            ),
            CommitError::AlreadySettled { .. } | CommitError::Fenced(_) => Self::internal(detail),
            CommitError::Stopped(_) => {
                let told = "nothing was stored; the log has stopped until a restart";
                let mut problem = Self::new(Code::LogStopped, told).retry_after(60);
                problem.cause = Some(detail.into());
                problem
            }
            CommitError::MaybeStored(_) => {
                let told = "the log stopped while it was writing; a restart shows what is stored";
                let mut problem = Self::new(Code::MaybeStored, told).retry_after(60);
                problem.cause = Some(detail.into());
                problem
            }
        }
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::PartitionUnknown(_) => {
                Self::new(Code::PartitionUnknown, "the stream has just been deleted")
            }
            ReadError::Trimmed { wanted, earliest } => Self {
                earliest: Some(earliest.0),
                ..Self::new(
                    Code::OffsetTrimmed,
                    format!("offset {wanted} was trimmed; the earliest is {earliest}"),
                )
            },
            ReadError::Damaged(_) | ReadError::Io(_) => Self::internal(error),
        }
    }
}
