//! How a request ended.

use std::collections::BTreeMap;

use tonic::Code;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The answer came in time, and is right as far as it was checked.
    Ok,
    /// The answer came after the request's deadline.
    Late,
    /// The answer is not what it should be.
    Wrong,
    /// The server refused or failed, with this code.
    Failed(Code),
    /// No answer came within the run's timeout.
    Missing,
    /// It was not sent: too many others were outstanding.
    Skipped,
}

/// Requests by how they ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// In time and right.
    pub ok: u64,
    /// After the deadline.
    pub late: u64,
    /// Not what they should be.
    pub wrong: u64,
    /// No answer.
    pub missing: u64,
    /// Not sent.
    pub skipped: u64,
    /// Answers that nobody waited for, beside all the others: doubled, or of no request.
    pub doubled: u64,
    /// Refused or failed, by the code's name.
    pub failed: BTreeMap<&'static str, u64>,
}

impl Outcomes {
    pub(crate) fn add(&mut self, outcome: Outcome) {
        let count = match outcome {
            Outcome::Ok => &mut self.ok,
            Outcome::Late => &mut self.late,
            Outcome::Wrong => &mut self.wrong,
            Outcome::Missing => &mut self.missing,
            Outcome::Skipped => &mut self.skipped,
            Outcome::Failed(code) => self.failed.entry(code_name(code)).or_default(),
        };
        *count += 1;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.ok += other.ok;
        self.late += other.late;
        self.wrong += other.wrong;
        self.missing += other.missing;
        self.skipped += other.skipped;
        self.doubled += other.doubled;
        for (code, count) in &other.failed {
            *self.failed.entry(code).or_default() += count;
        }
    }

    /// All requests.
    pub fn all(&self) -> u64 {
        let failed: u64 = self.failed.values().sum();
        self.ok + self.late + self.wrong + self.missing + self.skipped + failed
    }

    /// The share that ended well; 1 if there is none.
    pub fn ok_share(&self) -> f64 {
        match self.all() {
            0 => 1.0,
            all => self.ok as f64 / all as f64,
        }
    }
}

/// Every code of gRPC.
pub(crate) const CODES: [Code; 17] = [
    Code::Ok,
    Code::Cancelled,
    Code::Unknown,
    Code::InvalidArgument,
    Code::DeadlineExceeded,
    Code::NotFound,
    Code::AlreadyExists,
    Code::PermissionDenied,
    Code::ResourceExhausted,
    Code::FailedPrecondition,
    Code::Aborted,
    Code::OutOfRange,
    Code::Unimplemented,
    Code::Internal,
    Code::Unavailable,
    Code::DataLoss,
    Code::Unauthenticated,
];

/// gRPC's name for a code.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
