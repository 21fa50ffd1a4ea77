//! The console's documents: what they say is what was done.

use std::fs;

use jitney::config::RawServer;
use jitney::proto::infer_parameter::ParameterChoice;
use serde_json::{Value, json};
use tonic::Code;

use super::http::{Wire, get};
use super::node::{Node, within};
use super::occupant::{Occupant, enqueue};
use super::repository::{Repository, Simulated};
use super::request::{rows, with_parameter};

/// The status and the JSON at a path below the console's.
async fn look(node: &Node, path: &str) -> (u16, Value) {
    let mut wire = Wire::to(node.server.http_address().unwrap()).await;
    let asked = format!("GET /console/{path} HTTP/1.1\r\nhost: jitney\r\n\r\n");
    let answer = wire.ask(asked).await;
    (answer.status, answer.json())
}

async fn told(node: &Node, path: &str) -> Value {
    let (status, told) = look(node, path).await;
    assert_eq!(status, 200, "{told}");
    told
}

fn list<'a>(told: &'a Value, key: &str) -> &'a [Value] {
    told[key]
        .as_array()
        .unwrap_or_else(|| panic!("{key}: {told}"))
}

fn number(told: &Value) -> f64 {
    told.as_f64().unwrap_or_else(|| panic!("{told}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decisions_say_who_left_with_whom_and_why() {
    let repository = Repository::of("max_batch_size = 4\npriority_levels = 3", "fixed_ms = 1000");
    repository.simulate("other", Simulated::default());
    let node = Node::start(&repository.path()).await;
    let hour = ParameterChoice::Int64Param(3_600_000_000);
    let patient = with_parameter(rows("other", 0, 1), "timeout", hour);
    node.infer(patient).await.unwrap();
    let occupant = Occupant::of(&node, "m", 4).await;
    let waiting = enqueue(&node, (0..3).map(|seed| rows("m", seed, 1))).await;
    occupant.leaves().await;
    for (_, answer) in waiting.join_all().await {
        answer.unwrap();
    }
    let all = told(&node, "decisions?last=1000").await;
    let [last, full, first, other] = list(&all, "decisions") else {
        panic!("{all}");
    };
    assert_eq!(other["model"], "other");
    for (batch, number, reason, rows, stayed) in [(last, 3, "free", 3, 0), (full, 2, "full", 4, 3)]
    {
        let said = [
            &batch["model"],
            &batch["version"],
            &batch["number"],
            &batch["reason"],
            &batch["rows"],
            &batch["stayed"],
            &batch["failed"],
            &batch["device"],
        ];
        let expected = json!(["m", 1, number, reason, rows, stayed, null, "cpu"]);
        assert_eq!(json!(said), expected);
        assert!(number_at_least(&batch["execute_ms"], 1000.0), "{batch}");
        let parts = ["stack_ms", "execute_ms", "slice_ms"].map(|part| number_of(batch, part));
        let sum: f64 = parts.iter().sum();
        assert!((sum - number_of(batch, "total_ms")).abs() < 1e-3, "{batch}");
    }
    assert_eq!(first["number"], 1);
    assert!(number_of(full, "left_unix_ms") < number_of(last, "left_unix_ms"));
    // The default priority is the lowest that there is.
    let member = |batch: &Value, key: &str| batch["members"][0][key].clone();
    assert_eq!(list(last, "members").len(), 3);
    assert_eq!(member(last, "rows"), 1);
    assert_eq!(member(last, "priority"), 3);
    assert_eq!(member(last, "slack_ms"), Value::Null);
    // An hour of patience, less the time on the way and in the queue.
    let slack = number(&member(other, "slack_ms"));
    assert!((3_500_000.0..=3_600_000.0).contains(&slack), "{other}");
    // The second batch waited while the first ran.
    assert!(number(&member(full, "waited_ms")) > 0.0);

    let of_other = told(&node, "decisions?model=other").await;
    assert_eq!(list(&of_other, "decisions").len(), 1);
    let one = told(&node, "decisions?last=1").await;
    assert_eq!(one["decisions"][0]["number"], 3);
    assert_eq!(list(&one, "decisions").len(), 1);

    let state = told(&node, "state?model=m&points=false").await;
    let [model] = list(&state, "models") else {
        panic!("{state}");
    };
    let buckets: Vec<_> = list(model, "batch_rows")
        .iter()
        .map(|bucket| (number(&bucket["up_to"]), number(&bucket["total"])))
        .collect();
    assert_eq!(buckets, [(1.0, 0.0), (2.0, 0.0), (4.0, 3.0)]);
    assert_eq!(model["padding_ratio"][0]["total"], 3);
    assert_eq!(model["total"]["rows"], 11);
    assert_eq!(model["total"]["batches"], 3);
    assert_eq!(model.get("points"), None);
}

fn number_at_least(told: &Value, least: f64) -> bool {
    number(told) >= least
}

fn number_of(told: &Value, key: &str) -> f64 {
    number(&told[key])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_request_is_told_with_its_stages_and_what_was_decided_around_it() {
    let repository = Repository::of("latency_objective_ms = 20", "fixed_ms = 50");
    let patient = Simulated {
        policy: "latency_objective_ms = 60000",
        simulated: "fixed_ms = 50",
        ..Simulated::default()
    };
    repository.simulate("patient", patient);
    let folder = repository.beside("breaches");
    let settings = RawServer {
        breach_dir: Some(folder.clone()),
        ..RawServer::default()
    };
    let node = Node::with(&repository.path(), settings).await;
    node.infer(rows("patient", 0, 1)).await.unwrap();
    let id = format!("<b>{}", "x".repeat(1000));
    let mut request = rows("m", 0, 2);
    request.id.clone_from(&id);
    node.infer(request).await.unwrap();

    let slow = told(&node, "slow").await;
    let [slow] = list(&slow, "requests") else {
        panic!("{slow}");
    };
    assert_eq!(slow["id"], id[..128]);
    let said = [
        &slow["model"],
        &slow["version"],
        &slow["code"],
        &slow["rows"],
    ];
    assert_eq!(json!(said), json!(["m", 1, "OK", 2]));
    assert_eq!(slow["objective_ms"], 20.0);
    let stages = list(slow, "stages");
    let names: Vec<&str> = stages
        .iter()
        .map(|stage| stage["stage"].as_str().unwrap())
        .collect();
    let expected = [
        "decode", "queue", "stack", "execute", "slice", "deliver", "encode",
    ];
    assert_eq!(names, expected);
    assert!(number(&stages[3]["duration_ms"]) >= 50.0);
    // One stage begins where the last ended, and together they are the whole.
    let mut end = 0.0;
    for stage in stages {
        assert!((number_of(stage, "start_ms") - end).abs() < 1e-3, "{slow}");
        end += number_of(stage, "duration_ms");
    }
    assert!((end - number_of(slow, "total_ms")).abs() < 1e-3, "{slow}");
    assert_eq!(slow["batch"]["number"], 1);

    let breach = within("a breach", async {
        loop {
            let kept = told(&node, "breaches").await;
            if let [breach] = list(&kept, "breaches") {
                return breach.clone();
            }
        }
    })
    .await;
    assert_eq!(breach["request"]["id"], slow["id"]);
    let models: Vec<_> = list(&breach, "decisions")
        .iter()
        .map(|one| &one["model"])
        .collect();
    assert_eq!(models, ["m", "patient"]);
    let file = within("its file", async {
        loop {
            let found = fs::read_dir(&folder).into_iter().flatten().flatten();
            let mut whole = found.map(|entry| entry.path());
            let whole = whole.find(|path| {
                !path
                    .file_name()
                    .unwrap()
                    .as_encoded_bytes()
                    .starts_with(b".")
            });
            match whole {
                Some(path) => return path,
                None => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    let written: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    assert_eq!(written, breach);
    let none = told(&node, "breaches?model=patient").await;
    assert_eq!(list(&none, "breaches"), [] as [Value; 0]);
    let none = told(&node, "slow?model=patient").await;
    assert_eq!(list(&none, "requests"), [] as [Value; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_is_told_with_its_batch() {
    let repository = Repository::of("", "fail_every = 1");
    let node = Node::start(&repository.path()).await;
    let refused = node.infer(rows("m", 0, 1)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Internal);
    let slow = told(&node, "slow").await;
    assert_eq!(slow["requests"][0]["code"], "INTERNAL");
    let decided = told(&node, "decisions").await;
    assert_eq!(decided["decisions"][0]["failed"], "INTERNAL");
    let state = told(&node, "state").await;
    assert_eq!(
        state["models"][0]["total"]["errors"],
        json!({"INTERNAL": 1})
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_state_has_every_model_and_how_it_stands() {
    let repository = Repository::of("latency_objective_ms = 70\nmax_queue_size = 9", "");
    repository.add_file("broken", 2, b"no model");
    repository.add("tiny_mlp", 1);
    let node = Node::start(&repository.path()).await;
    let state = told(&node, "state").await;
    let [broken, m, tiny] = list(&state, "models") else {
        panic!("{state}");
    };
    let said = [&broken["model"], &broken["version"], &broken["state"]];
    assert_eq!(json!(said), json!(["broken", 2, "UNAVAILABLE"]));
    assert!(
        broken["reason"].as_str().unwrap().contains("model.onnx"),
        "{broken}"
    );
    assert_eq!(broken.get("inputs"), None);
    assert_eq!(json!([&m["state"], &m["reason"]]), json!(["READY", ""]));
    assert_eq!(
        json!([&m["objective_ms"], &m["queue_limit"]]),
        json!([70.0, 9])
    );
    assert_eq!(
        json!([&m["devices"], &m["executors_alive"]]),
        json!([["cpu"], 1])
    );
    assert_eq!(m["batching"], json!({"max_batch_size": 32, "alone": null}));
    let input = &tiny["inputs"][0];
    assert_eq!(
        json!([&input["datatype"], &input["shape"]]),
        json!(["FP32", [-1, 16]])
    );
    assert_eq!(tiny["total"]["requests"], 0);
    let server = &state["server"];
    assert_eq!(
        json!([&server["name"], &server["ready"], &server["controls"]]),
        json!(["triton", false, false])
    );
    assert_eq!(server["grpc_port"], node.server.address().port());
    let cpu = &state["devices"][0];
    assert_eq!(cpu["device"], "cpu");
    assert!(number(&cpu["total_bytes"]) > number(&cpu["free_bytes"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn points_and_rates_follow_what_runs() {
    let repository = Repository::of("", "");
    let node = Node::start(&repository.path()).await;
    // What came before the first look is not known to be of late.
    model_until(&node, |model| !list(model, "points").is_empty()).await;
    for seed in 0..8 {
        node.infer(rows("m", seed, 2)).await.unwrap();
    }
    let more_than_none = |point: &Value, rate: &str| number_of(point, rate) > 0.0;
    let busy = |point: &Value| {
        more_than_none(point, "requests_per_second") && more_than_none(point, "rows_per_second")
    };
    let model = model_until(&node, |model| list(model, "points").iter().any(busy)).await;
    let point = list(&model, "points").iter().find(|point| busy(point));
    let point = point.unwrap();
    assert!(number_of(point, "p50_ms") <= number_of(point, "p99_ms"));
    let recent = &model["recent"];
    let seconds = number_of(recent, "window_ms") / 1e3;
    for (rate, count) in [("requests_per_second", 8.0), ("rows_per_second", 16.0)] {
        let found = number_of(recent, rate) * seconds;
        assert!((found - count).abs() < 1e-6, "{rate}: {recent}");
    }
}

/// What is told of the one model, once it is so.
async fn model_until(node: &Node, holds: impl Fn(&Value) -> bool) -> Value {
    within("the model's state", async {
        loop {
            let state = told(node, "state").await;
            let model = &state["models"][0];
            if holds(model) {
                return model.clone();
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_is_still_looked_at() {
    let repository = Repository::of("max_batch_size = 1", "");
    let settings = RawServer {
        max_requests: Some("2".to_owned()),
        ..RawServer::default()
    };
    let node = Node::with(&repository.path(), settings).await;
    let _occupant = Occupant::with_deadlines(&node, "m", 1).await;
    let refused = node.infer(rows("m", 0, 1)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let state = told(&node, "state").await;
    let held = &state["in_flight"];
    assert_eq!(json!([&held["calls"], &held["most_calls"]]), json!([2, 2]));
    assert_eq!(state["models"][0]["queue_depth"], 1);
    // What is no look is a call as any other.
    let mut wire = Wire::to(node.server.http_address().unwrap()).await;
    let post = "POST /console/state HTTP/1.1\r\nhost: jitney\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(wire.ask(post).await.status, 429);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_asks_nobody_else_and_everything_of_it_is_there() {
    let repository = Repository::of("", "");
    let node = Node::start(&repository.path()).await;
    let mut wire = Wire::to(node.server.http_address().unwrap()).await;
    let page = wire.ask(get("/console")).await;
    assert_eq!(page.status, 200);
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    let policy = page.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'; script-src 'self';"),
        "{policy}"
    );
    assert!(!policy.contains("unsafe"), "{policy}");
    let mut files = vec![page];
    let mut known = Vec::new();
    while let Some(file) = files.pop() {
        let text = String::from_utf8(file.body).unwrap();
        assert!(
            !text.contains("://") || text.contains("www.w3.org/2000/svg"),
            "{text}"
        );
        assert!(!text.contains("innerHTML"), "{text}");
        // What is named in quotes: beside the page, or beside another script.
        for name in text
            .split('"')
            .filter(|name| name.ends_with(".js") || name.ends_with(".css"))
        {
            let name = name.rsplit('/').next().unwrap().to_owned();
            if !known.contains(&name) {
                let file = wire.ask(get(&format!("/console/{name}"))).await;
                assert_eq!(file.status, 200, "{name}");
                assert_eq!(file.header("x-content-type-options"), Some("nosniff"));
                known.push(name);
                files.push(file);
            }
        }
    }
    assert_eq!(known.len(), 7, "{known:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn examples_are_of_the_request_that_is_shown() {
    let repository = Repository::new();
    repository.add("tiny_mlp", 1);
    let node = Node::start(&repository.path()).await;
    let first = told(&node, "example?model=tiny_mlp").await;
    let input = &first["request"]["inputs"][0];
    assert_eq!(
        json!([&input["datatype"], &input["shape"]]),
        json!(["FP32", [1, 16]])
    );
    assert_eq!(input["data"], json!(vec![1; 16]));
    let grpc = format!("127.0.0.1:{}", node.server.address().port());
    let grpcurl = first["grpcurl"].as_str().unwrap();
    assert!(
        grpcurl.starts_with(
            "grpcurl -plaintext -d '{\"model_name\":\"tiny_mlp\",\"inputs\":[{\"name\""
        ),
        "{grpcurl}"
    );
    assert!(
        grpcurl.ends_with(" inference.GRPCInferenceService/ModelInfer"),
        "{grpcurl}"
    );
    let path = "/console/example?model=tiny_mlp&version=1";
    let body = json!({"id": "a'b", "inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [2.5]}]});
    let mut wire = Wire::to(node.server.address()).await;
    let host = format!("host: {grpc}");
    let answer = wire.ask(post_to(path, &host, &body.to_string())).await;
    let said = answer.json();
    assert_eq!(said["request"], body);
    let expected = format!(
        "curl -s http://{grpc}/v2/models/tiny_mlp/versions/1/infer -d \
         '{{\"id\":\"a'\\''b\",\"inputs\":[{{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1],\"data\":[2.5]}}]}}'"
    );
    assert_eq!(said["curl"], expected);
    // What is no name of a host gets into no line for a shell.
    let answer = wire
        .ask(post_to(path, "host: $(reboot)", &body.to_string()))
        .await;
    assert!(
        answer.status == 400
            || answer.json()["curl"]
                .as_str()
                .unwrap()
                .starts_with("curl -s http://localhost/")
    );
    let mut wire = Wire::to(node.server.address()).await;
    for (body, status) in [
        ("{".to_owned(), 400),
        ("[".repeat(1_000), 400),
        (" ".repeat(70_000), 413),
    ] {
        assert_eq!(wire.ask(post_to(path, &host, &body)).await.status, status);
    }
    let nowhere = look(&node, "example?model=nowhere").await;
    assert_eq!(nowhere.0, 404);
}

fn post_to(path: &str, host: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\n{host}\r\ncontent-length: {length}\r\n\r\n{body}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_wrongly_is_told() {
    let repository = Repository::of("", "");
    let node = Node::start(&repository.path()).await;
    for (path, status, said) in [
        ("state?model=nowhere", 404, "unknown model"),
        ("decisions?model=nowhere", 404, "unknown model"),
        ("decisions?last=x", 400, "last: found \"x\""),
        ("slow?points=true", 400, "there are model, last"),
        ("nothing", 404, "no route"),
    ] {
        let (found, told) = look(&node, path).await;
        assert_eq!(found, status, "{path}: {told}");
        assert!(told["error"].as_str().unwrap().contains(said), "{told}");
    }
    let settings = RawServer {
        console: Some("off".to_owned()),
        ..RawServer::default()
    };
    let without = Node::with(&repository.path(), settings).await;
    for path in ["state", "slow", "decisions", "breaches"] {
        assert_eq!(look(&without, path).await.0, 404);
    }
}
