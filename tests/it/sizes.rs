//! Models that run with some numbers of rows only.

use super::node::Node;
use super::occupant::{Occupant, enqueue};
use super::repository::{Repository, Simulated};
use super::request::{assert_echo, bytes_of, floats, input, raw, rows};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_padded_to_the_next_size() {
    let repository = Repository::new();
    let model = Simulated {
        policy: "batch_sizes = [2, 8]",
        simulated: "fixed_ms = 5\nbatch_sizes = [2, 8]",
        ..Simulated::default()
    };
    repository.simulate("m", model);
    let node = Node::start(&repository.path()).await;
    assert_echo(
        &node.infer(rows("m", 1, 1)).await.unwrap(),
        &rows("m", 1, 1),
    );
    let occupant = Occupant::of(&node, "m", 8).await;
    let waiting = enqueue(&node, (0..5).map(|seed| rows("m", seed, 1))).await;
    occupant.leaves().await;
    for (sent, answer) in waiting.join_all().await {
        assert_echo(&answer.unwrap(), &sent);
    }
    // One row as two, two full batches, and five rows as eight.
    let statistics = node.statistics("m").await;
    assert_eq!((statistics.own_tokens, statistics.run_tokens), (22, 26));
    assert_eq!(statistics.execution_count, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_of_a_fixed_number_of_rows_takes_fewer() {
    let repository = Repository::new();
    repository.add("fixed_rows", 1);
    repository.configure("fixed_rows", "batch_axis = \"first\"");
    let node = Node::start(&repository.path()).await;
    for count in 1..=4 {
        let numbers: Vec<f32> = (0..count * 3).map(|number| number as f32).collect();
        let data = bytes_of(numbers.iter().copied());
        let request = raw("fixed_rows", input("x", "FP32", &[count, 3]), data);
        let answer = node.infer(request).await.unwrap();
        let doubled: Vec<f32> = numbers.iter().map(|number| number * 2.0).collect();
        assert_eq!(floats(&answer.raw_output_contents[0]), doubled);
        assert_eq!(answer.outputs[0].shape, [count as i64, 3]);
    }
    let data = bytes_of((0..15).map(|number| number as f32));
    let five = raw("fixed_rows", input("x", "FP32", &[5, 3]), data);
    let status = node.infer(five).await.unwrap_err();
    assert!(status.message().contains("1 to 4"), "{status:?}");
}
