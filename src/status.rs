//! The closed set of outcomes a request can have, and what each means to a client.
//!
//! Frontends translate a [`Code`] with the tables here and nowhere else; nothing below a frontend
//! knows which protocol the answer travels by.

use std::fmt;
use std::time::Duration;

/// How a request ended when it did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    /// The request can never succeed as it was sent.
    InvalidArgument,
    /// No such model, version or file.
    NotFound,
    /// The server is in a state, or was started in a mode, that forbids this.
    FailedPrecondition,
    /// A bound was reached; the same request may succeed later.
    ResourceExhausted,
    /// The deadline passed, or could not have been met.
    DeadlineExceeded,
    /// The client went away.
    Cancelled,
    /// What was asked for exists but cannot answer now.
    Unavailable,
    /// A part of the protocol that this version does not offer.
    Unimplemented,
    /// Nobody knows who asks, and that has to be known.
    Unauthenticated,
    /// Who asks is known, or need not be, and may not have this.
    PermissionDenied,
    /// Our fault, or the model's.
    Internal,
}

impl Code {
    /// The gRPC status number.
    pub const fn grpc(self) -> i32 {
        match self {
            Self::Cancelled => 1,
            Self::InvalidArgument => 3,
            Self::DeadlineExceeded => 4,
            Self::NotFound => 5,
            Self::PermissionDenied => 7,
            Self::ResourceExhausted => 8,
            Self::FailedPrecondition => 9,
            Self::Unimplemented => 12,
            Self::Internal => 13,
            Self::Unavailable => 14,
            Self::Unauthenticated => 16,
        }
    }

    /// Its name, as gRPC writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cancelled => "CANCELLED",
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::NotFound => "NOT_FOUND",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::FailedPrecondition => "FAILED_PRECONDITION",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::Internal => "INTERNAL",
            Self::Unavailable => "UNAVAILABLE",
            Self::Unauthenticated => "UNAUTHENTICATED",
        }
    }

    /// Whether the server, and not the client, is to do something about it.
    pub const fn is_ours(self) -> bool {
        match self {
            Self::ResourceExhausted
            | Self::DeadlineExceeded
            | Self::Unavailable
            | Self::Internal => true,
            Self::InvalidArgument
            | Self::NotFound
            | Self::FailedPrecondition
            | Self::Cancelled
            | Self::Unimplemented
            | Self::Unauthenticated
            | Self::PermissionDenied => false,
        }
    }

    /// The HTTP status number.
    pub const fn http(self) -> u16 {
        match self {
            Self::InvalidArgument | Self::FailedPrecondition => 400,
            Self::Unauthenticated => 401,
            Self::PermissionDenied => 403,
            Self::NotFound => 404,
            Self::ResourceExhausted => 429,
            // Known to proxies as that of a client that went away.
            Self::Cancelled => 499,
            Self::Internal => 500,
            Self::Unimplemented => 501,
            Self::Unavailable => 503,
            Self::DeadlineExceeded => 504,
        }
    }
}

/// An unsuccessful outcome: a code, and a sentence for the person who has to act on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The outcome.
    pub code: Code,
    /// Names the model, input, dimension or file; what was expected, what came, what to do.
    pub message: String,
    /// When trying again makes sense, if it does.
    pub retry_after: Option<Duration>,
}

impl Status {
    /// A status without a retry hint.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            retry_after: None,
        }
    }

    /// The request can never succeed as it was sent.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    /// No such model or version.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, message)
    }

    /// Exists, but cannot answer now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, message)
    }

    /// Our fault, or the model's.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, message)
    }

    /// A bound was reached; `retry_after` tells the client when to try again.
    pub fn exhausted(message: impl Into<String>, retry_after: Duration) -> Self {
        Self {
            code: Code::ResourceExhausted,
            message: message.into(),
            retry_after: Some(retry_after),
        }
    }

    /// The same, saying first what it is about.
    #[must_use]
    pub fn about(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Status {}
