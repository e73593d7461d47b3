//! `/metrics` over HTTP.
//!
//! Invariant: a scrape asks the loop where it stands, once; between scrapes nothing is computed.

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use crate::driver::{Input, Inspection};
use crate::error::NodeError;
use crate::metrics::Metrics;

#[derive(Clone)]
struct Scraped {
    inputs: mpsc::UnboundedSender<Input>,
    metrics: Arc<Metrics>,
}

/// `/metrics`, to be served wherever operators look for it.
pub(crate) fn router(inputs: mpsc::UnboundedSender<Input>, metrics: Arc<Metrics>) -> Router {
    Router::new().route("/metrics", get(scrape)).with_state(Scraped { inputs, metrics })
}

/// Serves until it is dropped.
pub(crate) fn serve(
    listener: std::net::TcpListener,
    router: Router,
) -> Result<impl Future<Output = ()>, NodeError> {
    let failed = |error: std::io::Error| NodeError::Runtime {
        what: "the metrics listener",
        error: error.into(),
    };
    listener.set_nonblocking(true).map_err(failed)?;
    let listener = TcpListener::from_std(listener).map_err(failed)?;
    Ok(async move {
        // Accepting errors are retried in there; it returns only when it is dropped.
        let _ = axum::serve(listener, router).await;
    })
}

async fn scrape(State(scraped): State<Scraped>) -> Response {
    match inspect(&scraped.inputs).await {
        Some(inspection) => {
            let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
            (content_type, scraped.metrics.render(&inspection)).into_response()
        }
        None => (StatusCode::SERVICE_UNAVAILABLE, "the node stops\n").into_response(),
    }
}

/// `None` once the loop has ended.
async fn inspect(inputs: &mpsc::UnboundedSender<Input>) -> Option<Inspection> {
    let (reply, answer) = oneshot::channel();
    // An input that cannot be sent comes back, with the reply in it: nobody may wait for that.
    inputs.send(Input::Inspect(reply)).ok()?;
    answer.await.ok()
}
