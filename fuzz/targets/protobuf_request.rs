//! A `ModelInferRequest` of any bytes: read and understood, or refused.

use jitney::proto::ModelInferRequest;
use jitney::wire::{infer_request, outline};
use prost::Message;

pub(crate) fn check(message: &[u8]) {
    let outline = outline(message);
    let Ok(message) = ModelInferRequest::decode(message) else {
        return;
    };
    let outline = outline.expect("what can be decoded was looked at whole");
    assert!(outline.excess.is_some() || outline.id == message.id.as_bytes());
    let (inputs, outputs) = (message.inputs.len(), message.outputs.len());
    match infer_request(message) {
        Ok(asked) => {
            assert_eq!(asked.request.inputs.len(), inputs);
            assert_eq!(asked.request.outputs.len(), outputs);
            let regions = &asked.regions;
            assert!(regions.inputs.iter().all(|(place, _)| *place < inputs));
            assert!(regions.outputs.iter().all(|(place, _)| *place < outputs));
        }
        Err(refused) => assert!(!refused.message.is_empty()),
    }
}
