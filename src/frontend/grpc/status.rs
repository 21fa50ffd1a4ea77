//! The server's outcomes as gRPC's.

use tonic::metadata::MetadataValue;

use crate::status::Status;

/// The trailer by which gRPC clients with a retry policy learn when to try again, in milliseconds.
pub(in crate::frontend) const RETRY_PUSHBACK: &str = "grpc-retry-pushback-ms";

/// Bytes of a message that are sent. Clients take headers of a few kilobytes, and what a status
/// quotes can be as long as the request that it is about.
const MOST_MESSAGE: usize = 2048;

/// A status as gRPC sends it.
pub(in crate::frontend) fn grpc(mut status: Status) -> tonic::Status {
    if status.message.len() > MOST_MESSAGE {
        let end = status.message.floor_char_boundary(MOST_MESSAGE);
        status.message.truncate(end);
        status.message.push_str("...");
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let sent = grpc(Status::invalid("a".to_owned() + &"é".repeat(MOST_MESSAGE)));
        assert_eq!(sent.code(), tonic::Code::InvalidArgument);
        assert_eq!(sent.message().len(), MOST_MESSAGE - 1 + 3);
        assert!(sent.message().ends_with("é..."));
    }
}
