//! Where a model's time goes, as a trace to download.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use url::form_urlencoded;

use super::View;
use crate::frontend::rest::Answer;
use crate::serving::Profile;
use crate::status::{Code, Status};

/// Batches that a profile may be of, and seconds that they may take to come.
const MOST_BATCHES: usize = 1_000;
const MOST_SECONDS: usize = 60;

/// What is to be profiled.
#[derive(Debug, PartialEq)]
struct Wanted {
    model: String,
    version: String,
    batches: usize,
    seconds: usize,
}

impl Wanted {
    fn read(query: &str) -> Result<Self, Status> {
        let mut wanted = Self {
            model: String::new(),
            version: String::new(),
            batches: 10,
            seconds: 10,
        };
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            match key.as_ref() {
                "model" => wanted.model = value.into_owned(),
                "version" => wanted.version = value.into_owned(),
                "batches" => wanted.batches = number("batches", &value, MOST_BATCHES)?,
                "seconds" => wanted.seconds = number("seconds", &value, MOST_SECONDS)?,
                _ => {
                    let message = "there are the parameters model, version, batches and seconds";
                    return Err(Status::invalid(message));
                }
            }
        }
        Ok(wanted)
    }
}

fn number(key: &str, value: &str, most: usize) -> Result<usize, Status> {
    let number = value.parse().ok();
    let number = number.filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| Status::invalid(format!("{key}: a number from 1 to {most} is allowed")))
}

/// Profiles the next batches of a model, and answers when they have run.
pub(super) async fn profile(State(view): State<View>, request: Request) -> Answer {
    if !view.console.controls {
        let message = "profiles are made with --console control only: a session more takes memory";
        return Err(Status::new(Code::FailedPrecondition, message).into());
    }
    let wanted = Wanted::read(request.uri().query().unwrap_or_default())?;
    let engine = &view.api.engine;
    let version = engine.catalog().resolve(&wanted.model, &wanted.version)?;
    let patience = Duration::from_secs(wanted.seconds as u64);
    let profile = version.profile(engine.clock(), wanted.batches, patience);
    Ok(download(profile.await?))
}

fn download(profile: Profile) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (
            CONTENT_DISPOSITION,
            HeaderValue::from_static("attachment; filename=\"profile.json\""),
        ),
    ];
    (headers, profile.trace).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_bounded_and_keys_are_known() {
        let wanted = Wanted::read("model=a%20b&version=3&batches=1000&seconds=60").unwrap();
        assert_eq!(
            (wanted.model.as_str(), wanted.version.as_str()),
            ("a b", "3")
        );
        assert_eq!((wanted.batches, wanted.seconds), (1000, 60));
        for wrong in ["batches=0", "batches=1001", "seconds=61", "seconds=x", "y="] {
            assert_eq!(Wanted::read(wrong).unwrap_err().code, Code::InvalidArgument);
        }
    }
}
