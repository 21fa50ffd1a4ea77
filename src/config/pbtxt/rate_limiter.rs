//! `rate_limiter` of an instance group: what its instances share with those of other models.

use super::draft::Draft;
use crate::model::NeededResource;
use crate::proto::ModelInstanceGroup;

/// The most copies of a resource, and the largest priority.
const MOST: usize = 1_000_000;

/// What each instance of the group holds while it runs, and what a batch of it costs.
pub(super) fn read(
    group: &ModelInstanceGroup,
    path: &str,
    draft: &mut Draft,
) -> (Vec<NeededResource>, u32) {
    let Some(limiter) = &group.rate_limiter else {
        return (Vec::new(), 1);
    };
    let path = format!("{path}.rate_limiter");
    let mut resources = Vec::new();
    for (index, resource) in limiter.resources.iter().enumerate() {
        let path = format!("{path}.resources[{index}]");
        if resource.name.is_empty() {
            draft.note(&format!("{path}.name"), "missing; the resource's name");
        }
        let count = draft.whole(&format!("{path}.count"), resource.count.max(1), 1, MOST);
        resources.push(NeededResource {
            name: resource.name.clone(),
            count: u32::try_from(count).unwrap_or(1),
            global: resource.global,
        });
    }
    let priority = draft.whole(
        &format!("{path}.priority"),
        limiter.priority.max(1),
        1,
        MOST,
    );
    (resources, u32::try_from(priority).unwrap_or(1))
}
