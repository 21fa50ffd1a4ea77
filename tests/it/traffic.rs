//! Clients that never stop asking while the test changes something under them.

use jitney::proto::{ModelInferRequest, ModelInferResponse};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::node::{Client, Node, infer, within};

pub(crate) const CLIENTS: usize = 8;

/// Clients that send one request after the other, and panic at the first that is not answered right.
pub(crate) struct Traffic {
    clients: JoinSet<()>,
    answered: watch::Receiver<usize>,
    stop: watch::Sender<bool>,
}

impl Traffic {
    pub(crate) fn start(
        node: &Node,
        request: ModelInferRequest,
        check: fn(&ModelInferResponse, &ModelInferRequest),
    ) -> Self {
        let (answer, answered) = watch::channel(0);
        let (stop, stopped) = watch::channel(false);
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let (client, request) = (node.client(), request.clone());
            clients.spawn(ask(client, request, check, answer.clone(), stopped.clone()));
        }
        Self {
            clients,
            answered,
            stop,
        }
    }

    /// Waits for this many further answers.
    pub(crate) async fn flows(&mut self, answers: usize) {
        let so_far = *self.answered.borrow();
        let enough = self.answered.wait_for(|now| *now >= so_far + answers);
        within("answers under load", enough).await.unwrap();
    }

    /// Stops the clients; panics if one of them did.
    pub(crate) async fn stops(self) {
        self.stop.send_replace(true);
        within("clients stop", self.clients.join_all()).await;
    }
}

async fn ask(
    client: Client,
    request: ModelInferRequest,
    check: fn(&ModelInferResponse, &ModelInferRequest),
    answered: watch::Sender<usize>,
    stopped: watch::Receiver<bool>,
) {
    while !*stopped.borrow() {
        let answer = infer(client.clone(), request.clone()).await.unwrap();
        check(&answer, &request);
        answered.send_modify(|count| *count += 1);
    }
}
