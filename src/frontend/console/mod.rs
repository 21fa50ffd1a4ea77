//! The console: what the server does at this moment, for people and their scripts.
//! Uses what `telemetry` keeps, and the catalog.
//! Never changes anything: who loads and unloads asks the V2 routes.

mod asked;
mod counted;
mod example;
mod page;
mod profile;
mod state;
mod version;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::http::header::CACHE_CONTROL;
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use serde::Serialize;

use super::api::Api;
use super::limits::{LimitLayer, Limits};
use super::rest::{Answer, plain};
use crate::telemetry::{Anchor, Breaches, Metrics, SlowRequest, decisions};
use crate::wire::Entry;
use asked::Asked;
use state::ServerState;

/// Where the console is.
const PATH: &str = "/console";

/// What the console tells beside what others know.
#[derive(Clone, Debug)]
pub struct Console {
    /// What was decided around requests that broke their objective.
    pub breaches: Breaches,
    /// Whether it has buttons that load and unload models.
    pub controls: bool,
    /// The port of gRPC, for examples.
    pub grpc_port: u16,
    /// What it takes to be let in, for the same.
    pub entry: Entry,
}

/// What the routes need.
#[derive(Clone, Debug)]
struct View {
    console: Console,
    api: Api,
    metrics: Metrics,
    layer: LimitLayer,
    limits: Limits,
}

/// Whether this asks for a look at the server: it is answered when the server is full, too.
pub(super) fn is_look<B>(request: &http::Request<B>) -> bool {
    let below = request.uri().path().strip_prefix(PATH);
    let is_ours = below.is_some_and(|below| below.is_empty() || below.starts_with('/'));
    is_ours && request.method().is_safe()
}

/// The routes.
pub(super) fn routes(
    console: Console,
    api: Api,
    metrics: Metrics,
    layer: LimitLayer,
    limits: Limits,
) -> Router {
    table()
        .fold(Router::new(), |routes, (path, methods)| {
            routes.route(path, methods)
        })
        .with_state(View {
            console,
            api,
            metrics,
            layer,
            limits,
        })
}

type Route = (&'static str, MethodRouter<View>);

#[rustfmt::skip] // a table
fn table() -> impl Iterator<Item = Route> {
    page::routes().chain([
        ("/console/example", get(example::first).post(example::of_request)),
        ("/console/state", get(state)),
        ("/console/slow", get(slow)),
        ("/console/decisions", get(decided)),
        ("/console/breaches", get(breaches)),
        ("/console/profile", post(profile::profile)),
    ])
}

async fn state(State(view): State<View>, request: Request) -> Answer {
    let asked = Asked::read(&request, &["model", "points"])?;
    let versions = asked.versions(&view)?;
    let state = ServerState::told(&view, &asked, &versions);
    Ok(now(&state))
}

async fn slow(State(view): State<View>, request: Request) -> Answer {
    #[derive(Serialize)]
    struct Slow {
        requests: Vec<SlowRequest>,
    }
    let asked = Asked::read(&request, &["model", "last"])?;
    let anchor = view.anchor();
    let stories = view.api.requests.remembered();
    let stories = stories
        .iter()
        .rev()
        .filter(|story| asked.is_of(&story.model));
    let told = stories.map(|story| SlowRequest::told(story, anchor));
    let requests = told.take(asked.last).collect();
    Ok(now(&Slow { requests }))
}

async fn decided(State(view): State<View>, request: Request) -> Answer {
    #[derive(Serialize)]
    struct Decided {
        decisions: Vec<crate::telemetry::Decision>,
    }
    let asked = Asked::read(&request, &["model", "last"])?;
    let versions = asked.versions(&view)?;
    let decisions = decisions(&versions, asked.last, view.anchor());
    Ok(now(&Decided { decisions }))
}

async fn breaches(State(view): State<View>, request: Request) -> Answer {
    #[derive(Serialize)]
    struct Kept<'a> {
        breaches: Vec<&'a crate::telemetry::Breach>,
    }
    let asked = Asked::read(&request, &["model", "last"])?;
    let kept = view.console.breaches.kept();
    let kept = kept.iter().rev().map(AsRef::as_ref);
    let kept = kept.filter(|breach| asked.is_of(&breach.request.model));
    let breaches = kept.take(asked.last).collect();
    Ok(now(&Kept { breaches }))
}

impl View {
    fn anchor(&self) -> Anchor {
        Anchor::at(self.api.engine.clock().now())
    }
}

/// A document that is true now and no longer.
fn now(told: &impl Serialize) -> Response {
    let mut answer = plain(told);
    let never = HeaderValue::from_static("no-store");
    answer.headers_mut().insert(CACHE_CONTROL, never);
    answer
}

#[cfg(test)]
mod tests {
    use axum::http::Method;

    use super::*;
    use crate::frontend::identity::is_listed;

    #[test]
    fn every_route_says_what_it_needs() {
        for (path, methods) in table() {
            let methods = format!("{methods:?}");
            for method in [Method::GET, Method::POST] {
                let served =
                    !methods.contains(&format!("{}: None", method.as_str().to_lowercase()));
                let listed = is_listed(&method, path);
                assert_eq!(listed, served, "{method} {path}: frontend::identity::needs");
            }
        }
    }
}
