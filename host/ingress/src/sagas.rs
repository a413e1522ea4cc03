//! How a saga stands, once and for those who follow it. Invariant: a saga that the caller may not see is as if it did not exist.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::response::{
    IntoResponse, Response,
    sse::{self, Sse},
};
use futures_util::stream;
use http::{HeaderMap, StatusCode, header::IF_NONE_MATCH};
use sagahost_saga::{
    Saga,
    id::{SagaId, Time},
};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    callers::Caller,
    document, ids,
    ingress::Ingress,
    prefer::Prefer,
    problem::{Outcome, Problem},
    standing::{applied, etag, json, put_version},
    waiters::Watch,
};

/// Proxies close a connection on which nothing is said.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Entries of a timeline that are read at once.
const PAGE: usize = 64;
/// Whoever follows a saga looks for it so often.
const LOOK: Duration = Duration::from_secs(30);

async fn of_segment(ingress: &Ingress, caller: &Caller, segment: &str) -> Result<SagaId, Problem> {
    let id = ids::decode(segment).ok_or_else(Problem::no_such_saga)?;
    if ingress.sees(caller, &id).await? { Ok(id) } else { Err(Problem::no_such_saga()) }
}

/// `GET /sagas/ID`; with `If-None-Match` and `Prefer: wait=N` it is answered when the saga has changed.
///
/// # Errors
/// There is no such saga, or its record cannot be used.
pub async fn get(
    ingress: &Arc<Ingress>,
    caller: &Caller,
    segment: &str,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let id = of_segment(ingress, caller, segment).await?;
    let prefer = Prefer::read(headers);
    let known = headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let until = Instant::now() + prefer.wait(Duration::ZERO);
    let (mut following, mut last) = (ingress.follow(&id, until), None);
    while let Some(look) = following.next().await? {
        let saga = look.ok_or_else(Problem::no_such_saga)?;
        if !known.is_some_and(|known| matches(known, &etag(&saga))) {
            return Ok(applied(whole(&saga, &ingress.reach.app), prefer));
        }
        last = Some(saga);
    }
    let saga = last.expect("it is looked at once, whatever the time is");
    Ok(applied(unchanged(&saga), prefer))
}

/// RFC 9110, 13.1.2: one of a list, or any.
fn matches(header: &str, tag: &str) -> bool {
    header.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

fn whole(saga: &Saga, app: &str) -> Response {
    let mut response = json(StatusCode::OK, document::of_saga(saga, app).get().as_bytes().to_vec());
    put_version(&mut response, saga);
    outcome(saga).put_on(&mut response);
    response
}

fn unchanged(saga: &Saga) -> Response {
    let mut response = StatusCode::NOT_MODIFIED.into_response();
    put_version(&mut response, saga);
    outcome(saga).put_on(&mut response);
    response
}

fn outcome(saga: &Saga) -> Outcome {
    use sagahost_saga::input::Status;
    match saga.status() {
        Status::Completed => Outcome::Completed,
        Status::Compensated => Outcome::Compensated,
        Status::NeedsOperator | Status::Quarantined => Outcome::NeedsOperator,
        Status::Waiting | Status::Running | Status::Finishing | Status::Compensating => Outcome::Running,
    }
}

/// `GET /sagas/ID/events`: the timeline as server-sent events, each with its place in it as its id, `CREATED.PLACE`; from the one
/// behind `Last-Event-ID` on. It ends when the saga has, and when the host stops.
///
/// # Errors
/// There is no such saga, or its record cannot be used.
pub async fn events(
    ingress: &Arc<Ingress>,
    caller: &Caller,
    segment: &str,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let id = of_segment(ingress, caller, segment).await?;
    let full = || Problem::unavailable("full", "too many follow sagas: ask for this one with `Prefer: wait=N`");
    let turn = ingress.followers.clone().try_acquire_owned().map_err(|_| full())?;
    let watch = ingress.waiters.watch(&id);
    let saga = ingress.look(&id).await?.ok_or_else(Problem::no_such_saga)?;
    // Of an earlier saga with this id nothing follows here.
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok()?.split_once('.'));
    let last = last.filter(|(created, _)| *created == created_of(&saga));
    let next = last.and_then(|(_, place)| place.parse::<u64>().ok()).map_or(0, |last| last.saturating_add(1));
    let length = saga.spilled_history() + saga.history().len() as u64;
    // Nothing follows: whoever follows is to stop.
    if outcome(&saga) != Outcome::Running && saga.status().terminal() && next >= length {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let created = saga.created();
    let follower = Follower {
        ingress: ingress.clone(),
        id,
        created,
        watch,
        next,
        ready: VecDeque::new(),
        over: false,
        _turn: turn,
    };
    let lines = stream::unfold(follower, |mut follower| async {
        let line = follower.line().await?;
        Some((Ok::<_, Infallible>(line), follower))
    });
    let keep_alive = sse::KeepAlive::new().interval(KEEP_ALIVE);
    Ok(Sse::new(lines).keep_alive(keep_alive).into_response())
}

/// One who follows a saga.
struct Follower {
    ingress: Arc<Ingress>,
    id: SagaId,
    created: Time,
    watch: Watch,
    /// Place of the next entry.
    next: u64,
    ready: VecDeque<sse::Event>,
    /// Nothing follows what is ready.
    over: bool,
    _turn: OwnedSemaphorePermit,
}

fn created_of(saga: &Saga) -> String {
    format!("{:x}", saga.created().0)
}

impl Follower {
    /// None: it is over.
    async fn line(&mut self) -> Option<sse::Event> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(line);
            }
            if self.over || self.ingress.is_stopping() {
                return None;
            }
            self.look().await?;
            if self.ready.is_empty() && !self.over {
                tokio::select! {
                    () = self.watch.changed() => {}
                    // Nobody says that it is gone.
                    () = tokio::time::sleep(LOOK) => {}
                    () = self.ingress.stopping() => return None,
                }
            }
        }
    }

    async fn look(&mut self) -> Option<()> {
        let saga = self.ingress.look(&self.id).await.ok()??;
        if saga.created() != self.created {
            return None;
        }
        let entries = self.ingress.history(&saga, self.next, PAGE).await.ok()?;
        for entry in &entries {
            let (name, line) = document::of_entry(entry);
            let id = format!("{}.{}", created_of(&saga), self.next);
            self.ready.push_back(sse::Event::default().id(id).event(name).data(line.to_string()));
            self.next += 1;
        }
        self.over = saga.status().terminal() && entries.len() < PAGE;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_are_known() {
        for known in ["\"7\"", "W/\"7\"", "*", "\"6\", \"7\""] {
            assert!(matches(known, "\"7\""), "{known}");
        }
        for other in ["\"6\"", "7", "\"77\"", ""] {
            assert!(!matches(other, "\"7\""), "{other}");
        }
    }
}
