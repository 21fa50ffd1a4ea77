//! How much of what the server could do is used: as a metric, and in load reports.

use jitney::config::RawServer;
use jitney::proto::xds::data::orca::v3::OrcaLoadReport;
use jitney::proto::xds::service::orca::v3::OrcaLoadReportRequest;
use jitney::proto::xds::service::orca::v3::open_rca_service_client::OpenRcaServiceClient;
use tonic::{Code, Request};

use super::http::{Wire, get};
use super::node::{Node, within};
use super::repository::{Repository, Simulated};
use super::request::rows;

/// Batches of one row that take 10 ms: 100 a second.
async fn start(settings: RawServer) -> (Repository, Node) {
    let repository = Repository::new();
    let model = Simulated {
        policy: "max_batch_size = 1",
        simulated: "fixed_ms = 10",
        ..Simulated::default()
    };
    repository.simulate("m", model);
    let node = Node::with(&repository.path(), settings).await;
    (repository, node)
}

/// The value of one line of the metrics, if it is there.
async fn told(node: &Node, series: &str) -> Option<f64> {
    let answer = Wire::to(node.server.http_address().unwrap()).await;
    let body = { answer }.ask(get("/metrics")).await.body;
    let body = String::from_utf8(body).unwrap();
    let line = body.lines().find_map(|line| line.strip_prefix(series))?;
    line.strip_prefix(' ')?.parse().ok()
}

/// Asks again and again until the first look back. One after the other cannot be more than everything,
/// and 10 ms are slept at least; but the machine may have delayed what was learned first.
async fn until_told(node: &Node) -> f64 {
    within("capacity is told", async {
        loop {
            node.infer(rows("m", 0, 1)).await.unwrap();
            let used = told(node, "jitney_capacity_used_ratio").await;
            if let Some(used) = used.filter(|used| *used > 0.0 && *used < 1.1) {
                return used;
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_over_what_could_be_done() {
    let (_repository, node) = start(RawServer::default()).await;
    until_told(&node).await;
    let of_m = |name: &str| format!(r#"{name}{{model="m",version="1"}}"#);
    let sustainable = told(&node, &of_m("jitney_sustainable_rows_per_second")).await;
    assert!(
        (1.0..101.0).contains(&sustainable.unwrap()),
        "{sustainable:?}"
    );
    let objective = told(&node, &of_m("jitney_latency_objective_seconds")).await;
    assert_eq!(objective, Some(1.0));
    let cpu = told(&node, r#"jitney_device_capacity_used_ratio{device="cpu"}"#).await;
    assert!(cpu.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn balancers_are_told_by_a_stream_of_reports() {
    let (_repository, node) = start(RawServer::default()).await;
    until_told(&node).await;
    let mut client = OpenRcaServiceClient::new(node.channel());
    let asked = OrcaLoadReportRequest {
        report_interval: Some(prost_types::Duration {
            seconds: 0,
            nanos: 1,
        }),
        ..OrcaLoadReportRequest::default()
    };
    let reports = within("a stream", client.stream_core_metrics(asked)).await;
    let mut reports = reports.unwrap().into_inner();
    within("a report that knows", async {
        loop {
            let report = reports.message().await.unwrap().unwrap();
            let known = report.application_utilization > 0.0 && report.utilization["cpu"] > 0.0;
            if known && report.mem_utilization > 0.0 {
                return;
            }
            // What is told is of the second before.
            node.infer(rows("m", 0, 1)).await.unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_carries_a_report_where_the_operator_says_so() {
    let settings = RawServer {
        orca_trailers: Some("true".to_owned()),
        ..RawServer::default()
    };
    let (_repository, node) = start(settings).await;
    let carried = |metadata: &tonic::metadata::MetadataMap| {
        let report = metadata.get_bin("endpoint-load-metrics-bin").cloned();
        let report = report.map(|report| report.to_bytes().unwrap());
        report.map(|report| <OrcaLoadReport as prost::Message>::decode(report).unwrap())
    };
    let mut client = node.client();
    let answer = within("an answer", client.model_infer(rows("m", 0, 1))).await;
    assert!(carried(answer.unwrap().metadata()).is_some());
    let (_repository, plain) = start(RawServer::default()).await;
    let mut client = plain.client();
    let answer = within("an answer", client.model_infer(rows("m", 0, 1))).await;
    assert!(carried(answer.unwrap().metadata()).is_none());
    // One that fails has nothing but trailers.
    let mut client = node.client();
    let refused = client.model_infer(Request::new(rows("none", 0, 1))).await;
    assert_eq!(refused.unwrap_err().code(), Code::NotFound);
}
