//! One ModelStreamInfer call for all requests of a connection.
//!
//! A task reads the answers and hands each to whom its id says. If the call ends, all who wait are
//! told why, and the next request opens a new one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::uri::PathAndQuery;
use prost::Message;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::codec::{Numbered, Raw};
use crate::proto::{ModelInferResponse, ModelStreamInferResponse};
use crate::requests::Request;

const METHOD: &str = "/inference.GRPCInferenceService/ModelStreamInfer";

type Answer = Result<ModelInferResponse, Code>;

/// One connection with its call.
#[derive(Debug)]
pub(super) struct Stream {
    channel: Channel,
    /// The call under way; none before the first request and after it has ended.
    call: Mutex<Option<Call>>,
    /// Ids are given to no two requests, whichever call they are in.
    next: AtomicU64,
    strays: Arc<AtomicU64>,
}

/// A call under way.
#[derive(Clone, Debug)]
struct Call {
    requests: UnboundedSender<Numbered>,
    waiting: Arc<Waiting>,
}

/// Who waits for an answer, by id; none once the call has ended. Whoever gives up stays until the
/// answer comes, so that one which comes twice is known.
#[derive(Debug)]
struct Waiting(Mutex<Option<HashMap<u64, oneshot::Sender<Answer>>>>);

impl Stream {
    pub(super) fn new(channel: Channel, strays: &Arc<AtomicU64>) -> Self {
        Self {
            channel,
            call: Mutex::new(None),
            next: AtomicU64::new(1),
            strays: Arc::clone(strays),
        }
    }

    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The answer and the id that it should have, or the code with which the request failed:
    /// UNKNOWN if the server says only why, as the protocol has it.
    pub(super) async fn call(&self, request: &Request) -> Result<(ModelInferResponse, u64), Code> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (tell, told) = oneshot::channel();
        let call = self.enter(number, tell);
        let numbered = Numbered {
            encoded: request.encoded.clone(),
            number,
        };
        // If the call has ended meanwhile, whoever waits is told.
        let _ = call.requests.send(numbered);
        drop(call);
        let answer = told.await.map_err(|_| Code::Unavailable)?;
        Ok((answer?, number))
    }

    /// Waits in the call under way, or in a new one.
    fn enter(&self, number: u64, tell: oneshot::Sender<Answer>) -> Call {
        let mut current = locked(&self.call);
        let tell = match &*current {
            Some(call) => match call.waiting.enter(number, tell) {
                Ok(()) => return call.clone(),
                Err(tell) => tell,
            },
            None => tell,
        };
        let (requests, sent) = unbounded_channel();
        let waiting = HashMap::from([(number, tell)]);
        let call = Call {
            requests,
            waiting: Arc::new(Waiting(Mutex::new(Some(waiting)))),
        };
        tokio::spawn(answer(
            self.channel.clone(),
            sent,
            Arc::clone(&call.waiting),
            Arc::clone(&self.strays),
        ));
        *current = Some(call.clone());
        call
    }
}

impl Waiting {
    fn enter(
        &self,
        number: u64,
        tell: oneshot::Sender<Answer>,
    ) -> Result<(), oneshot::Sender<Answer>> {
        match &mut *locked(&self.0) {
            Some(waiting) => {
                waiting.insert(number, tell);
                Ok(())
            }
            None => Err(tell),
        }
    }

    /// Whether somebody with this id was waiting, or had been.
    fn tell(&self, id: &str, answer: Answer) -> bool {
        let mut waiting = locked(&self.0);
        let number = id.parse().ok();
        let tell = number.and_then(|number: u64| waiting.as_mut()?.remove(&number));
        tell.is_some_and(|tell| {
            // Whoever asked may have given up.
            let _ = tell.send(answer);
            true
        })
    }

    fn end(&self, code: Code) {
        for (_, tell) in locked(&self.0).take().into_iter().flatten() {
            let _ = tell.send(Err(code));
        }
    }
}

/// Nothing that holds these locks can panic half-way.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(
    channel: Channel,
    sent: UnboundedReceiver<Numbered>,
    waiting: Arc<Waiting>,
    strays: Arc<AtomicU64>,
) {
    let ended = answers(channel, sent, &waiting, &strays).await;
    // A call that ends by itself has not answered those who wait.
    waiting.end(ended.map_or_else(|status| status.code(), |()| Code::Unavailable));
}

async fn answers(
    channel: Channel,
    sent: UnboundedReceiver<Numbered>,
    waiting: &Waiting,
    strays: &AtomicU64,
) -> Result<(), Status> {
    let mut client = Grpc::new(channel).max_decoding_message_size(usize::MAX);
    let ready = client.ready().await;
    ready.map_err(|error| Status::unavailable(error.to_string()))?;
    let request = tonic::Request::new(UnboundedReceiverStream::new(sent));
    let path = PathAndQuery::from_static(METHOD);
    let mut answers = client.streaming(request, path, Raw).await?.into_inner();
    while let Some(answer) = answers.message().await? {
        let known = match ModelStreamInferResponse::decode(answer) {
            Ok(answer) => {
                let response = answer.infer_response.unwrap_or_default();
                let id = response.id.clone();
                match answer.error_message.is_empty() {
                    true => waiting.tell(&id, Ok(response)),
                    false => waiting.tell(&id, Err(Code::Unknown)),
                }
            }
            Err(_) => false,
        };
        strays.fetch_add(u64::from(!known), Ordering::Relaxed);
    }
    Ok(())
}
