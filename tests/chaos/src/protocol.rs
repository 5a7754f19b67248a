//! What a node process is told and tells, a line of JSON each.

use serde::{Deserialize, Serialize};

/// To whom an event goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum To {
    Session(String),
    Sessions(Vec<String>),
    All,
}

impl To {
    pub fn reaches(&self, session: &str) -> bool {
        match self {
            To::Session(id) => id == session,
            To::Sessions(ids) => ids.iter().any(|id| id == session),
            To::All => true,
        }
    }

    pub fn is_broadcast(&self) -> bool {
        *self == To::All
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    pub id: u64,
    pub ask: Ask,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    Open {
        stream: u64,
        session: String,
        after: Option<String>,
    },
    Close {
        stream: u64,
    },
    Send {
        to: To,
        payload: String,
        key: Option<String>,
    },
    Has {
        session: String,
    },
    Health,
    /// The sessions of which it holds a stream.
    Held,
    Shutdown,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// The first line: it is connected, or why not.
    Ready(Result<(), Failure>),
    Answer {
        id: u64,
        result: Result<Answer, Failure>,
    },
    Event {
        stream: u64,
        payload: String,
        cursor: String,
    },
    End {
        stream: u64,
        reason: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Done,
    Opened { gap: bool, cursor: String },
    Sent { accepted: u64, dropped: u64, duplicates: u64 },
    Yes(bool),
    Health { ready: bool, lease_left_ms: u64 },
    Held(Vec<String>),
}

/// An error, or that the process was gone before it answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub code: String,
    pub message: String,
    pub retryable: bool,
    pub outcome_unknown: bool,
}

impl Failure {
    pub fn gone() -> Self {
        Failure {
            code: "gone".into(),
            message: "the node process is gone, or does not answer".into(),
            retryable: true,
            outcome_unknown: true,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}
