//! Who gets in: tokens and roles, pages of other servers, and limits of clients.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use jitney::config::{RawSecurity, RawServer};
use jitney::server::Server;
use tonic::transport::Endpoint;
use tonic::{Code, Request};

use super::authority::Authority;
use super::http::Wire;
use super::node::{Client, HANG, Node, within};
use super::place::Place;
use super::request::rows;

fn tokens(place: &Place) -> PathBuf {
    let mut file = String::new();
    for role in ["infer", "observe", "operate"] {
        let digest = ring::digest::digest(&ring::digest::SHA256, role.as_bytes());
        let hex: String = digest
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        file +=
            &format!("[[tokens]]\nname = \"{role}\"\nroles = [\"{role}\"]\nsha256 = \"{hex}\"\n");
    }
    place.put("identity.toml", &file)
}

/// Asks over plain HTTP/1.1; gives the status.
async fn ask(address: SocketAddr, head: &str, headers: &str) -> (u16, Option<String>) {
    let mut wire = Wire::to(address).await;
    let length = if head.starts_with("POST") {
        "content-length: 0\r\n"
    } else {
        ""
    };
    wire.send(format!(
        "{head} HTTP/1.1\r\nhost: 127.0.0.1\r\n{length}{headers}\r\n"
    ))
    .await;
    let answer = wire.answer().await;
    (
        answer.status,
        answer.header("www-authenticate").map(str::to_owned),
    )
}

#[tokio::test]
async fn each_role_has_its_own_calls_over_rest() {
    let place = Place::new();
    let server = place
        .server(RawSecurity {
            identity: Some(tokens(&place)),
            ..RawSecurity::default()
        })
        .await;
    let address = server.http_address().unwrap();
    // What each answers to nobody, and to whoever infers, observes, operates.
    for (head, expected) in [
        ("GET /v2/health/ready", [200, 200, 200, 200]),
        ("GET /v2/models/m/ready", [200, 200, 200, 200]),
        ("GET /v2/models/m", [401, 200, 200, 200]),
        ("GET /v2", [401, 200, 200, 200]),
        ("POST /v2/models/m/infer", [401, 400, 403, 403]),
        ("GET /v2/models/m/config", [401, 403, 200, 403]),
        ("GET /v2/models/stats", [401, 403, 200, 403]),
        ("GET /metrics", [401, 403, 200, 403]),
        ("GET /console", [401, 403, 200, 403]),
        ("GET /console/state", [401, 403, 200, 403]),
        ("POST /v2/repository/index", [401, 403, 200, 403]),
        ("GET /v2/trace/setting", [401, 403, 200, 403]),
        ("POST /v2/trace/setting", [401, 403, 403, 200]),
        ("POST /v2/repository/models/none/load", [401, 403, 403, 404]),
        ("POST /console/profile", [401, 403, 403, 400]),
        ("GET /nowhere", [401, 403, 403, 404]),
        ("PUT /v2/health/live", [401, 403, 403, 405]),
    ] {
        for (role, expected) in ["", "infer", "observe", "operate"]
            .into_iter()
            .zip(expected)
        {
            let header = match role {
                "" => String::new(),
                role => format!("authorization: Bearer {role}\r\n"),
            };
            let (status, challenge) = ask(address, head, &header).await;
            assert_eq!(status, expected, "{head} of {role:?}");
            assert_eq!(challenge.is_some(), status == 401, "{head} of {role:?}");
        }
    }
    let (status, challenge) = ask(address, "GET /v2", "x-api-key: wrong\r\n").await;
    assert_eq!(
        (status, challenge.as_deref()),
        (401, Some("Bearer realm=\"jitney\""))
    );
    let (_, challenge) = ask(address, "GET /console", "").await;
    assert!(challenge.unwrap().starts_with("Basic"));
}

/// Nobody who may only look changes anything, by whatever a request for it carries.
async fn assert_bodies_of_looks_are_not_read(address: SocketAddr, headers: &str) {
    for path in [
        "/v2/logging",
        "/v2/trace/setting",
        "/v2/models/m/trace/setting",
    ] {
        let answer = async |method: &str, body: &str| {
            let mut wire = Wire::to(address).await;
            let length = body.len();
            wire.send(format!(
                "{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
            ))
            .await;
            match method {
                "HEAD" => wire.answer_without_body().await,
                _ => wire.answer().await,
            }
        };
        // A change of what there is none of would be refused.
        let changes = "{\"nonsense\": []}";
        let plain = answer("GET", "").await;
        let laden = answer("GET", changes).await;
        assert_eq!(
            (laden.status, laden.json()),
            (plain.status, plain.json()),
            "{path}"
        );
        assert_eq!(answer("HEAD", changes).await.status, plain.status, "{path}");
    }
}

#[tokio::test]
async fn whoever_may_look_changes_nothing_by_a_body() {
    let place = Place::new();
    let server = place
        .server(RawSecurity {
            identity: Some(tokens(&place)),
            ..RawSecurity::default()
        })
        .await;
    let address = server.http_address().unwrap();
    assert_bodies_of_looks_are_not_read(address, "x-api-key: observe\r\n").await;
}

#[tokio::test]
async fn health_tells_strangers_no_names_and_no_reasons() {
    let place = Place::new();
    place.repository.configure("secret", "nonsense = 1\n");
    let settings = |security| RawServer {
        security,
        ..RawServer::default()
    };
    let known = settings(RawSecurity {
        identity: Some(tokens(&place)),
        ..RawSecurity::default()
    });
    let server = Node::server(&place.repository.path(), known).await;
    let get = async |server: &Server, path: &str| {
        let mut wire = Wire::to(server.http_address().unwrap()).await;
        let answer = wire.ask(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n"));
        let answer = answer.await;
        (answer.status, answer.json())
    };
    for (path, status, told) in [
        (
            "/v2/models/nowhere/ready",
            404,
            "there is no such model or version",
        ),
        (
            "/v2/models/m/versions/7/ready",
            404,
            "there is no such model or version",
        ),
        ("/v2/models/secret/ready", 503, "UNAVAILABLE"),
        (
            "/v2/health/ready",
            503,
            "models and versions that do not serve: 1",
        ),
    ] {
        let (found, said) = get(&server, path).await;
        let key = if found == 404 { "error" } else { "reason" };
        assert_eq!(
            (found, said[key].as_str()),
            (status, Some(told)),
            "{path}: {said}"
        );
    }
    // Where nobody has to be known, all of it can be asked for anyway.
    let open = settings(RawSecurity::default());
    let server = Node::server(&place.repository.path(), open).await;
    for path in [
        "/v2/models/nowhere/ready",
        "/v2/models/secret/ready",
        "/v2/health/ready",
    ] {
        let (_, said) = get(&server, path).await;
        assert!(said.to_string().contains("secret"), "{path}: {said}");
    }
}

#[tokio::test]
async fn who_is_known_may_change_while_the_server_runs() {
    let place = Place::new();
    let file = tokens(&place);
    let server = place
        .server(RawSecurity {
            identity: Some(file.clone()),
            ..RawSecurity::default()
        })
        .await;
    let address = server.http_address().unwrap();
    let status = async |token: &str| {
        ask(address, "GET /v2", &format!("x-api-key: {token}\r\n"))
            .await
            .0
    };
    assert_eq!(status("infer").await, 200);
    let known = std::fs::read_to_string(&file).unwrap();
    let (_, others) = known.split_once("[[tokens]]\nname = \"observe\"").unwrap();
    place.put(
        "identity.toml",
        &format!("[[tokens]]\nname = \"observe\"{others}"),
    );
    within("a token that was taken away", async {
        while status("infer").await != 401 {}
    })
    .await;
    assert_eq!(status("observe").await, 200);
}

#[tokio::test]
async fn every_kind_of_grpc_is_told_what_it_lacks() {
    let place = Place::new();
    let node = Node::with(
        &place.repository.path(),
        RawServer {
            security: RawSecurity {
                identity: Some(tokens(&place)),
                ..RawSecurity::default()
            },
            ..RawServer::default()
        },
    )
    .await;
    let with = |token: &str| {
        let mut request = Request::new(rows("m", 1, 1));
        let bearer = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", bearer);
        request
    };
    let mut client = node.client();
    let error = client.model_infer(rows("m", 1, 1)).await.unwrap_err();
    assert_eq!(error.code(), Code::Unauthenticated);
    assert!(
        error.message().contains("authorization: Bearer TOKEN"),
        "{error}"
    );
    assert!(error.metadata().contains_key("www-authenticate"));
    let error = client.model_infer(with("observe")).await.unwrap_err();
    assert_eq!(error.code(), Code::PermissionDenied);
    assert!(
        error.message().contains("lacks the role \"infer\""),
        "{error}"
    );
    assert!(client.model_infer(with("infer")).await.is_ok());
    assert!(node.is_ready("m", "").await);
    // gRPC-Web and reflection, by their status in the head.
    for (path, content) in [
        (
            "/inference.GRPCInferenceService/ModelInfer",
            "application/grpc-web+proto",
        ),
        (
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "application/grpc",
        ),
    ] {
        let request = http::Request::post(path).header("content-type", content);
        let answer = node.ask(request, Vec::new()).await;
        assert_eq!(answer.headers()["grpc-status"], "16", "{path}");
    }
}

#[tokio::test]
async fn a_page_of_another_server_cannot_unload_a_model() {
    let place = Place::new();
    let server = place.server(RawSecurity::default()).await;
    let address = server.http_address().unwrap();
    let foreign = "origin: https://evil.example\r\n";
    for path in [
        "/v2/repository/models/m/unload",
        "/v2/models/m/infer",
        "/console/profile",
        "/inference.GRPCInferenceService/RepositoryModelUnload",
    ] {
        for kind in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/json",
        ] {
            let headers = format!("{foreign}content-type: {kind}\r\n");
            let mut wire = Wire::to(address).await;
            let head = format!(
                "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 0\r\n{headers}\r\n"
            );
            wire.send(head).await;
            let answer = wire.answer().await;
            // gRPC's statuses are in a header.
            let code = answer.header("grpc-status").unwrap_or("none");
            assert!(
                answer.status == 403 || code == "7",
                "{path} {kind}: {answer:?}"
            );
        }
    }
    let (status, _) = ask(address, "POST /v2/repository/models/m/unload", "").await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn beyond_the_machine_nobody_controls_who_is_not_known() {
    let place = Place::new();
    let open = |security| RawServer {
        model_control: Some("explicit".to_owned()),
        load_model: vec!["m".to_owned()],
        http_address: Some("0.0.0.0:0".to_owned()),
        security,
        ..RawServer::default()
    };
    let reach = |server: &Server| {
        let port = server.http_address().unwrap().port();
        SocketAddr::from(([127, 0, 0, 1], port))
    };
    let unload = "POST /v2/repository/models/m/unload";
    let server = Node::server(&place.repository.path(), open(RawSecurity::default())).await;
    let address = reach(&server);
    for (head, expected) in [
        ("GET /v2/models/m", 200),
        ("GET /v2/trace/setting", 200),
        (unload, 403),
        ("POST /v2/trace/setting", 403),
        ("POST /console/profile", 403),
        ("POST /v2/systemsharedmemory/region/a/register", 403),
        ("POST /nowhere", 404),
    ] {
        assert_eq!(ask(address, head, "").await.0, expected, "{head}");
    }
    assert_bodies_of_looks_are_not_read(address, "").await;
    // Its other port is of this machine alone.
    let channel = Endpoint::from_shared(format!("http://{}", server.address())).unwrap();
    let mut local = Client::new(channel.connect().await.unwrap());
    let request = jitney::proto::RepositoryModelUnloadRequest {
        model_name: "m".to_owned(),
        ..Default::default()
    };
    assert!(local.repository_model_unload(request).await.is_ok());

    let allowed = RawSecurity {
        open_control: Some("true".to_owned()),
        ..RawSecurity::default()
    };
    let server = Node::server(&place.repository.path(), open(allowed)).await;
    assert_eq!(ask(reach(&server), unload, "").await.0, 200);
}

#[tokio::test]
async fn each_client_has_its_own_limits() {
    let place = Place::new();
    let node = Node::with(
        &place.repository.path(),
        RawServer {
            security: RawSecurity {
                identity: Some(tokens(&place)),
                // One more comes within a quarter of an hour.
                client_rate: Some("0.001".to_owned()),
                client_burst: Some("3".to_owned()),
                ..RawSecurity::default()
            },
            ..RawServer::default()
        },
    )
    .await;
    let address = node.server.http_address().unwrap();
    let get = async |token: &str| {
        let mut wire = Wire::to(address).await;
        let head = format!("GET /v2 HTTP/1.1\r\nhost: x\r\nx-api-key: {token}\r\n\r\n");
        wire.send(head).await;
        wire.answer().await
    };
    for _ in 0..3 {
        assert_eq!(get("infer").await.status, 200);
    }
    let refused = get("infer").await;
    assert_eq!(refused.status, 429);
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((900..=1_000).contains(&wait), "{wait}");
    assert!(
        refused.error().contains("client_rate"),
        "{}",
        refused.error()
    );
    // Others are not concerned, and probes are not counted.
    assert_eq!(get("observe").await.status, 200);
    assert_eq!(
        ask(address, "GET /v2/health/live", "x-api-key: infer\r\n")
            .await
            .0,
        200
    );
    // Of a stream, itself and each request.
    let mut request = Request::new(tokio_stream::iter(vec![rows("m", 1, 1); 4]));
    request
        .metadata_mut()
        .insert("x-api-key", "operate".parse().unwrap());
    assert_eq!(
        node.client()
            .model_stream_infer(request)
            .await
            .unwrap_err()
            .code(),
        Code::PermissionDenied
    );
    let metrics = {
        let mut wire = Wire::to(address).await;
        wire.send("GET /metrics HTTP/1.1\r\nhost: x\r\nx-api-key: observe\r\n\r\n")
            .await;
        String::from_utf8(wire.answer().await.body).unwrap()
    };
    for line in [
        "jitney_calls_refused_total{reason=\"client_rate\"} 1",
        "jitney_calls_refused_total{reason=\"denied\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
}

#[tokio::test]
async fn of_a_stream_each_request_counts_and_a_place_lasts_until_the_answer() {
    let place = Place::new();
    let node = Node::with(
        &place.repository.path(),
        RawServer {
            security: RawSecurity {
                client_rate: Some("0.001".to_owned()),
                client_burst: Some("4".to_owned()),
                client_concurrency: Some("1".to_owned()),
                ..RawSecurity::default()
            },
            ..RawServer::default()
        },
    )
    .await;
    let (sender, requests) = tokio::sync::mpsc::channel(8);
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    sender.send(rows("m", 1, 1)).await.unwrap();
    let mut client = node.client();
    let mut answers = client
        .model_stream_infer(requests)
        .await
        .unwrap()
        .into_inner();
    let answer = within("an answer", answers.message())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(answer.error_message, "");
    // The stream goes on, and is the one request that this address may have.
    let error = node.infer(rows("m", 1, 1)).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert!(error.message().contains("client_concurrency"), "{error}");
    // The stream itself and three requests.
    for expected in [true, true, false] {
        sender.send(rows("m", 1, 1)).await.unwrap();
        let answer = within("an answer", answers.message())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            answer.error_message.is_empty(),
            expected,
            "{}",
            answer.error_message
        );
    }
    drop(sender);
    assert!(
        within("the end", answers.message())
            .await
            .unwrap()
            .is_none()
    );
    drop(answers);
    let exhausted = tokio::time::timeout(HANG, async {
        loop {
            let error = node.infer(rows("m", 1, 1)).await.unwrap_err();
            if error.message().contains("client_rate") {
                return;
            }
        }
    });
    exhausted.await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_read_is_told_at_start() {
    let place = Place::new();
    let authority = Authority::new();
    place.put_pair(&authority.issue("jitney.test"));
    let start = async |security: RawSecurity| {
        let settings = RawServer {
            repository: Some(place.repository.path()),
            onnxruntime: std::env::var_os("JITNEY_ONNXRUNTIME").map(PathBuf::from),
            grpc_address: Some("127.0.0.1:0".to_owned()),
            http_address: Some("off".to_owned()),
            metrics_address: Some("off".to_owned()),
            security,
            ..RawServer::default()
        };
        Server::start(settings.resolve().unwrap())
            .await
            .unwrap_err()
            .to_string()
    };
    let missing = RawSecurity {
        tls_key: Some(Path::new("/nowhere/tls.key").to_owned()),
        ..place.tls()
    };
    assert!(start(missing).await.contains("/nowhere/tls.key"));
    let foreign = RawSecurity {
        tls_key: Some(place.put("other.key", &authority.issue("x.test").key)),
        ..place.tls()
    };
    assert!(start(foreign).await.contains("other.key"));
    let names = "[[certificates]]\nname = \"a\"\nsan = \"a\"\nroles = []\n";
    let unasked = RawSecurity {
        identity: Some(place.put("identity.toml", names)),
        ..place.tls()
    };
    assert!(start(unasked).await.contains("only tls_client_ca asks"));
    let wrong = RawSecurity {
        identity: Some(place.put("identity.toml", "[[tokens]]\nname = 1")),
        ..RawSecurity::default()
    };
    assert!(
        start(wrong)
            .await
            .contains("identity.toml:2: tokens[0].name")
    );
}
