//! The routes as OpenAPI 3.1. Invariant: it is made of the routes and the manifests that serve, so it says what this host does
//! for whoever asks.

use std::collections::BTreeMap;

use sagahost_manifest::Manifest;
use serde_json::{Map, Value, json};

use crate::{
    callers::Caller,
    ingress::Ingress,
    problem::Problem,
    settings::{Does, Route},
};

/// # Errors
/// The journal cannot be read.
pub async fn document(ingress: &Ingress, caller: &Caller) -> Result<Value, Problem> {
    let rows = ingress.read(|journal| journal.admitted()).await?;
    let manifests: Vec<Manifest> = rows.iter().filter(|row| row.serving).filter_map(|row| row.manifest()).collect();
    let mut paths: BTreeMap<String, Value> = ingress
        .settings
        .routes
        .iter()
        .filter(|route| caller.may(&route.name()).is_ok())
        .map(|route| (route.path.clone(), json!({ "post": of_route(route, &manifests) })))
        .collect();
    paths.insert("/sagas/{sagaId}".to_owned(), json!({ "get": of_saga() }));
    paths.insert("/sagas/{sagaId}/events".to_owned(), json!({ "get": of_events() }));
    let mut document = json!({
        "openapi": "3.1.0",
        "info": { "title": &*ingress.reach.app, "version": env!("CARGO_PKG_VERSION") },
        "paths": paths,
        "components": components(),
    });
    if !ingress.settings.principals.is_empty()
        && let Value::Object(members) = &mut document
    {
        members.insert("security".to_owned(), json!([{ "token": [] }, { "certificate": [] }]));
    }
    Ok(document)
}

fn of_route(route: &Route, manifests: &[Manifest]) -> Value {
    match &route.does {
        Does::Begin { kind, saga_id, key_required, .. } => json!({
            "summary": format!("Begins a saga with {kind}"),
            "operationId": operation(&route.path),
            "parameters": [key(*key_required), prefer()],
            "requestBody": body(example(manifests, None, kind.as_str()), &format!("The data of {kind}; the saga id is at {saga_id}")),
            "responses": responses(&[
                ("200", "The saga is completed; the body is its result", true),
                ("202", "The saga is under way; Location says where it can be asked for", true),
                ("400", "The key or the body is wrong", false),
                ("409", "The saga is compensated: nothing of it stands. Or it exists already (`saga-exists`), or it runs and the route does not wait with it (`request-in-progress`)", true),
                ("415", "The body is not JSON", false),
                ("422", "The key was used with another body", false),
                ("500", "The saga needs an operator", true),
            ]),
        }),
        Does::Step { participant, .. } => json!({
            "summary": format!("Asks {participant} for a step"),
            "operationId": operation(&route.path),
            "parameters": [header("ce-type", "Kind of the event"), header("ce-sagaid", "The saga"), key(false), prefer()],
            "requestBody": body(example(manifests, Some(participant.as_str()), ""), "The data of the event"),
            "responses": responses(&[
                ("200", "The step is done; the body are the events that it emitted", true),
                ("202", "The step is not decided yet: send the same request again", true),
                ("400", "The request is invalid", true),
                ("409", "The saga was compensated: the step is undone, or will never run", true),
                ("422", "The participant rejected, or the key was used with another body", true),
                ("500", "The step needs an operator", true),
            ]),
        }),
        Does::Undo { participant } => json!({
            "summary": format!("Cancels a saga, and says what became of the steps of {participant}"),
            "operationId": operation(&route.path),
            "parameters": [prefer()],
            "requestBody": body(json!({ "sagaId": "o-1" }), "Which saga"),
            "responses": responses(&[
                ("200", "Undone, or there was nothing to undo; the body are the events that followed", true),
                ("202", "Not undone yet: send the same request again", true),
                ("500", "It cannot be undone: an operator is needed", true),
            ]),
        }),
    }
}

fn operation(path: &str) -> String {
    let mut words = path.split(|character: char| !character.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let first = words.next().unwrap_or("root").to_owned();
    words.fold(first, |name, word| {
        let (head, tail) = word.split_at(1);
        name + &head.to_ascii_uppercase() + tail
    })
}

/// Of the kind, or of the first that the participant handles.
fn example(manifests: &[Manifest], participant: Option<&str>, kind: &str) -> Value {
    let of = |manifest: &&Manifest| participant.is_none_or(|name| manifest.name == name);
    let subscriptions = manifests.iter().filter(of).flat_map(|manifest| &manifest.subscriptions);
    let mut examples = subscriptions
        .filter(|subscription| participant.is_some() || subscription.kind == kind)
        .filter_map(|subscription| subscription.example.clone());
    examples.next().unwrap_or(Value::Null)
}

fn body(example: Value, description: &str) -> Value {
    let mut media = Map::from_iter([("schema".to_owned(), json!({ "type": "object" }))]);
    if !example.is_null() {
        media.insert("example".to_owned(), example);
    }
    json!({ "required": true, "description": description, "content": { "application/json": media } })
}

fn header(name: &str, description: &str) -> Value {
    json!({ "name": name, "in": "header", "description": description, "schema": { "type": "string" } })
}

fn key(required: bool) -> Value {
    json!({
        "name": "Idempotency-Key", "in": "header", "required": required,
        "description": "The same on each repetition of a request; without it, the saga id",
        "schema": { "type": "string", "minLength": 1, "maxLength": 255 },
    })
}

fn prefer() -> Value {
    header("Prefer", "`wait=N` (seconds, at most 50) or `respond-async` (RFC 7240)")
}

fn responses(all: &[(&str, &str, bool)]) -> Value {
    let common = [
        ("401", "Say who asks", false),
        ("403", "Not granted", false),
        ("408", "The body came too slowly", false),
        ("413", "The body is too large", false),
        ("503", "Nothing is known of the request: send the same one again", false),
    ];
    let response = |(status, description, of_saga): &(&str, &str, bool)| {
        let mut said = Map::from_iter([("description".to_owned(), Value::from(*description))]);
        if *of_saga {
            said.insert("headers".to_owned(), json!({ "Sagahost-Outcome": { "schema": { "type": "string" } } }));
        }
        if !status.starts_with('2') {
            let problem = json!({ "$ref": "#/components/schemas/Problem" });
            said.insert("content".to_owned(), json!({ "application/problem+json": { "schema": problem } }));
        }
        ((*status).to_owned(), Value::Object(said))
    };
    Value::Object(all.iter().chain(&common).map(response).collect())
}

fn saga_id() -> Value {
    json!({ "name": "sagaId", "in": "path", "required": true, "schema": { "type": "string" } })
}

fn of_saga() -> Value {
    json!({
        "summary": "How a saga stands; with If-None-Match and Prefer: wait=N, once that has changed",
        "operationId": "getSaga",
        "parameters": [saga_id(), header("If-None-Match", "The ETag of the answer before"), prefer()],
        "responses": {
            "200": { "description": "Status, cause, steps and result", "content": { "application/json": { "schema": { "type": "object" } } } },
            "304": { "description": "It has not changed" },
            "404": { "description": "There is no such saga, or it is not yours" },
        },
    })
}

fn of_events() -> Value {
    json!({
        "summary": "The timeline of a saga, as server-sent events",
        "operationId": "followSaga",
        "parameters": [saga_id(), header("Last-Event-ID", "The last one that was received")],
        "responses": {
            "200": { "description": "The timeline", "content": { "text/event-stream": {} } },
            "204": { "description": "The saga has ended, and nothing follows" },
            "404": { "description": "There is no such saga, or it is not yours" },
        },
    })
}

fn components() -> Value {
    json!({
        "schemas": {
            "Problem": {
                "type": "object",
                "description": "RFC 9457",
                "properties": {
                    "type": { "type": "string" }, "title": { "type": "string" }, "status": { "type": "integer" },
                    "code": { "type": "string" }, "detail": { "type": "string" }, "instance": { "type": "string" },
                    "sagaId": { "type": "string" },
                },
            },
        },
        "securitySchemes": {
            "token": { "type": "http", "scheme": "bearer" },
            "certificate": { "type": "mutualTLS" },
        },
    })
}
