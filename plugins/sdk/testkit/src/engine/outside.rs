//! Whom plugins ask over HTTP, as the test says it. Invariant: a key is acted upon once, and answered alike each time; nobody
//! answers what the test says nothing of.

use std::collections::{BTreeMap, VecDeque};

use sagahost_manifest::{
    http::{Answer, Failure, Grant, Request, Response, Target},
    sends::{Row, Send},
};
use sagahost_saga::{
    id::{Direction, SagaId},
    outcome::Call,
};
use serde_json::Value;

use super::report;
use crate::protocol::{self, Requested, Scripted};

/// What is kept of requests, and who answers them.
#[derive(Default)]
pub(super) struct Outside {
    scripts: Vec<Script>,
    /// What was answered under a key.
    remembered: BTreeMap<String, Response>,
    pub asked: Vec<Requested>,
    /// Of each step in each direction, for each ordinal.
    pub rows: BTreeMap<(SagaId, String, &'static str, u32), Vec<Row>>,
}

struct Script {
    method: String,
    url: Grant,
    next: VecDeque<Scripted>,
    standing: Option<Scripted>,
}

/// Under what rows are kept.
pub(super) fn place(call: &Call, direction: Direction, ordinal: u32) -> (SagaId, String, &'static str, u32) {
    (call.event.saga.clone(), call.step_id.clone(), direction.name(), ordinal)
}

impl Outside {
    pub(super) fn script(
        &mut self,
        method: String,
        url: String,
        answer: Scripted,
        times: Option<u32>,
    ) -> Result<(), String> {
        let grant = Grant::parse(&url).map_err(|why| format!("`{url}`: {why}"))?;
        if matches!(answer, Scripted::Response { status, .. } if !(100..600).contains(&status)) {
            return Err(format!("{answer:?} has no status that HTTP has"));
        }
        let known = self.scripts.iter().position(|script| script.method == method && script.url == grant);
        let at = known.unwrap_or_else(|| {
            self.scripts.push(Script { method, url: grant, next: VecDeque::new(), standing: None });
            self.scripts.len() - 1
        });
        let script = &mut self.scripts[at];
        match times {
            Some(times) => script.next.extend(std::iter::repeat_n(answer, times as usize)),
            None if answer == Scripted::Lost => return Err("a lost answer is lost so many `times`".to_owned()),
            None => script.standing = Some(answer),
        }
        Ok(())
    }

    pub(super) fn answer(&mut self, call: &Call, Send { request, key, .. }: &Send) -> Result<Answer, String> {
        let (answer, said) = self.answered(request, key)?;
        self.asked.push(Requested {
            saga: call.event.saga.to_string(),
            plugin: call.participant.to_string(),
            direction: match call.direction {
                Direction::Forward => protocol::Direction::Handle,
                Direction::Undo => protocol::Direction::Compensate,
            },
            attempt: call.attempt,
            method: request.method.clone(),
            url: request.url.clone(),
            key: key.clone(),
            body: report::json(&request.body),
            answered: said,
        });
        Ok(answer)
    }

    fn answered(&mut self, request: &Request, key: &str) -> Result<(Answer, String), String> {
        let target = Target::parse(&request.url)?;
        let fits = |script: &&mut Script| script.method == request.method && script.url.covers(&target);
        let script = self.scripts.iter_mut().filter(fits).max_by_key(|script| script.url.path_len());
        let nobody = || {
            let shown = request.shown();
            format!(
                "nobody answers {shown}: say what does with `host.http(\"{}\", \"{}\").answers(…)`",
                request.method, request.url
            )
        };
        let script = script.ok_or_else(nobody)?;
        let lost = script.next.front() == Some(&Scripted::Lost);
        if lost {
            script.next.pop_front();
        }
        let response = match self.remembered.get(key) {
            Some(known) => known.clone(),
            None => match script.next.pop_front().or_else(|| script.standing.clone()).ok_or_else(nobody)? {
                Scripted::Response { status, body } => response(status, &body),
                Scripted::Unreachable => {
                    return Ok((failed(false, "unreachable", "the test says so"), "unreachable".to_owned()));
                }
                Scripted::Lost => {
                    return Err(format!(
                        "what is lost of {}? `loses_answer` is followed by the answer",
                        request.shown()
                    ));
                }
            },
        };
        if response.status != 429 && response.status < 500 {
            self.remembered.insert(key.to_owned(), response.clone());
        }
        if lost {
            return Ok((failed(true, "timeout", "the test says so"), "lost".to_owned()));
        }
        let said = response.status.to_string();
        Ok((Ok(response), said))
    }
}

fn response(status: u16, body: &Value) -> Response {
    let (content_type, body) = match body {
        Value::Null => return Response { status, headers: Vec::new(), body: Vec::new() },
        Value::String(text) => ("text/plain", text.clone().into_bytes()),
        json => ("application/json", json.to_string().into_bytes()),
    };
    Response { status, headers: vec![("content-type".to_owned(), content_type.to_owned())], body }
}

fn failed(sent: bool, code: &str, detail: &str) -> Answer {
    Err(Failure { sent, code: code.to_owned(), detail: detail.to_owned() })
}
