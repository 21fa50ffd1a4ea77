//! Over HTTP, against a server that answers what it was asked, doubled.

use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use jitney_load::Session;
use jitney_load::report::{Report, Verdict};
use jitney_load::scenario::{Server, read_scenario};
use serde_json::{Value, json};
use tokio::net::TcpListener;

const LENGTH: &str = "inference-header-content-length";

/// What the server doubles by; requests whose id is a multiple of the second number are refused.
#[derive(Clone, Copy)]
pub(crate) struct Doubler {
    pub(crate) factor: f32,
    pub(crate) refuses: Option<u64>,
}

pub(crate) async fn start(doubler: Doubler) -> String {
    let about = || async { Json(json!({ "name": "doubler", "version": "1" })) };
    let tensor = |name: &str| json!([{ "name": name, "datatype": "FP32", "shape": [-1, 3] }]);
    let model = Json(json!({ "name": "a b", "inputs": tensor("x"), "outputs": tensor("y") }));
    let metadata = get(move || async { model });
    let routes = Router::new()
        .route("/v2", get(about))
        .route("/v2/models/{model}", metadata.clone())
        .route("/v2/models/{model}/versions/{version}", metadata)
        .route("/v2/models/{model}/versions/{version}/infer", post(infer))
        .route("/v2/models/{model}/infer", post(infer))
        .with_state(doubler);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async { axum::serve(listener, routes).await });
    address
}

async fn infer(State(doubler): State<Doubler>, headers: HeaderMap, body: Bytes) -> Response {
    let length = headers.get(LENGTH);
    let length = length.map(|length| length.to_str().unwrap().parse().unwrap());
    let (document, tensors) = body.split_at(length.unwrap_or(body.len()));
    let document: Value = serde_json::from_slice(document).unwrap();
    let id: u64 = document["id"].as_str().unwrap().parse().unwrap();
    if doubler
        .refuses
        .is_some_and(|refuses| id.is_multiple_of(refuses))
    {
        return (
            StatusCode::TOO_MANY_REQUESTS,
            Json(json!({ "error": "full" })),
        )
            .into_response();
    }
    let input = &document["inputs"][0];
    let mut output = json!({ "name": "y", "datatype": "FP32", "shape": input["shape"] });
    let answer =
        |output: Value| json!({ "model_name": "a b", "id": id.to_string(), "outputs": [output] });
    if length.is_none() {
        let data = input["data"].as_array().unwrap().iter();
        let doubled = data.map(|one| one.as_f64().unwrap() as f32 * doubler.factor);
        output["data"] = json!(doubled.collect::<Vec<_>>());
        return Json(answer(output)).into_response();
    }
    assert_eq!(
        input["parameters"]["binary_data_size"],
        json!(tensors.len())
    );
    assert_eq!(document["parameters"]["binary_data_output"], json!(true));
    let numbers = tensors.as_chunks::<4>().0.iter();
    let doubled = numbers.flat_map(|one| (f32::from_le_bytes(*one) * doubler.factor).to_le_bytes());
    let doubled: Vec<u8> = doubled.collect();
    output["parameters"] = json!({ "binary_data_size": doubled.len() });
    let mut whole = answer(output).to_string().into_bytes();
    let length = whole.len().to_string();
    whole.extend(doubled);
    ([(LENGTH, length)], whole).into_response()
}

/// 200 requests of a row whose answers a file says.
async fn driven(protocol: &str, doubler: Doubler) -> Report {
    let folder = tempfile::tempdir().unwrap();
    let body = |what: &str, name: &str, data: [f32; 3]| {
        let tensor = json!({ "name": name, "datatype": "FP32", "shape": [1, 3], "data": data });
        std::fs::write(
            folder.path().join(format!("{what}.json")),
            json!({ what: [tensor] }).to_string(),
        )
        .unwrap();
    };
    body("inputs", "x", [0.5, -1.25, 3.0]);
    body("outputs", "y", [1.0, -2.5, 6.0]);
    let text = format!(
        "max_lag_ms = 10000\n[server]\nprotocol = \"{protocol}\"\n\
         [[requests]]\nmodel = \"a b\"\nfile = \"inputs.json\"\nexpected = \"outputs.json\"\n\
         [[requests]]\nmodel = \"a b\"\nversion = \"2\"\ncheck = {{}}\nrows = 5\n\
         [[steps]]\narrivals = \"constant\"\nrate = 200\nwarm_up_s = 0\nduration_s = 1"
    );
    let mut scenario = read_scenario(&folder.path().join("s.toml"), &text).unwrap();
    scenario.server = Server::At(start(doubler).await);
    let session = Session::open(scenario).await.unwrap();
    session.run("s.toml", |_| |_| {}).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_and_binary_bodies_are_understood() {
    for protocol in ["rest", "rest_json"] {
        let doubler = Doubler {
            factor: 2.0,
            refuses: None,
        };
        let report = driven(protocol, doubler).await;
        let outcomes = &report.steps[0].recording.outcomes;
        assert_eq!((outcomes.ok, outcomes.all()), (199, 199), "{protocol}");
        assert_eq!(report.verdict(), Verdict::Met);
        assert!(report.environment.server.ends_with("(doubler 1)"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_answers_and_refusals_are_told_apart_over_http() {
    for protocol in ["rest", "rest_json"] {
        let doubler = Doubler {
            factor: 2.5,
            refuses: Some(10),
        };
        // References are asked for by the id 0, which is refused.
        let text = format!(
            "[server]\nprotocol = \"{protocol}\"\n[[requests]]\nmodel = \"a b\"\ncheck = {{}}\n\
             [[steps]]\narrivals = \"constant\"\nrate = 200\nduration_s = 1"
        );
        let mut scenario = read_scenario(Path::new("s.toml"), &text).unwrap();
        scenario.server = Server::At(start(doubler).await);
        let error = Session::open(scenario.clone()).await.unwrap_err();
        assert!(
            format!("{error:#}").contains("ResourceExhausted"),
            "{error:#}"
        );
        scenario.requests[0].check = None;
        scenario.steps[0].warm_up = Duration::ZERO;
        scenario.max_lag = Duration::from_secs(10);
        let session = Session::open(scenario).await.unwrap();
        let report = session.run("s.toml", |_| |_| {}).await.unwrap();
        let outcomes = &report.steps[0].recording.outcomes;
        assert_eq!(outcomes.failed["RESOURCE_EXHAUSTED"], 20, "{outcomes:?}");
        assert_eq!(outcomes.ok, 179);
        // Where the right answer is known, a wrong one is.
        let doubler = Doubler {
            factor: 2.5,
            refuses: None,
        };
        let report = driven(protocol, doubler).await;
        let outcomes = &report.steps[0].recording.outcomes;
        assert!(outcomes.wrong > 50 && outcomes.ok > 50, "{outcomes:?}");
        assert_eq!(outcomes.wrong + outcomes.ok, 199);
        assert_eq!(report.verdict(), Verdict::Missed);
    }
}
