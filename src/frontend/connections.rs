//! Connections, of which there are never more than a bound: one more waits to be accepted. One that
//! says nothing gives its place up.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_stream::Stream;
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::patience::Patience;
use crate::clock::Sleep;

/// By then it is known which version of HTTP a client speaks, and what waits for it has its own bound.
const GREETING: usize = 24;

/// Places for so many connections, whatever port they come to.
pub(super) fn places(most: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(most.clamp(1, Semaphore::MAX_PERMITS)))
}

/// Accepts connections while there are places.
pub(super) fn connections(
    listener: TcpListener,
    places: Arc<Semaphore>,
    patience: Patience,
) -> impl Stream<Item = io::Result<Connection>> {
    stream::unfold(
        (listener, places, patience),
        |(listener, places, patience)| async {
            let place = Arc::clone(&places).acquire_owned().await.ok()?;
            let accepted = listener.accept().await.map(|(stream, _)| {
                // Without it small answers wait for the client's acknowledgement.
                let _ = stream.set_nodelay(true);
                Connection {
                    stream,
                    greeting: Some(Greeting {
                        heard: 0,
                        ends: patience.begin(),
                        patience: patience.clone(),
                    }),
                    _place: place,
                }
            });
            Some((accepted, (listener, places, patience)))
        },
    )
}

/// A connection and its place among those that may be open.
pub(super) struct Connection {
    stream: TcpStream,
    /// There until the client has said how it speaks.
    greeting: Option<Greeting>,
    _place: OwnedSemaphorePermit,
}

struct Greeting {
    heard: usize,
    ends: Sleep,
    patience: Patience,
}

impl Greeting {
    fn poll_lost(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = self.ends.as_mut().poll(context);
        ended.map(|()| Err(self.patience.lost()))
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let Some(greeting) = &mut self.greeting else {
            return read;
        };
        if read.is_pending() {
            return greeting.poll_lost(context);
        }
        greeting.heard += buffer.filled().len() - before;
        if greeting.heard >= GREETING {
            self.greeting = None;
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
