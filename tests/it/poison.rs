//! A request that makes ONNX Runtime fail in the middle of a batch fails alone.

use jitney::proto::ModelInferRequest;
use tokio::task::JoinSet;
use tonic::Code;

use super::node::{Node, infer};
use super::repository::Repository;
use super::request::{floats, input, raw};

/// Rows of the table that the model looks up; see `tests/models/make.py`.
const TABLE: i64 = 4;

fn lookup(index: i64) -> ModelInferRequest {
    let input = input("indices", "INT64", &[1, 1]);
    raw("gather", input, index.to_le_bytes().to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_poisonous_request_in_a_batch_fails_alone() {
    let repository = Repository::new();
    repository.add("gather", 1);
    // A full batch leaves at once; until then a batch waits for company.
    repository.configure("gather", "max_batch_size = 16\nmax_queue_delay_ms = 10000");
    let node = Node::start(&repository.path()).await;
    let mut answers = JoinSet::new();
    for seed in 0..16 {
        let index = if seed == 5 { 9 } else { seed % TABLE };
        let answer = infer(node.client(), lookup(index));
        answers.spawn(async move { (index, answer.await) });
    }
    for (index, answer) in answers.join_all().await {
        if index == 9 {
            let status = answer.unwrap_err();
            assert_eq!(status.code(), Code::Internal, "{status:?}");
            assert!(status.message().contains("indices"), "{status:?}");
        } else {
            let row = [2 * index, 2 * index + 1].map(|number| number as f32);
            assert_eq!(floats(&answer.unwrap().raw_output_contents[0]), row);
        }
    }
    let statistics = node.statistics("gather").await;
    let requests = statistics.inference_stats.unwrap();
    assert_eq!(requests.success.unwrap().count, 15);
    assert_eq!(requests.fail.unwrap().count, 1);
    // The batch of sixteen failed, so that each of the fifteen ran alone.
    assert_eq!(statistics.execution_count, 15);
    assert!(node.is_ready("gather", "").await);
}
