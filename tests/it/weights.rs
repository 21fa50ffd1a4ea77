//! Several executors run one session at the same time, and nobody gets another's answer.

use tokio::task::JoinSet;

use super::node::{Node, infer};
use super::repository::Repository;
use super::request::{assert_doubled, sequence};

/// Requests, many more than run at once.
const REQUESTS: u16 = 2000;

async fn answers_are_right(share: bool) {
    let repository = Repository::new();
    repository.add("variable_shape", 1);
    let policy = format!(
        "max_batch_size = 2\n[[instances]]\ncount = 4\nthreads = 1\n[onnxruntime]\nshare_weights = {share}"
    );
    repository.configure("variable_shape", &policy);
    let node = Node::start(&repository.path()).await;
    let mut answers = JoinSet::new();
    for seed in 0..REQUESTS {
        let length = 1 + seed % 64;
        let numbers: Vec<f32> = (0..length).map(|index| f32::from(seed ^ index)).collect();
        let answer = infer(node.client(), sequence(&numbers));
        answers.spawn(async move { (numbers, answer.await.unwrap()) });
        if answers.len() >= 256 {
            let (numbers, answer) = answers.join_next().await.unwrap().unwrap();
            assert_doubled(&answer, &numbers);
        }
    }
    for (numbers, answer) in answers.join_all().await {
        assert_doubled(&answer, &numbers);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn executors_that_share_a_session_answer_right() {
    answers_are_right(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn executors_with_a_session_each_answer_right() {
    answers_are_right(false).await;
}
