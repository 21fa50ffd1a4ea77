//! What goes wrong beside the load: clients that give up, vanish or do not read, connections that come
//! and go or say nothing, messages that are none, models that are replaced or gone for a while, a
//! device that is lost, a server that is stopped.
//!
//! A fault is a value of a scenario's step. Each is committed by a task of its own as often as it says,
//! until the step ends; the load goes on, and what the step asks is asked of that.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};

use crate::blows::Blows;
use crate::requests::Request;
use crate::server::{End, Running};
use crate::target::{Endpoint, Target};

/// What goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A request is sent and given up at once.
    Cancel,
    /// A connection breaks, without a goodbye, while a request of it is in progress.
    Vanish,
    /// A connection is opened for one request and closed.
    Churn,
    /// A connection says nothing until the step ends.
    HalfOpen,
    /// A connection says something that is no HTTP/2, and a call brings a message that is no request.
    Malformed,
    /// A call says that its message is 2 GiB long, and sends the first bytes.
    Huge,
    /// A connection asks and never reads an answer, until the step ends.
    SlowReader,
    /// This model is loaded anew.
    Reload(String),
    /// This model is unloaded, and loaded after so long.
    Unload(String, Duration),
    /// The server that was started for the run is asked to stop (SIGTERM), and started again.
    Terminate,
    /// The server that was started for the run is killed, and started again.
    Kill,
    /// This file is there for so long: a simulated device is lost while it is, if its model says so.
    File(PathBuf, Duration),
}

/// What goes wrong, and how often.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// What goes wrong.
    pub kind: Kind,
    /// From one time to the next.
    pub every: Duration,
}

/// The longest wait for whatever a fault does.
const PATIENCE: Duration = Duration::from_secs(5);
/// No more of one fault go on at the same time, nor stay.
const MOST: usize = 1_000;

/// What every HTTP/2 connection begins with, and settings that change nothing.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Kinds and flags of HTTP/2's frames (RFC 9113, section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// As large as a frame may be, and as much as may be sent on a connection, before the server says
/// otherwise.
const LARGEST_FRAME: usize = 16_384;
const FIRST_WINDOW: usize = 65_535;
/// Calls of one who does not read.
const QUESTIONS: usize = 64;

/// Faults being committed; they end when this is dropped.
pub(crate) struct Faults {
    _tasks: JoinSet<()>,
    files: Vec<PathBuf>,
}

impl Faults {
    pub(crate) fn commit(
        faults: &[Fault],
        endpoint: &Endpoint,
        running: &Arc<Running>,
        request: &Request,
        blows: &Blows,
    ) -> Self {
        let mut tasks = JoinSet::new();
        for fault in faults {
            let culprit = Culprit {
                kind: fault.kind.clone(),
                endpoint: endpoint.clone(),
                running: Arc::clone(running),
                request: request.clone(),
                blows: blows.clone(),
            };
            tasks.spawn(again_and_again(culprit, fault.every));
        }
        let files = faults.iter().filter_map(|fault| match &fault.kind {
            Kind::File(file, _) => Some(file.clone()),
            _ => None,
        });
        Self {
            _tasks: tasks,
            files: files.collect(),
        }
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        for file in &self.files {
            // It may not be there just now.
            let _ = std::fs::remove_file(file);
        }
    }
}

async fn again_and_again(culprit: Culprit, every: Duration) {
    let mut times = interval(every);
    if culprit.kind.is_a_blow() {
        // What is served again has to have been served before.
        times.reset();
    }
    let mut under_way = JoinSet::new();
    loop {
        times.tick().await;
        while under_way.try_join_next().is_some() {}
        if under_way.len() < MOST {
            let culprit = culprit.clone();
            under_way.spawn(async move {
                if let Err(error) = culprit.commit().await {
                    tell(&culprit.kind, &error);
                }
            });
        }
    }
}

/// Somebody who cannot do harm has to be told of, or a step would look sound that was not tried.
fn tell(kind: &Kind, error: &anyhow::Error) {
    eprintln!("fault {kind:?}: {error:#}");
}

impl Kind {
    fn is_a_blow(&self) -> bool {
        matches!(
            self,
            Self::Unload(..) | Self::File(..) | Self::Terminate | Self::Kill
        )
    }
}

#[derive(Clone)]
struct Culprit {
    kind: Kind,
    endpoint: Endpoint,
    running: Arc<Running>,
    request: Request,
    blows: Blows,
}

impl Culprit {
    async fn commit(&self) -> anyhow::Result<()> {
        match &self.kind {
            Kind::Cancel => self.cancel(Duration::from_millis(1)).await,
            Kind::Vanish => self.vanish().await,
            Kind::Churn => self.cancel(PATIENCE).await,
            Kind::HalfOpen => self.say_nothing().await,
            Kind::Malformed => {
                self.say_and_leave(b"GET / HTTP/1.0\r\n\r\n\xff\xfe")
                    .await?;
                self.call(Request::raw(vec![0xff; 100])).await
            }
            Kind::Huge => self.huge().await,
            Kind::SlowReader => self.do_not_read().await,
            Kind::Reload(model) => self.target().await?.load(model).await,
            Kind::Unload(model, lasts) => {
                let target = self.target().await?;
                target.unload(model).await?;
                // Until then the model may go on serving.
                self.blows.deal();
                sleep(*lasts).await;
                target.load(model).await
            }
            Kind::File(file, lasts) => {
                let failed = || format!("cannot write {}", file.display());
                std::fs::write(file, "").with_context(failed)?;
                self.blows.deal();
                sleep(*lasts).await;
                std::fs::remove_file(file).with_context(failed)
            }
            Kind::Terminate => self.running.restart(End::Terminate, &self.blows).await,
            Kind::Kill => self.running.restart(End::Kill, &self.blows).await,
        }
    }

    /// A connection of its own for one request, which is given up after so long.
    async fn cancel(&self, after: Duration) -> anyhow::Result<()> {
        let target = self.target().await?;
        let _ = timeout(after, target.send(&self.request, 0, PATIENCE)).await;
        Ok(())
    }

    /// Over a connection of its own.
    async fn target(&self) -> anyhow::Result<Target> {
        Target::connect(&self.endpoint, 1).await
    }

    async fn call(&self, request: Request) -> anyhow::Result<()> {
        let target = self.target().await?;
        // Whatever it says.
        let _ = target.send(&request, 0, PATIENCE).await;
        Ok(())
    }

    /// Headers of a call that never brings its message, and then a reset.
    async fn vanish(&self) -> anyhow::Result<()> {
        let mut socket = self.connect().await?;
        socket.write_all(PREFACE).await?;
        socket.write_all(&call_headers(1)).await?;
        socket.write_all(&data_frame(1_000, &[0; 100])).await?;
        socket.set_zero_linger()?;
        Ok(())
    }

    async fn huge(&self) -> anyhow::Result<()> {
        let mut socket = self.connect().await?;
        socket.write_all(PREFACE).await?;
        socket.write_all(&call_headers(1)).await?;
        socket
            .write_all(&data_frame(0x7fff_ffff, &[0; 1_000]))
            .await?;
        sleep(PATIENCE).await;
        Ok(())
    }

    /// Asks as much as the windows allow before the server has said anything, leaves no window for the
    /// answers, and stays until the step is over or the server closes.
    async fn do_not_read(&self) -> anyhow::Result<()> {
        let mut socket = self.connect().await?;
        socket.write_all(PREFACE).await?;
        socket.write_all(&no_window()).await?;
        let message = &self.request.encoded;
        let length = u32::try_from(message.len()).context("the request is too large")?;
        let mut left = FIRST_WINDOW;
        for stream in (1..).step_by(2).take(QUESTIONS) {
            left = match left.checked_sub(message.len() + 5) {
                Some(left) => left,
                None => break,
            };
            socket.write_all(&call_headers(stream)).await?;
            let mut payload = vec![0];
            payload.extend(length.to_be_bytes());
            payload.extend(message);
            socket.write_all(&message_frames(stream, &payload)).await?;
        }
        // Not a byte is read: what the server sends fills the socket's buffers and stays there.
        loop {
            sleep(PATIENCE).await;
            socket.write_all(&frame(PING, 0, 0, &[0; 8])).await?;
        }
    }

    /// Stays until the step is over, or the server closes.
    async fn say_nothing(&self) -> anyhow::Result<()> {
        let mut socket = self.connect().await?;
        let mut heard = [0; 256];
        while socket.read(&mut heard).await.is_ok_and(|length| length > 0) {}
        Ok(())
    }

    async fn say_and_leave(&self, bytes: &[u8]) -> anyhow::Result<()> {
        let mut socket = self.connect().await?;
        socket.write_all(bytes).await?;
        Ok(())
    }

    async fn connect(&self) -> anyhow::Result<TcpStream> {
        let socket = timeout(PATIENCE, TcpStream::connect(&self.endpoint.address)).await;
        let socket = socket.context("no connection in time")?;
        socket.with_context(|| format!("cannot connect to {}", self.endpoint.address))
    }
}

/// A HEADERS frame that opens this stream with a ModelInfer call, in literal fields without Huffman
/// coding (RFC 7541, section 6.2.2).
fn call_headers(stream: u32) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/inference.GRPCInferenceService/ModelInfer"),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        block.push(0);
        // All are shorter than the 127 from which lengths take more than a byte.
        block.push(name.len() as u8);
        block.extend(name.as_bytes());
        block.push(value.len() as u8);
        block.extend(value.as_bytes());
    }
    frame(HEADERS, END_HEADERS, stream, &block)
}

/// A DATA frame on stream 1 with the beginning of a gRPC message of this length.
fn data_frame(message: u32, beginning: &[u8]) -> Vec<u8> {
    let mut payload = vec![0];
    payload.extend(message.to_be_bytes());
    payload.extend(beginning);
    frame(DATA, 0, 1, &payload)
}

/// DATA frames that end this stream's side with a whole message.
fn message_frames(stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frames = Vec::new();
    let mut chunks = payload.chunks(LARGEST_FRAME).peekable();
    while let Some(chunk) = chunks.next() {
        let flags = if chunks.peek().is_none() {
            END_STREAM
        } else {
            0
        };
        frames.extend(frame(DATA, flags, stream, chunk));
    }
    frames
}

/// A SETTINGS frame by which no byte of an answer may be sent.
fn no_window() -> Vec<u8> {
    const INITIAL_WINDOW_SIZE: u8 = 4;
    frame(SETTINGS, 0, 0, &[0, INITIAL_WINDOW_SIZE, 0, 0, 0, 0])
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u32;
    let mut frame = length.to_be_bytes().get(1..).unwrap_or_default().to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}
