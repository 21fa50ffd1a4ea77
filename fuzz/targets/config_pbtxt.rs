//! The text of a `config.pbtxt`: refused with what is wrong, or a policy that is the same once it has
//! been written as `model.toml` and read again.

use std::path::Path;

use jitney::config::{read_model_config, read_model_policy, write_model_policy};

pub(crate) fn check(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    match read_model_config("m", Path::new("config.pbtxt"), text) {
        Ok(policy) => {
            let written = write_model_policy(&policy);
            let again = read_model_policy(Path::new("model.toml"), &written);
            // Not compared as they are: a number that is none does not equal itself.
            let same = again.map(|again| format!("{again:?}"));
            assert_eq!(same.ok(), Some(format!("{policy:?}")), "{written}");
        }
        Err(report) => assert!(!report.to_string().is_empty()),
    }
}
