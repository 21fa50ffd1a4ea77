//! A server of the test's own, and what a test asks of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use jitney::config::RawServer;
use jitney::proto::grpc_inference_service_client::GrpcInferenceServiceClient;
use jitney::proto::repository_index_response::ModelIndex;
use jitney::proto::{
    ModelConfig, ModelConfigRequest, ModelInferRequest, ModelInferResponse, ModelReadyRequest,
    ModelStatistics, ModelStatisticsRequest, RepositoryIndexRequest, RepositoryModelLoadRequest,
    RepositoryModelUnloadRequest,
};
use jitney::server::Server;
use jitney::serving::Version;
use tempfile::TempDir;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tower::{Service, ServiceExt};

use super::repository::Repository;

/// A test that waits longer than this hangs; none comes near it.
pub(crate) const HANG: Duration = Duration::from_secs(180);

pub(crate) type Client = GrpcInferenceServiceClient<Channel>;

/// Waits, but not for ever.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANG, future)
        .await
        .unwrap_or_else(|_| panic!("waited {HANG:?} in vain: {what}"))
}

/// Waits for something inside the server that tells nobody when it happens.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    within(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// A running server and a connection to it.
pub(crate) struct Node {
    pub(crate) server: Server,
    repository: PathBuf,
    channel: Channel,
    _cache: TempDir,
}

impl Node {
    /// Serves `repository` with the defaults.
    pub(crate) async fn start(repository: &Path) -> Self {
        Self::with(repository, RawServer::default()).await
    }

    /// Serves one of the made models, so configured.
    pub(crate) async fn of(model: &str, configuration: &str) -> (Repository, Self) {
        let repository = Repository::new();
        repository.add(model, 1);
        repository.configure(model, configuration);
        let node = Self::start(&repository.path()).await;
        (repository, node)
    }

    /// Serves one simulated model, "m", with these settings.
    pub(crate) async fn simulated(settings: RawServer) -> (Repository, Self) {
        let repository = Repository::of("", "");
        let node = Self::with(&repository.path(), settings).await;
        (repository, node)
    }

    /// Serves `repository` where clients say what is loaded; these are from the start.
    pub(crate) async fn explicit(repository: &Repository, models: &[&str]) -> Self {
        let settings = RawServer {
            model_control: Some("explicit".to_owned()),
            load_model: models.iter().map(|model| (*model).to_owned()).collect(),
            ..RawServer::default()
        };
        Self::with(&repository.path(), settings).await
    }

    /// Serves `repository` with these settings, and waits for every model to have been tried.
    pub(crate) async fn with(repository: &Path, settings: RawServer) -> Self {
        let node = Self::starting(repository, settings).await;
        within("the server starts", node.server.started()).await;
        node
    }

    /// The same, while its models load.
    pub(crate) async fn starting(repository: &Path, settings: RawServer) -> Self {
        let cache = TempDir::new().unwrap();
        let server = Self::begin(repository, settings, cache.path()).await;
        let address = format!("http://{}", server.address());
        let channel = Endpoint::from_shared(address).unwrap();
        let channel = within("connecting", channel.connect()).await.unwrap();
        Self {
            server,
            repository: repository.to_owned(),
            channel,
            _cache: cache,
        }
    }

    /// The same without a connection, when its models have been tried. What it keeps is beside them.
    pub(crate) async fn server(repository: &Path, settings: RawServer) -> Server {
        let cache = repository.with_file_name("cache");
        let server = Self::begin(repository, settings, &cache).await;
        within("the server starts", server.started()).await;
        server
    }

    async fn begin(repository: &Path, settings: RawServer, cache: &Path) -> Server {
        let settings = RawServer {
            repository: Some(repository.to_owned()),
            grpc_address: Some("127.0.0.1:0".to_owned()),
            cache_dir: settings.cache_dir.or(Some(cache.to_owned())),
            // The same port.
            http_address: settings.http_address.or(Some("127.0.0.1:0".to_owned())),
            metrics_address: settings.metrics_address.or(Some("off".to_owned())),
            onnxruntime: Some(onnxruntime()),
            ..settings
        };
        let config = settings.resolve().unwrap_or_else(|error| panic!("{error}"));
        Server::start(config).await.unwrap()
    }

    pub(crate) fn repository(&self) -> &Path {
        &self.repository
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.channel())
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX)
    }

    pub(crate) async fn infer(
        &self,
        request: ModelInferRequest,
    ) -> Result<ModelInferResponse, Status> {
        infer(self.client(), request).await
    }

    /// Sends any request over HTTP/2.
    pub(crate) async fn ask(
        &self,
        request: http::request::Builder,
        body: impl Into<Bytes>,
    ) -> http::Response<Body> {
        let body = Body::new(Full::from(body.into()));
        let mut channel = self.channel();
        let channel = channel.ready().await.unwrap();
        let answer = channel.call(request.body(body).unwrap());
        within("an answer", answer).await.unwrap()
    }

    /// The version of a model that serves, seen from inside.
    pub(crate) fn version(&self, model: &str) -> Arc<Version> {
        let versions = self.server.catalog().versions(model).unwrap();
        Arc::clone(versions.last().unwrap())
    }

    pub(crate) async fn statistics(&self, model: &str) -> ModelStatistics {
        let request = ModelStatisticsRequest {
            name: model.to_owned(),
            ..ModelStatisticsRequest::default()
        };
        let answer = self.client().model_statistics(request).await.unwrap();
        answer.into_inner().model_stats.pop().unwrap()
    }

    pub(crate) async fn is_ready(&self, model: &str, version: &str) -> bool {
        let request = ModelReadyRequest {
            name: model.to_owned(),
            version: version.to_owned(),
        };
        let answer = self.client().model_ready(request).await.unwrap();
        answer.into_inner().ready
    }

    pub(crate) async fn load(&self, model: &str) -> Result<(), Status> {
        load(self.client(), model).await
    }

    pub(crate) async fn unload(&self, model: &str) -> Result<(), Status> {
        let request = RepositoryModelUnloadRequest {
            model_name: model.to_owned(),
            ..RepositoryModelUnloadRequest::default()
        };
        let mut client = self.client();
        let answer = client.repository_model_unload(request);
        within("an unload", answer).await.map(|_| ())
    }

    pub(crate) async fn index(&self) -> Vec<ModelIndex> {
        let request = RepositoryIndexRequest::default();
        let answer = self.client().repository_index(request).await.unwrap();
        answer.into_inner().models
    }

    /// The index's line for one version; an empty version is the model's own line.
    pub(crate) async fn index_of(&self, model: &str, version: &str) -> Option<ModelIndex> {
        let mut index = self.index().await.into_iter();
        index.find(|entry| entry.name == model && entry.version == version)
    }

    /// Why its only model does not serve.
    pub(crate) async fn refusal(&self) -> String {
        let index = self.index().await;
        assert_eq!(index[0].state, "UNAVAILABLE", "{index:?}");
        index[0].reason.clone()
    }

    /// What clients are told of how a model is served.
    pub(crate) async fn config(&self, model: &str) -> ModelConfig {
        let request = ModelConfigRequest {
            name: model.to_owned(),
            ..ModelConfigRequest::default()
        };
        let answer = self.client().model_config(request).await.unwrap();
        answer.into_inner().config.unwrap()
    }

    /// Looks again at every change of what is served, until it is as it should be.
    pub(crate) async fn changes_until<F>(&self, what: &str, mut holds: impl FnMut() -> F)
    where
        F: Future<Output = bool>,
    {
        let mut changes = self.server.catalog().changes().subscribe();
        within(what, async {
            while !holds().await {
                changes.changed().await.unwrap();
            }
        })
        .await;
    }

    pub(crate) async fn until_ready(&self, model: &str, version: &str) {
        let what = format!("{model} {version} is ready");
        self.changes_until(&what, || self.is_ready(model, version))
            .await;
    }

    /// Watches the health of a service: a model's name, or empty for the server.
    pub(crate) async fn health(&self, service: &str) -> Health {
        let service = service.to_owned();
        let request = HealthCheckRequest { service };
        let answer = HealthClient::new(self.channel()).watch(request).await;
        Health(answer.unwrap().into_inner())
    }
}

/// Why one of the made models, so configured, does not serve.
pub(crate) async fn refusal(model: &str, configuration: &str) -> String {
    let (_repository, node) = Node::of(model, configuration).await;
    node.refusal().await
}

/// An open watch of one service's health.
pub(crate) struct Health(tonic::Streaming<tonic_health::pb::HealthCheckResponse>);

impl Health {
    pub(crate) fn of(answers: tonic::Streaming<tonic_health::pb::HealthCheckResponse>) -> Self {
        Self(answers)
    }

    /// Waits until the service serves, or does not.
    pub(crate) async fn until(&mut self, serving: bool) {
        let wanted = match serving {
            true => ServingStatus::Serving,
            false => ServingStatus::NotServing,
        };
        within("a change of health", async {
            while self.0.message().await.unwrap().unwrap().status() != wanted {}
        })
        .await;
    }

    /// Waits for the server to end the watch.
    pub(crate) async fn until_ended(&mut self) {
        within("the watch ends", async {
            while let Ok(Some(_)) = self.0.message().await {}
        })
        .await;
    }
}

/// One request and its answer, in a form that can be spawned.
pub(crate) async fn infer(
    mut client: Client,
    request: ModelInferRequest,
) -> Result<ModelInferResponse, Status> {
    let answer = within("an answer", client.model_infer(request)).await?;
    Ok(answer.into_inner())
}

/// One load, in a form that can be spawned.
pub(crate) async fn load(mut client: Client, model: &str) -> Result<(), Status> {
    let request = RepositoryModelLoadRequest {
        model_name: model.to_owned(),
        ..RepositoryModelLoadRequest::default()
    };
    let answer = client.repository_model_load(request);
    within("a load", answer).await.map(|_| ())
}

pub(crate) fn onnxruntime() -> PathBuf {
    std::env::var_os("JITNEY_ONNXRUNTIME")
        .map(PathBuf::from)
        .expect("JITNEY_ONNXRUNTIME does not say where ONNX Runtime is: run `make test`")
}
