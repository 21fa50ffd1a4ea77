//! The server's outcomes as gRPC's.

use tonic::metadata::MetadataValue;

use crate::status::Status;

/// The trailer by which gRPC clients with a retry policy learn when to try again, in milliseconds.
const RETRY_PUSHBACK: &str = "grpc-retry-pushback-ms";

/// A status as gRPC sends it.
pub(super) fn grpc(status: Status) -> tonic::Status {
    let code = tonic::Code::from_i32(status.code.grpc());
    let Some(retry_after) = status.retry_after else {
        return tonic::Status::new(code, status.message);
    };
    let milliseconds = retry_after.as_millis();
    let message = format!("{}; try again in {milliseconds} ms", status.message);
    let mut answer = tonic::Status::new(code, message);
    if let Ok(value) = MetadataValue::try_from(milliseconds.to_string()) {
        answer.metadata_mut().insert(RETRY_PUSHBACK, value);
    }
    answer
}
