//! Ensembles: models that answer one request together, each through its own queue.

use jitney::config::RawServer;
use jitney::proto::infer_parameter::ParameterChoice;
use jitney::proto::model_repository_parameter;
use jitney::proto::{
    ModelInferRequest, ModelMetadataRequest, ModelRepositoryParameter, RepositoryModelUnloadRequest,
};
use tokio::task::JoinSet;
use tonic::Code;

use super::node::{Node, infer, until};
use super::occupant::{Gate, Occupant};
use super::repository::{Repository, Simulated};
use super::request::{assert_echo, bytes_of, floats, input, raw, rows, with_parameter};
use super::traffic::Traffic;

/// An ensemble that takes rows of numbers as `x` and gives them as `y`.
const TENSORS: &str = r#"
inputs = [{ name = "x", dtype = "FP32", shape = [-1, -1] }]
outputs = [{ name = "y", dtype = "FP32", shape = [-1, -1] }]
"#;

/// A step that takes and gives what simulated models do.
fn step(model: &str, takes: &str, gives: &str) -> String {
    format!(
        "[[ensemble.steps]]\nmodel = \"{model}\"\ninputs = {{ x = \"{takes}\" }}\n\
         outputs = {{ y = \"{gives}\" }}\n"
    )
}

fn ensemble(repository: &Repository, name: &str, keys: &str, steps: &[String]) {
    std::fs::create_dir_all(repository.folder(name).join("1")).unwrap();
    let text = format!("[ensemble]\n{keys}\n{TENSORS}\n{}", steps.concat());
    repository.configure(name, &text);
}

/// `both` is `one` and then `two`.
pub(crate) fn pair(repository: &Repository, keys: &str) {
    let steps = [step("one", "x", "between"), step("two", "between", "y")];
    ensemble(repository, "both", keys, &steps);
}

fn simulate(repository: &Repository, model: &str, policy: &str, simulated: &str) {
    let model_toml = Simulated {
        policy,
        simulated,
        ..Simulated::default()
    };
    repository.simulate(model, model_toml);
}

/// Both doubled and added up: `y = 4 x` and the sums of `x` and of `2 x`.
fn fan_out_and_in(repository: &Repository) {
    repository.add("variable_shape", 1);
    let steps = r#"
[[ensemble.steps]]
model = "variable_shape"
inputs = { x = "double" }
outputs = { y = "y", sum = "late" }
[[ensemble.steps]]
model = "variable_shape"
inputs = { x = "x" }
outputs = { y = "double", sum = "early" }
[[ensemble.steps]]
model = "add"
inputs = { a = "early", b = "late" }
outputs = { c = "sums", d = "also" }
"#;
    let tensors = r#"
inputs = [{ name = "x", dtype = "FP32", shape = [-1, -1] }]
outputs = [{ name = "y", dtype = "FP32", shape = [-1, -1] }, { name = "early", dtype = "FP32", shape = [-1] },
  { name = "sums", dtype = "FP32", shape = [-1] }, { name = "also", dtype = "FP32", shape = [-1] }]
"#;
    let pass = r#"
[warm_up]
runs = 0
[simulated]
inputs = [{ name = "a", dtype = "FP32", shape = [-1] }, { name = "b", dtype = "FP32", shape = [-1] }]
outputs = [{ name = "c", dtype = "FP32", shape = [-1] }, { name = "d", dtype = "FP32", shape = [-1] }]
"#;
    std::fs::create_dir_all(repository.folder("add").join("1")).unwrap();
    repository.configure("add", pass);
    std::fs::create_dir_all(repository.folder("graph").join("1")).unwrap();
    repository.configure("graph", &format!("[ensemble]\n{tensors}{steps}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_branches_and_joins_is_computed_once_and_right() {
    let repository = Repository::new();
    fan_out_and_in(&repository);
    let node = Node::start(&repository.path()).await;
    let numbers = [1.0, 2.0, 4.0, -3.0, 0.5, 8.0];
    let request = raw(
        "graph",
        input("x", "FP32", &[2, 3]),
        bytes_of(numbers.into_iter()),
    );
    let answer = node.infer(request.clone()).await.unwrap();
    let names: Vec<&str> = answer
        .outputs
        .iter()
        .map(|output| output.name.as_str())
        .collect();
    assert_eq!(names, ["y", "early", "sums", "also"]);
    assert_eq!(answer.model_name, "graph");
    assert_eq!(answer.outputs[0].shape, [2, 3]);
    let outputs: Vec<Vec<f32>> = answer
        .raw_output_contents
        .iter()
        .map(|raw| floats(raw))
        .collect();
    assert_eq!(outputs[0], numbers.map(|number| 4.0 * number));
    assert_eq!(outputs[1], [7.0, 5.5]);
    // The simulated model gives back what it was given: the sums of x, and those of 2 x.
    assert_eq!(outputs[2], [7.0, 5.5]);
    assert_eq!(outputs[3], [14.0, 11.0]);
    let runs = async |model: &str| node.statistics(model).await.execution_count;
    assert_eq!((runs("variable_shape").await, runs("add").await), (2, 1));
    // Who wants the first sum alone runs the first step alone.
    let mut early = request;
    early.outputs = vec![
        jitney::proto::model_infer_request::InferRequestedOutputTensor {
            name: "early".to_owned(),
            ..Default::default()
        },
    ];
    let answer = node.infer(early).await.unwrap();
    assert_eq!(floats(&answer.raw_output_contents[0]), [7.0, 5.5]);
    assert_eq!((runs("variable_shape").await, runs("add").await), (3, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_of_several_requests_share_batches_and_are_counted() {
    let repository = Repository::new();
    simulate(&repository, "one", "max_batch_size = 32", "fixed_ms = 20");
    simulate(&repository, "two", "max_batch_size = 16", "fixed_ms = 20");
    pair(&repository, "");
    let node = Node::start(&repository.path()).await;
    let first = Occupant::of(&node, "one", 32).await;
    let second = Occupant::of(&node, "two", 16).await;
    let mut answers = JoinSet::new();
    for seed in 0..64 {
        let request = rows("both", seed, 1);
        let answer = infer(node.client(), request.clone());
        answers.spawn(async move { (request, answer.await.unwrap()) });
    }
    let [ahead, behind] = [first.rows as u64, second.rows as u64];
    for (model, occupant) in [("one", first), ("two", second)] {
        let version = node.version(model);
        until("all wait for a step", || version.queued() == 65).await;
        occupant.leaves().await;
    }
    for (sent, answer) in answers.join_all().await {
        assert_echo(&answer, &sent);
    }
    let [both, one, two] = [
        node.statistics("both").await,
        node.statistics("one").await,
        node.statistics("two").await,
    ];
    assert_eq!(one.inference_count, ahead + 64);
    assert_eq!(two.inference_count, behind + 64);
    // Full batches, though every request came by itself, behind two occupants each.
    assert_eq!((one.execution_count, two.execution_count), (2 + 2, 2 + 4));
    assert_eq!((both.inference_count, both.execution_count), (64, 64));
    let counted = both.inference_stats.unwrap();
    let success = counted.success.unwrap();
    assert_eq!((success.count, counted.fail.unwrap().count), (64, 0));
    assert_eq!(counted.queue.unwrap().ns, 0);
    // Nobody was quicker than a batch of each.
    assert!(success.ns >= 64 * 40_000_000, "{success:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ensemble_says_what_it_is() {
    let repository = Repository::new();
    simulate(&repository, "one", "max_batch_size = 32", "");
    simulate(&repository, "two", "max_batch_size = 4", "");
    pair(&repository, "max_in_flight = 7");
    let node = Node::start(&repository.path()).await;
    let config = node.config("both").await;
    assert_eq!(
        (config.platform.as_str(), config.backend.as_str()),
        ("ensemble", "")
    );
    // As many rows as the model that takes the fewest.
    assert_eq!(config.max_batch_size, 4);
    assert_eq!(
        (config.input[0].name.as_str(), &config.input[0].dims[..]),
        ("x", &[-1][..])
    );
    let Some(jitney::proto::model_config::SchedulingChoice::EnsembleScheduling(scheduling)) =
        config.scheduling_choice
    else {
        panic!("{:?}", config.scheduling_choice)
    };
    assert_eq!(scheduling.max_inflight_requests, 7);
    let steps: Vec<_> = scheduling.step.iter().collect();
    assert_eq!(
        (steps[1].model_name.as_str(), steps[1].model_version),
        ("two", -1)
    );
    assert_eq!(steps[1].input_map["x"], "between");
    assert_eq!(steps[1].output_map["y"], "y");
    let request = ModelMetadataRequest {
        name: "both".to_owned(),
        ..ModelMetadataRequest::default()
    };
    let answer = node.client().model_metadata(request).await.unwrap();
    let metadata = answer.into_inner();
    assert_eq!(
        (metadata.platform.as_str(), &metadata.versions[..]),
        ("ensemble", &["1".to_owned()][..])
    );
    assert_eq!(metadata.inputs[0].shape, [-1, -1]);
    let status = node.infer(rows("both", 1, 5)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(
        status
            .message()
            .contains(r#"model "both": the request has 5 rows where 1 to 4"#)
    );
}

/// `both`, whose first model does not end a run.
async fn stuck(keys: &str) -> (Repository, Node, Occupant) {
    let repository = Repository::new();
    simulate(&repository, "one", "max_batch_size = 8", "");
    simulate(&repository, "two", "max_batch_size = 8", "");
    pair(&repository, keys);
    let node = Node::start(&repository.path()).await;
    let occupant = Occupant::of(&node, "one", 8).await;
    (repository, node, occupant)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_requests_are_in_flight_than_it_says() {
    let (_repository, node, mut occupant) = stuck("max_in_flight = 2").await;
    let version = node.version("both");
    let in_flight = || version.ensemble().unwrap().in_flight();
    let mut waiting = JoinSet::new();
    for seed in 0..2 {
        waiting.spawn(infer(node.client(), rows("both", seed, 1)));
    }
    until("two are in flight", || in_flight() == 2).await;
    let status = node.infer(rows("both", 2, 1)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(
        status.message(),
        "both version 1: 2 requests are in flight (max_in_flight); try again in 10 ms"
    );
    assert!(
        status.metadata().contains_key("grpc-retry-pushback-ms"),
        "{status:?}"
    );
    waiting.abort_all();
    until("they have left", || in_flight() == 0).await;
    assert!(occupant.is_there());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_goes_away_leaves_the_queue_of_the_step() {
    let (_repository, node, mut occupant) = stuck("").await;
    let (one, both) = (node.version("one"), node.version("both"));
    let goes = tokio::spawn(infer(node.client(), rows("both", 9, 1)));
    until("the step waits", || one.queued() == 2).await;
    goes.abort();
    until("the step has left", || one.queued() == 1).await;
    until("the request has left", || {
        both.ensemble().unwrap().in_flight() == 0
    })
    .await;
    assert!(occupant.is_there());
    assert_eq!(node.statistics("two").await.execution_count, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_deadline_is_for_all_steps() {
    let repository = Repository::new();
    simulate(&repository, "one", "", "fixed_ms = 10");
    simulate(&repository, "two", "max_batch_size = 8", "");
    pair(&repository, "");
    let text = std::fs::read_to_string(repository.folder("both").join("model.toml")).unwrap();
    repository.configure("patient", &text);
    std::fs::create_dir_all(repository.folder("patient").join("1")).unwrap();
    repository.configure("both", &format!("default_deadline_ms = 5000\n{text}"));
    let node = Node::start(&repository.path()).await;
    let mut occupant = Occupant::of(&node, "two", 8).await;
    // Five seconds are more than the first step needs on any machine; it is in time, the second is not; its model has no deadline of its own.
    let status = node.infer(rows("both", 1, 1)).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(
        status
            .message()
            .starts_with("both version 1: step 2 (two): "),
        "{status:?}"
    );
    assert_eq!(node.statistics("one").await.inference_count, 1);
    let timeout = ParameterChoice::Int64Param(2_000_000);
    let request = with_parameter(rows("patient", 1, 1), "timeout", timeout);
    let status = node.infer(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(occupant.is_there());
    let failed = node
        .statistics("patient")
        .await
        .inference_stats
        .unwrap()
        .fail;
    assert_eq!(failed.unwrap().count, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_fails_is_named() {
    let repository = Repository::new();
    simulate(&repository, "one", "", "");
    simulate(&repository, "two", "", "fail_every = 1");
    pair(&repository, "");
    let node = Node::start(&repository.path()).await;
    let status = node.infer(rows("both", 1, 1)).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert!(
        status
            .message()
            .starts_with("both version 1: step 2 (two): "),
        "{status:?}"
    );
    let counted = node.statistics("both").await.inference_stats.unwrap();
    assert_eq!(
        (counted.fail.unwrap().count, counted.success.unwrap().count),
        (1, 0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn models_are_replaced_under_an_ensemble_without_one_failed_request() {
    let repository = Repository::new();
    simulate(&repository, "one", "", "fixed_ms = 2");
    simulate(&repository, "two", "", "fixed_ms = 2");
    pair(&repository, "");
    let node = Node::explicit(&repository, &["both"]).await;
    let mut traffic = Traffic::start(&node, rows("both", 1, 1), assert_echo);
    for fixed_ms in 3..8 {
        traffic.flows(20).await;
        let (model, before) = (["one", "two"][fixed_ms % 2], node.version("both"));
        simulate(&repository, model, "", &format!("fixed_ms = {fixed_ms}"));
        node.load(model).await.unwrap();
        // It is put together anew, out of the new one.
        assert!(!std::sync::Arc::ptr_eq(&before, &node.version("both")));
    }
    traffic.flows(20).await;
    traffic.stops().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_no_longer_fits_leaves_the_ensemble_as_it_was_and_says_so() {
    let repository = Repository::new();
    simulate(&repository, "one", "max_batch_size = 8", "");
    simulate(&repository, "two", "max_batch_size = 8", "");
    pair(&repository, "");
    let node = Node::explicit(&repository, &["both"]).await;
    simulate(&repository, "two", "max_batch_size = 2", "");
    node.load("two").await.unwrap();
    assert_eq!(node.version("both").max_batch_size(), 2);
    repository.remove("two");
    repository.add("add_sub", 1);
    std::fs::rename(repository.folder("add_sub"), repository.folder("two")).unwrap();
    node.load("two").await.unwrap();
    let entry = node.index_of("both", "1").await.unwrap();
    assert_eq!(entry.state, "READY");
    assert!(
        entry
            .reason
            .contains("step 2 (two): the model has no output"),
        "{entry:?}"
    );
    let status = node.infer(rows("both", 1, 1)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(
        status
            .message()
            .starts_with("both version 1: step 2 (two): model \"two\""),
        "{status:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loading_an_ensemble_loads_its_models_and_unloading_can_take_them_along() {
    let repository = Repository::new();
    for model in ["one", "two", "three"] {
        simulate(&repository, model, "", "");
    }
    pair(&repository, "");
    let steps = [step("both", "x", "between"), step("three", "between", "y")];
    ensemble(&repository, "nested", "", &steps);
    ensemble(&repository, "other", "", &[step("one", "x", "y")]);
    let node = Node::explicit(&repository, &[]).await;
    node.load("nested").await.unwrap();
    node.load("other").await.unwrap();
    let sent = rows("nested", 3, 2);
    assert_echo(&node.infer(sent.clone()).await.unwrap(), &sent);
    let ready = async |model: &str| node.is_ready(model, "").await;
    // A model that is taken away takes the readiness of those that need it along.
    node.unload("two").await.unwrap();
    assert!(!ready("both").await && !ready("nested").await);
    assert!(ready("other").await);
    let status = node.infer(sent.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(
        status
            .message()
            .starts_with("nested version 1: step 1 (both): both version 1: step 2 (two): "),
        "{status:?}"
    );
    node.load("nested").await.unwrap();
    assert!(ready("nested").await);
    unload_with_parts(&node, "nested").await;
    for gone in ["nested", "both", "two", "three"] {
        assert!(!ready(gone).await, "{gone}");
    }
    // Another ensemble needs this one.
    assert!(ready("one").await && ready("other").await);
}

async fn unload_with_parts(node: &Node, model: &str) {
    let choice = model_repository_parameter::ParameterChoice::BoolParam(true);
    let parts = ModelRepositoryParameter {
        parameter_choice: Some(choice),
    };
    let request = RepositoryModelUnloadRequest {
        model_name: model.to_owned(),
        parameters: [("unload_dependents".to_owned(), parts)].into(),
        ..RepositoryModelUnloadRequest::default()
    };
    let mut client = node.client();
    client.repository_model_unload(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn models_that_leave_with_an_ensemble_finish_what_it_has() {
    let repository = Repository::new();
    simulate(&repository, "one", "", "");
    simulate(&repository, "two", "", "");
    pair(&repository, "");
    let node = Node::explicit(&repository, &["both"]).await;
    let gate = Gate::close(&node, "one");
    let version = node.version("both");
    let sent = rows("both", 1, 2);
    let answer = tokio::spawn(infer(node.client(), sent.clone()));
    let entered = || version.ensemble().unwrap().in_flight() == 1;
    until("the request is in flight", entered).await;
    let leave = async {
        let gone = async || !node.is_ready("both", "").await;
        node.changes_until("the ensemble is gone", gone).await;
        gate.open();
    };
    tokio::join!(unload_with_parts(&node, "both"), leave);
    assert_echo(&answer.await.unwrap().unwrap(), &sent);
    assert!(!node.is_ready("one", "").await && !node.is_ready("two", "").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_together_is_refused_at_load() {
    let repository = Repository::new();
    simulate(&repository, "one", "", "");
    repository.add("add_sub", 1);
    let refused: [(&str, &str, Vec<String>, &str); 8] = [
        (
            "cycle",
            "",
            vec![
                step("one", "b", "a"),
                step("one", "a", "b"),
                step("one", "x", "y"),
            ],
            "step 1 (one), step 2 (one) wait for each other's outputs: a cycle",
        ),
        (
            "unknown",
            "",
            vec![step("one", "x", "z"), step("one", "w", "y")],
            r#"tensor "w" comes from no step"#,
        ),
        (
            "unused",
            "",
            vec![step("one", "x", "y"), step("one", "x", "z")],
            r#"tensor "z" from step 2 (one) is used by no step"#,
        ),
        (
            "twice",
            "",
            vec![step("one", "x", "y"), step("one", "x", "y")],
            r#"step 2 (one): tensor "y" comes from step 1 (one) already"#,
        ),
        (
            "missing",
            "",
            vec![step("nobody", "x", "y")],
            r#"step 1 (nobody): Request for unknown model "nobody""#,
        ),
        (
            "itself",
            "",
            vec![step("itself", "x", "y")],
            "an ensemble cannot be made of itself: itself needs itself",
        ),
        (
            "chicken",
            "",
            vec![step("egg", "x", "y")],
            "chicken needs egg needs chicken",
        ),
        (
            "egg",
            "",
            vec![step("chicken", "x", "y")],
            "egg needs chicken needs egg",
        ),
    ];
    for (name, keys, steps, _) in &refused {
        ensemble(&repository, name, keys, steps);
    }
    let types = r#"
[ensemble]
inputs = [{ name = "x", dtype = "FP32", shape = [-1, 16] }, { name = "n", dtype = "INT32", shape = [-1, 15] }]
outputs = [{ name = "y", dtype = "INT64", shape = [-1, 16] }]
[[ensemble.steps]]
model = "add_sub"
inputs = { INPUT0 = "x", INPUT1 = "n" }
outputs = { OUTPUT0 = "y" }
"#;
    std::fs::create_dir_all(repository.folder("types").join("1")).unwrap();
    repository.configure("types", types);
    let node = Node::start(&repository.path()).await;
    let reason = async |name: &str| {
        let (own, version) = (
            node.index_of(name, "").await,
            node.index_of(name, "1").await,
        );
        own.or(version).unwrap().reason
    };
    for (name, _, _, expected) in &refused {
        let told = reason(name).await;
        assert!(told.contains(expected), "{name}: {told}");
        assert!(!node.is_ready(name, "").await);
    }
    let told = reason("types").await;
    for expected in [
        r#"step 1 (add_sub): input "INPUT0" is INT32 [-1,16], and tensor "x" from the request is FP32 [-1,16]"#,
        r#"step 1 (add_sub): input "INPUT1" is INT32 [-1,16], and tensor "n" from the request is INT32 [-1,15]"#,
        r#"output "y" is INT64 [-1,16], and tensor "y" from step 1 (add_sub) is INT32 [-1,16]"#,
    ] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    assert!(node.is_ready("one", "").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watched_ensemble_waits_for_the_models_that_come_later() {
    let repository = Repository::new();
    simulate(&repository, "one", "", "");
    pair(&repository, "");
    let settings = RawServer {
        model_control: Some("watch".to_owned()),
        watch_interval_ms: Some("20".to_owned()),
        ..RawServer::default()
    };
    let node = Node::with(&repository.path(), settings).await;
    assert!(!node.is_ready("both", "").await);
    simulate(&repository, "two", "", "");
    node.until_ready("both", "").await;
    let sent: ModelInferRequest = rows("both", 3, 2);
    assert_echo(&node.infer(sent.clone()).await.unwrap(), &sent);
    repository.remove("two");
    node.changes_until("the ensemble is not ready", async || {
        !node.is_ready("both", "").await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_model_that_runs_requests_alone_makes_the_ensemble_do_so() {
    let repository = Repository::new();
    simulate(&repository, "one", "", "");
    simulate(&repository, "two", "", "");
    pair(&repository, "");
    let text = std::fs::read_to_string(repository.folder("two").join("model.toml")).unwrap();
    repository.configure("two", &text.replace("\"first\"", "\"none\""));
    let node = Node::start(&repository.path()).await;
    let version = node.version("both");
    assert!(!version.batching.is_rows(), "{:?}", version.batching);
    // The first dimension is then one like any other.
    let sent = rows("both", 3, 7);
    assert_echo(&node.infer(sent.clone()).await.unwrap(), &sent);
}
