//! A body of an inference over REST: its JSON, and the tensors that follow it as they are.
//!
//! The first two bytes say how long the JSON is, as the header does; a JSON that is longer is all
//! there is.

use bytes::Bytes;
use jitney::wire::rest::infer_request;

pub(crate) fn check(sent: &[u8]) {
    let Some((length, body)) = sent.split_first_chunk() else {
        return;
    };
    let length = usize::from(u16::from_le_bytes(*length));
    let (json, tensors) = body.split_at_checked(length).unwrap_or((body, &[]));
    match infer_request("m", "", json, Bytes::copy_from_slice(tensors)) {
        Ok(asked) => {
            let request = &asked.asked.request;
            assert_eq!(request.model, "m");
            // JSON is at least as long as the elements it holds, four or eight bytes each at most.
            let bytes = request.inputs.iter().map(|input| input.tensor.data.len());
            assert!(bytes.sum::<usize>() <= 8 * json.len() + tensors.len());
        }
        Err(refused) => assert!(!refused.message.is_empty()),
    }
}
