//! The V2 service as calls come to it: those that bring tensors with a codec of their own, for which what is made from
//! `proto/` has no place, and the others as they are made.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::server::{Grpc, NamedService, StreamingService, UnaryService};
use tonic::{Request, Response, Status, Streaming};
use tower::Service;

use super::counted::{Counted, Counting};
use super::service::{InferenceService, Responses};
use crate::proto::grpc_inference_service_server::GrpcInferenceServiceServer;
use crate::proto::{ModelInferResponse, ModelStreamInferResponse};

const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
const STREAM: &str = "/inference.GRPCInferenceService/ModelStreamInfer";

/// The V2 service.
#[derive(Clone, Debug)]
pub(super) struct Infers {
    others: GrpcInferenceServiceServer<InferenceService>,
    service: Arc<InferenceService>,
    max_message_bytes: usize,
}

impl Infers {
    pub(super) fn new(service: InferenceService, max_message_bytes: usize) -> Self {
        let service = Arc::new(service);
        let others = GrpcInferenceServiceServer::from_arc(Arc::clone(&service))
            .max_decoding_message_size(max_message_bytes)
            .max_encoding_message_size(usize::MAX)
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Deflate);
        Self {
            others,
            service,
            max_message_bytes,
        }
    }

    fn grpc<T: prost::Message + 'static>(
        &self,
        request: &http::Request<Body>,
    ) -> Grpc<Counting<T>> {
        Grpc::new(Counting::new(request))
            .max_decoding_message_size(self.max_message_bytes)
            .max_encoding_message_size(usize::MAX)
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Deflate)
    }
}

impl NamedService for Infers {
    const NAME: &'static str = GrpcInferenceServiceServer::<InferenceService>::NAME;
}

impl Service<http::Request<Body>> for Infers {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = Arc::clone(&self.service);
        match request.uri().path() {
            INFER => {
                let mut grpc = self.grpc(&request);
                Box::pin(async move { Ok(grpc.unary(Infer(service), request).await) })
            }
            STREAM => {
                let mut grpc = self.grpc(&request);
                Box::pin(async move { Ok(grpc.streaming(Stream(service), request).await) })
            }
            _ => self.others.call(request),
        }
    }
}

/// `ModelInfer`.
struct Infer(Arc<InferenceService>);

impl UnaryService<Counted> for Infer {
    type Response = ModelInferResponse;
    type Future = BoxFuture<'static, Result<Response<ModelInferResponse>, Status>>;

    fn call(&mut self, request: Request<Counted>) -> Self::Future {
        let service = Arc::clone(&self.0);
        Box::pin(async move { service.infer(request).await })
    }
}

/// `ModelStreamInfer`.
struct Stream(Arc<InferenceService>);

impl StreamingService<Counted> for Stream {
    type Response = ModelStreamInferResponse;
    type ResponseStream = Responses;
    type Future = BoxFuture<'static, Result<Response<Responses>, Status>>;

    fn call(&mut self, request: Request<Streaming<Counted>>) -> Self::Future {
        let responses = self.0.stream_infer(request);
        Box::pin(async move { Ok(Response::new(responses)) })
    }
}
