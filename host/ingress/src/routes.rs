//! Which request is for whom. Invariant: what no route names is refused, as a problem document; and nobody is asked before it is
//! known who asks.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{
    HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONNECTION, X_CONTENT_TYPE_OPTIONS},
};
use sagahost_net::Peer;
use tracing::debug;

use crate::{
    begin::{self, Beginning},
    callers::Caller,
    ingress::Ingress,
    openapi,
    problem::Problem,
    sagas,
    settings::{Does, Route},
    standing, steps,
};

/// For the server that accepts connections.
pub fn service(ingress: &Arc<Ingress>) -> Router {
    let mut router = Router::new();
    for route in &ingress.settings.routes {
        let of = Arc::new(route.clone());
        let handler = move |State(ingress): State<Arc<Ingress>>, request: Request| async move {
            answer(&ingress, &of, request).await.unwrap_or_else(IntoResponse::into_response)
        };
        router = router.route(&route.path, post(handler));
    }
    router
        .route("/sagas/{id}", get(saga))
        .route("/sagas/{id}/events", get(saga))
        .route("/openapi.json", get(document))
        .fallback(unknown)
        .method_not_allowed_fallback(other_method)
        .layer(middleware::from_fn_with_state(ingress.clone(), guard))
        .with_state(ingress.clone())
}

/// Before and behind each request.
async fn guard(State(ingress): State<Arc<Ingress>>, mut request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let authority = request.uri().authority().map(|authority| authority.as_str());
    let caller = ingress.callers.caller(request.headers(), authority, request.extensions().get::<Peer>());
    let mut response = match caller {
        _ if ingress.is_stopping() => Problem::stopping().into_response(),
        Err(problem) => problem.into_response(),
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if ingress.is_stopping() {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    debug!(%method, path, status = response.status().as_u16(), "answered");
    response
}

fn caller(request: &Request) -> Caller {
    request.extensions().get::<Caller>().cloned().expect("nothing is asked before the guard knows who asks")
}

async fn answer(ingress: &Arc<Ingress>, route: &Route, request: Request) -> Result<Response, Problem> {
    let caller = caller(&request);
    caller.may(&route.name())?;
    let parts: (_, Body) = request.into_parts();
    match &route.does {
        Does::Begin { kind, saga_id, key_required, conflict } => {
            let of = Beginning { kind, saga_id, key_required: *key_required, conflict: *conflict };
            begin::begin(ingress, &caller, route, of, parts).await
        }
        Does::Step { participant, saga_id } => {
            steps::step(ingress, &caller, route, (participant, saga_id.as_deref()), parts).await
        }
        Does::Undo { participant } => steps::undo(ingress, &caller, participant, parts).await,
    }
}

/// Its id is read from the path as it came: it has an encoding of its own.
async fn saga(State(ingress): State<Arc<Ingress>>, request: Request) -> Response {
    let caller = caller(&request);
    let path = request.uri().path().strip_prefix("/sagas/").unwrap_or_default();
    let answer = match path.strip_suffix("/events") {
        Some(id) => sagas::events(&ingress, &caller, id, request.headers()).await,
        None => sagas::get(&ingress, &caller, path, request.headers()).await,
    };
    answer.unwrap_or_else(IntoResponse::into_response)
}

async fn document(State(ingress): State<Arc<Ingress>>, request: Request) -> Response {
    match openapi::document(&ingress, &caller(&request)).await {
        Ok(document) => standing::json(StatusCode::OK, document.to_string().into_bytes()),
        Err(problem) => problem.into_response(),
    }
}

async fn unknown() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "no-such-route", "no route has this path; /openapi.json lists them")
}

async fn other_method() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "other-method",
        "this path takes other methods; /openapi.json lists them",
    )
}
