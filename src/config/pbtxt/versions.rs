//! `version_policy`: which versions are served.

use super::draft::Draft;
use crate::model::VersionPolicy;
use crate::proto::ModelConfig;
use crate::proto::model_version_policy::PolicyChoice;

/// What the section says.
pub(super) fn read(config: &ModelConfig, draft: &mut Draft) -> VersionPolicy {
    let policy = config.version_policy.as_ref();
    match policy.and_then(|policy| policy.policy_choice.as_ref()) {
        None => VersionPolicy::default(),
        Some(PolicyChoice::All(_)) => VersionPolicy::All,
        Some(PolicyChoice::Latest(latest)) => {
            let path = "version_policy.latest.num_versions";
            let most = draft.whole(path, latest.num_versions.max(1), 1, 1000);
            VersionPolicy::Latest(most)
        }
        Some(PolicyChoice::Specific(specific)) => specified(&specific.versions, draft),
    }
}

fn specified(versions: &[i64], draft: &mut Draft) -> VersionPolicy {
    let path = "version_policy.specific.versions";
    if versions.is_empty() {
        draft.note(path, "found an empty list; allowed: at least one version");
    }
    let mut wanted = Vec::new();
    for (index, version) in versions.iter().enumerate() {
        match u64::try_from(*version) {
            Ok(version) if version > 0 => wanted.push(version),
            _ => draft.note(
                &format!("{path}[{index}]"),
                format!("found {version}; allowed: a whole number, at least 1"),
            ),
        }
    }
    VersionPolicy::Specific(wanted)
}
