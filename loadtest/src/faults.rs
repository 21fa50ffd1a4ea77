//! What goes wrong beside the load: clients that give up or vanish, connections that come and go or say
//! nothing, messages that are none, models that are replaced, a device that is lost.
//!
//! A fault is a value of a scenario's step. Each is committed by a task of its own as often as it says,
//! until the step ends; the load goes on, and what the step asks is asked of that.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};

use crate::requests::Request;
use crate::target::Target;

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
    /// This model is loaded anew.
    Reload(String),
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

/// Faults being committed; they end when this is dropped.
pub(crate) struct Faults {
    _tasks: JoinSet<()>,
    files: Vec<PathBuf>,
}

impl Faults {
    pub(crate) fn commit(faults: &[Fault], address: &str, request: &Request) -> Self {
        let mut tasks = JoinSet::new();
        for fault in faults {
            let culprit = Culprit {
                kind: fault.kind.clone(),
                address: address.to_owned(),
                request: request.clone(),
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

#[derive(Clone)]
struct Culprit {
    kind: Kind,
    address: String,
    request: Request,
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
            Kind::Reload(model) => {
                let target = Target::connect(&self.address, 1).await?;
                target.load(model).await
            }
            Kind::File(file, lasts) => appear(file, *lasts).await,
        }
    }

    /// A connection of its own for one request, which is given up after so long.
    async fn cancel(&self, after: Duration) -> anyhow::Result<()> {
        let target = Target::connect(&self.address, 1).await?;
        let mut client = target.client(0).context("no connection")?;
        let _ = timeout(after, client.send(&self.request, 0, PATIENCE)).await;
        Ok(())
    }

    async fn call(&self, request: Request) -> anyhow::Result<()> {
        let target = Target::connect(&self.address, 1).await?;
        let mut client = target.client(0).context("no connection")?;
        // Whatever it says.
        let _ = client.send(&request, 0, PATIENCE).await;
        Ok(())
    }

    /// Headers of a call that never brings its message, and then a reset.
    async fn vanish(&self) -> anyhow::Result<()> {
        let mut socket = self.connect().await?;
        socket.write_all(PREFACE).await?;
        socket.write_all(&call_headers()).await?;
        socket.write_all(&data_frame(1_000, &[0; 100])).await?;
        socket.set_zero_linger()?;
        Ok(())
    }

    async fn huge(&self) -> anyhow::Result<()> {
        let mut socket = self.connect().await?;
        socket.write_all(PREFACE).await?;
        socket.write_all(&call_headers()).await?;
        socket
            .write_all(&data_frame(0x7fff_ffff, &[0; 1_000]))
            .await?;
        sleep(PATIENCE).await;
        Ok(())
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
        let socket = timeout(PATIENCE, TcpStream::connect(&self.address)).await;
        let socket = socket.context("no connection in time")?;
        socket.with_context(|| format!("cannot connect to {}", self.address))
    }
}

async fn appear(file: &Path, lasts: Duration) -> anyhow::Result<()> {
    let failed = || format!("cannot write {}", file.display());
    std::fs::write(file, "").with_context(failed)?;
    sleep(lasts).await;
    std::fs::remove_file(file).with_context(failed)
}

/// A HEADERS frame that opens stream 1 with a ModelInfer call, in literal fields without Huffman
/// coding (RFC 7541, section 6.2.2).
fn call_headers() -> Vec<u8> {
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
    const HEADERS: u8 = 1;
    const END_HEADERS: u8 = 4;
    frame(HEADERS, END_HEADERS, &block)
}

/// A DATA frame on stream 1 with the beginning of a gRPC message of this length.
fn data_frame(message: u32, beginning: &[u8]) -> Vec<u8> {
    const DATA: u8 = 0;
    let mut payload = vec![0];
    payload.extend(message.to_be_bytes());
    payload.extend(beginning);
    frame(DATA, 0, &payload)
}

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u32;
    let mut frame = length.to_be_bytes().get(1..).unwrap_or_default().to_vec();
    frame.extend([kind, flags, 0, 0, 0, 1]);
    frame.extend(payload);
    frame
}
