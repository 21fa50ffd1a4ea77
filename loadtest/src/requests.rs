//! What is sent: requests made ready beforehand, so that sending one costs little.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use prost::Message;

use crate::expected::Expected;
use crate::proto::infer_parameter::ParameterChoice;
use crate::proto::{InferParameter, ModelInferRequest};
use crate::target::{Body, Protocol};

/// A request made ready.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its encoding.
    pub(crate) encoded: Bytes,
    /// The same for a server that is spoken to over HTTP.
    pub(crate) body: Option<Body>,
    /// From the moment it is meant to be sent to the last at which its answer is of use.
    pub(crate) deadline: Option<Duration>,
    /// What its answer should be, if that is looked at.
    pub(crate) expected: Option<Expected>,
    /// Its rows, where a recording decides them.
    rows: Option<u32>,
    weight: f64,
}

impl Request {
    /// A request that waits for its answer as long as it takes.
    pub fn new(message: &ModelInferRequest) -> Self {
        Self::raw(message.encode_to_vec())
    }

    /// Bytes that may be no request at all.
    pub(crate) fn raw(encoded: Vec<u8>) -> Self {
        Self {
            encoded: encoded.into(),
            body: None,
            deadline: None,
            expected: None,
            rows: None,
            weight: 1.0,
        }
    }

    /// A request that tells the server how long its answer is of use, by the V2 parameter
    /// `timeout`, in microseconds.
    pub fn with_deadline(mut message: ModelInferRequest, deadline: Duration) -> Self {
        let microseconds = i64::try_from(deadline.as_micros()).unwrap_or(i64::MAX);
        let choice = ParameterChoice::Int64Param(microseconds);
        let parameter = InferParameter {
            parameter_choice: Some(choice),
        };
        message.parameters.insert("timeout".to_owned(), parameter);
        Self {
            deadline: Some(deadline),
            ..Self::new(&message)
        }
    }

    /// Makes it ready for a protocol that needs more than its encoding.
    pub fn for_protocol(mut self, protocol: Protocol) -> anyhow::Result<Self> {
        self.body = match protocol {
            Protocol::Grpc | Protocol::GrpcStream => None,
            Protocol::Rest | Protocol::RestJson => {
                let message = ModelInferRequest::decode(self.encoded.clone())?;
                Some(Body::new(&message, protocol == Protocol::RestJson)?)
            }
        };
        Ok(self)
    }

    /// Counts the answer as late if it comes later than this, whatever the server was told.
    pub fn worth(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    pub(crate) fn expecting(mut self, expected: Option<Expected>) -> Self {
        self.expected = expected;
        self
    }

    /// Sends it for those requests of a recording that have so many rows.
    pub(crate) fn of_rows(mut self, rows: Option<u32>) -> Self {
        self.rows = rows;
        self
    }

    /// How often it is sent beside others; 1 if it is not said.
    pub fn weighted(mut self, weight: f64) -> Self {
        self.weight = weight;
        self
    }
}

/// Requests, and how often each is sent.
#[derive(Clone, Debug)]
pub struct Mix {
    /// By their rows, where a recording decides them.
    groups: Arc<BTreeMap<Option<u32>, Group>>,
}

/// Requests among which chance or their turn decides.
#[derive(Debug)]
struct Group {
    requests: Vec<Request>,
    /// Sums of the weights up to each; none if all are equal and sent in turn.
    sums: Option<Vec<f64>>,
}

impl Mix {
    /// In turn, again and again; by chance in proportion to their weights, if those differ.
    pub fn new(requests: Vec<Request>) -> Self {
        let mut groups = BTreeMap::<_, Vec<Request>>::new();
        for request in requests {
            groups.entry(request.rows).or_default().push(request);
        }
        let groups = groups.into_iter();
        let groups = groups.map(|(rows, requests)| (rows, Group::new(requests)));
        Self {
            groups: Arc::new(groups.collect()),
        }
    }

    pub(crate) fn first(&self) -> Option<&Request> {
        self.groups.values().next()?.requests.first()
    }

    /// The `number`-th that is sent, of so many rows if they are known; none if there is none at all.
    pub(crate) fn pick(
        &self,
        number: u64,
        rows: Option<u32>,
        random: &mut Rng,
    ) -> Option<&Request> {
        let group = self.groups.get(&rows);
        group
            .or_else(|| self.groups.values().next())?
            .pick(number, random)
    }
}

impl Group {
    fn new(requests: Vec<Request>) -> Self {
        let first = requests.first().map_or(1.0, |request| request.weight);
        let equal = requests.iter().all(|request| request.weight == first);
        let mut sum = 0.0;
        let sums = requests.iter().map(|request| {
            sum += request.weight;
            sum
        });
        let sums: Vec<f64> = sums.collect();
        Self {
            requests,
            sums: (!equal).then_some(sums),
        }
    }

    fn pick(&self, number: u64, random: &mut Rng) -> Option<&Request> {
        let Some(sums) = &self.sums else {
            let count = self.requests.len().max(1) as u64;
            return self.requests.get((number % count) as usize);
        };
        let point = random.f64() * sums.last().copied().unwrap_or(0.0);
        self.requests.get(sums.partition_point(|sum| *sum <= point))
    }
}
