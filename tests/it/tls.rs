//! TLS: certificates that are renewed, those that clients have to have, and handshakes that go nowhere.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hyper_util::rt::TokioIo;
use jitney::config::{RawSecurity, RawServer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use super::authority::{Authority, Pair, handshake};
use super::node::{Client, Node, within};
use super::place::Place;
use super::request::rows;

async fn channel(
    address: SocketAddr,
    connector: &TlsConnector,
) -> Result<Channel, tonic::transport::Error> {
    let connector = connector.clone();
    let connect = tower::service_fn(move |_| {
        let connector = connector.clone();
        async move { handshake(address, &connector).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://jitney.test")
        .connect_with_connector(connect)
        .await
}

fn leaf(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0]
        .clone()
        .into_owned()
}

fn der(pair: &Pair) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()
}

/// Connects until the server shows another certificate than this one.
async fn until_shown(address: SocketAddr, connector: &TlsConnector, pair: &Pair) {
    within("a new certificate", async {
        loop {
            let stream = handshake(address, connector).await.unwrap();
            if leaf(&stream) == der(pair) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn grpc_and_rest_are_answered_over_tls_and_nothing_else_is() {
    let (place, authority) = (Place::new(), Authority::new());
    place.put_pair(&authority.issue("jitney.test"));
    let server = place.server(place.tls()).await;
    let connector = authority.connector(None);
    let channel = channel(server.address(), &connector).await.unwrap();
    let mut client = Client::new(channel);
    let answer = client.model_infer(rows("m", 1, 1)).await.unwrap();
    assert_eq!(answer.into_inner().model_name, "m");

    // HTTP/1.1, as curl without HTTP/2.
    let plain = authority.connector(None);
    let mut stream = handshake(server.http_address().unwrap(), &plain)
        .await
        .unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    drop(stream.shutdown().await);

    let mut wire = TcpStream::connect(server.address()).await.unwrap();
    wire.write_all(b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut said = Vec::new();
    let _ = within("the server hangs up", wire.read_to_end(&mut said)).await;
    assert!(!said.starts_with(b"HTTP"), "{said:?}");

    let other = Authority::new().connector(None);
    assert!(handshake(server.address(), &other).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_renewed_under_load_and_a_broken_one_changes_nothing() {
    let (place, authority) = (Place::new(), Authority::new());
    let (first, second) = (
        authority.issue("jitney.test"),
        authority.issue("jitney.test"),
    );
    place.put_pair(&first);
    let server = place.server(place.tls()).await;
    let address = server.address();
    let connector = authority.connector(None);
    let ends = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicU64::new(0));
    // One connection that lasts, and one a request.
    let lasting = Client::new(channel(address, &connector).await.unwrap());
    let mut callers = tokio::task::JoinSet::new();
    for lasts in [true, false] {
        let (ends, answered) = (Arc::clone(&ends), Arc::clone(&answered));
        let (lasting, connector) = (lasting.clone(), connector.clone());
        callers.spawn(async move {
            while !ends.load(Ordering::Acquire) {
                let mut client = match lasts {
                    true => lasting.clone(),
                    false => Client::new(channel(address, &connector).await.unwrap()),
                };
                client.model_infer(rows("m", 1, 1)).await.unwrap();
                answered.fetch_add(1, Ordering::AcqRel);
            }
        });
    }
    until_shown(address, &connector, &first).await;
    place.put_pair(&second);
    until_shown(address, &connector, &second).await;
    // A key that is not the certificate's, then none at all: those who connect see the old one.
    place.put("tls.key", &first.key);
    place.put("tls.crt", "no certificate");
    let seen = answered.load(Ordering::Acquire);
    within("requests while it is broken", async {
        while answered.load(Ordering::Acquire) < seen + 20 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    until_shown(address, &connector, &second).await;
    place.put_pair(&first);
    until_shown(address, &connector, &first).await;
    ends.store(true, Ordering::Release);
    while let Some(ended) = callers.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test]
async fn a_client_without_a_certificate_is_not_let_in_where_one_is_wanted() {
    let (place, authority) = (Place::new(), Authority::new());
    place.put_pair(&authority.issue("jitney.test"));
    let names = "[[certificates]]\nname = \"a\"\nsan = \"a.test\"\nroles = [\"infer\"]\n\
                 [[certificates]]\nname = \"b\"\ncommon_name = \"b.test\"\nroles = [\"operate\"]\n";
    let server = place
        .server(RawSecurity {
            tls_client_ca: Some(place.put("ca.crt", &authority.pem)),
            identity: Some(place.put("identity.toml", names)),
            ..place.tls()
        })
        .await;
    let address = server.address();
    let client = async |pair: Option<&Pair>| {
        let channel = channel(address, &authority.connector(pair)).await?;
        let mut client = Client::new(channel);
        Ok::<_, tonic::transport::Error>(client.model_infer(rows("m", 1, 1)).await)
    };
    // TLS 1.3 tells a client only after its part that it was refused.
    let refused = |answer: Result<Result<_, tonic::Status>, _>| match answer {
        Err(_) => true,
        Ok(answer) => answer.is_err_and(|status| status.code() != Code::Unauthenticated),
    };
    assert!(refused(client(None).await));
    let foreign = Authority::new().issue("a.test");
    assert!(refused(client(Some(&foreign)).await));
    assert!(
        client(Some(&authority.issue("a.test")))
            .await
            .unwrap()
            .is_ok()
    );
    let code = async |name| {
        client(Some(&authority.issue(name)))
            .await
            .unwrap()
            .unwrap_err()
            .code()
    };
    assert_eq!(code("b.test").await, Code::PermissionDenied);
    assert_eq!(code("c.test").await, Code::Unauthenticated);
}

#[tokio::test]
async fn handshakes_that_go_nowhere_keep_nobody_out() {
    let (place, authority) = (Place::new(), Authority::new());
    place.put_pair(&authority.issue("jitney.test"));
    let server = place
        .server(RawSecurity {
            max_handshakes: Some("3".to_owned()),
            handshake_timeout_ms: Some("3600000".to_owned()),
            ..place.tls()
        })
        .await;
    let connector = authority.connector(None);
    let mut slow = Vec::new();
    for _ in 0..10 {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        // The head of a ClientHello that never comes.
        stream.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
        slow.push(stream);
    }
    handshake(server.address(), &connector).await.unwrap();
    // The oldest had to make room, in their order.
    for stream in &mut slow[..7] {
        let mut byte = [0];
        let ended = within("an old handshake ends", stream.read(&mut byte)).await;
        assert!(matches!(ended, Ok(0) | Err(_)));
    }
}

#[tokio::test]
async fn a_handshake_has_its_time_and_so_has_what_follows() {
    let (place, authority) = (Place::new(), Authority::new());
    place.put_pair(&authority.issue("jitney.test"));
    let settings = RawServer {
        read_timeout_ms: Some("50".to_owned()),
        security: RawSecurity {
            handshake_timeout_ms: Some("3000".to_owned()),
            ..place.tls()
        },
        ..RawServer::default()
    };
    let server = Node::server(&place.repository.path(), settings).await;
    let mut silent = TcpStream::connect(server.address()).await.unwrap();
    let mut said = Vec::new();
    let _ = within("a handshake's time is over", silent.read_to_end(&mut said)).await;
    let mut polite = handshake(server.address(), &authority.connector(None))
        .await
        .unwrap();
    let _ = within("a greeting's time is over", polite.read_to_end(&mut said)).await;
}
