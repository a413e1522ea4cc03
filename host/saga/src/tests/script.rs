//! Tests as data: a script of what happens, and what a person then sees. Invariant: every word of a script is known;
//! an unknown one fails the test.
//!
//! `with …` shapes the topology (`with payment.OrderCreated pivot`), `PARTICIPANT ANSWER` queues an answer
//! (`payment rejects DECLINED`, `payment undo stuck NO`, with `always` in front: every time), `return PARTICIPANT
//! ANSWER` brings a hanging call back, a capitalised word is an event (`OrderCreated#2=data`), the rest is time,
//! operators and the host (`wait 5s`, `stall 20m`, `cancel`, `retry`, `resolve accept|undone [P]`, `redrive P`,
//! `discard P`, `request EVENT [P]`, `crash`, `away P`, `back P`, `upgrade P`).

use std::{collections::VecDeque, time::Duration};

use expect_test::Expect;

use super::world::{Answer, World, emission, event, member, shop, subscription};
use crate::{
    Saga,
    id::{Direction, Participant},
    input::{Command, Input, RedrivenEvent},
    topology::{OnDeadLetter, Role, Subscription, When},
};

#[track_caller]
pub fn check(script: &str, expect: Expect) {
    let world = play(script);
    expect.assert_eq(&world.report());
}

pub fn play(script: &str) -> World {
    let mut world = World::new(shop());
    play_on(&mut world, script);
    world
}

pub fn play_on(world: &mut World, script: &str) {
    for line in script.split([';', '\n']).map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        world.log.push(format!("> {line}"));
        if words[0] == "with" {
            world.log.pop();
            world.shape(&words[1..]);
        } else {
            world.step(&words);
        }
        if world.hanging.is_empty() {
            world.saga.check(&world.topology).expect("the record keeps its invariants");
        }
    }
}

impl World {
    fn step(&mut self, words: &[&str]) {
        let by = || "ann".to_owned();
        let reason = || "because".to_owned();
        match words {
            ["wait", time] => self.pass(duration(time), true),
            ["stall", time] => self.pass(duration(time), false),
            ["due"] => self.due(true),
            ["request", word, rest @ ..] => self.request(word, rest.first().copied()),
            ["cancel"] => self.operator(Command::Cancel { by: by(), reason: reason() }),
            ["retry"] => self.operator(Command::Retry { by: by() }),
            ["resolve", how, rest @ ..] => {
                let participant = rest.first().map(Participant::new);
                self.operator(Command::Resolve { by: by(), reason: reason(), accept: *how == "accept", participant });
            }
            ["redrive", who] => {
                let letter = self.letters.last().expect("there is a letter").clone();
                let event = RedrivenEvent(letter.event);
                self.operator(Command::Redrive { by: by(), letter: letter.key, participant: (*who).into(), event });
            }
            ["discard"] => {
                let letter = self.letters.last().expect("there is a letter").key.clone();
                self.operator(Command::Discard { by: by(), letter, reason: reason() });
            }
            ["crash"] => self.crash(),
            ["away", who] => self.serve(who, false),
            ["back", who] => self.serve(who, true),
            ["upgrade", who] => self.digests.push(((*who).into(), "d2".to_owned())),
            ["return", who, "attempt", attempt, answer @ ..] => {
                let of = |call: &crate::outcome::Call| call.participant.as_str() == *who;
                let attempt: u32 = attempt.parse().expect("a number");
                let mut made = self.made.iter().filter(|call| call.undo.is_none() && call.attempt == attempt);
                let call = made.find(|call| of(call)).expect("such a call was made").clone();
                self.end(&call, &parse(answer));
            }
            ["return", who, answer @ ..] => {
                let of = |call: &crate::outcome::Call| call.participant.as_str() == *who;
                let place = self.hanging.iter().position(of).expect("a call is out");
                let call = self.hanging.remove(place);
                self.end(&call, &parse(answer));
            }
            [kind, rest @ ..] if kind.starts_with(char::is_uppercase) => self.arrive(kind, rest),
            [who, "always", "undo", answer @ ..] => {
                self.always.push(((*who).into(), Direction::Undo, parse(answer)));
            }
            [who, "always", answer @ ..] => self.always.push(((*who).into(), Direction::Forward, parse(answer))),
            [who, "never", ..] => self.always.retain(|(of, ..)| of.as_str() != *who),
            [who, "undo", answer @ ..] => self.queue(who, Direction::Undo, parse(answer)),
            [who, answer @ ..] => self.queue(who, Direction::Forward, parse(answer)),
            [] => unreachable!("empty lines are skipped"),
        }
    }

    fn arrive(&mut self, word: &str, rest: &[&str]) {
        let (word, data) = word.split_once('=').unwrap_or((word, "{}"));
        let (kind, id) = word.split_once('#').map_or((word, word), |(kind, _)| (kind, word));
        let mut event = event(kind, id, data);
        if let ["hops", hops] = rest {
            event.hops = hops.parse().expect("a number");
        }
        let transition = self.receive(event);
        if let Some(why) = transition.disposition.nothing() {
            self.log.push(format!("nothing: {why}"));
        }
    }

    /// `to`: the participant that it asks for a step.
    fn request(&mut self, word: &str, to: Option<&str>) {
        let (word, data) = word.split_once('=').unwrap_or((word, "{}"));
        let kind = word.split_once('#').map_or(word, |(kind, _)| kind);
        let transition = self.requested(event(kind, word, data), to);
        if let Some(why) = transition.disposition.nothing() {
            self.log.push(format!("nothing: {why}"));
        }
    }

    fn operator(&mut self, command: Command) {
        self.input(Input::Operator(command));
    }

    /// Time passes in one jump; what is due is told at once.
    fn pass(&mut self, time: Duration, deadlines: bool) {
        self.now = self.now.after(time);
        self.due(deadlines);
    }

    fn due(&mut self, deadlines: bool) {
        let transition = self.input(Input::Due { deadlines });
        if let Some(why) = transition.disposition.nothing() {
            self.log.push(format!("nothing: {why}"));
        }
    }

    /// The host comes back with what was durable.
    fn crash(&mut self) {
        self.saga = Saga::decode(&self.saga.encode()).expect("what was encoded decodes");
        self.hanging.clear();
        for call in self.saga.in_doubt() {
            self.input(Input::Started { call, interrupted: true });
        }
    }

    fn serve(&mut self, who: &str, serving: bool) {
        let member = self.topology.members.iter_mut().find(|member| member.name.as_str() == who);
        member.expect("a known participant").serving = serving;
        self.input(Input::TopologyChanged);
    }

    fn queue(&mut self, who: &str, direction: Direction, answer: Answer) {
        self.log.pop();
        let of =
            |(name, to, _): &&mut (Participant, Direction, VecDeque<Answer>)| name.as_str() == who && *to == direction;
        match self.answers.iter_mut().find(of) {
            Some((_, _, answers)) => answers.push_back(answer),
            None => self.answers.push((who.into(), direction, VecDeque::from([answer]))),
        }
    }

    fn shape(&mut self, words: &[&str]) {
        match words {
            ["data", "alike"] => self.data_alike = true,
            ["only", who] => self.topology.members.retain(|member| member.name.as_str() == *who),
            ["member", who, kind, when] => {
                let mut subscription = subscription(kind, Role::NothingToUndo);
                subscription.when = when_of(when);
                let members = &mut self.topology.members;
                match members.iter_mut().find(|member| member.name.as_str() == *who) {
                    Some(member) => member.subscriptions.push(subscription),
                    None => members.push(member(who, vec![subscription])),
                }
            }
            ["parked-max", max] => self.topology.bounds.parked_per_saga_max = max.parse().expect("a number"),
            ["data-max", max] => self.topology.bounds.data_bytes_max = max.parse().expect("a number"),
            ["steps-max", max] => self.topology.bounds.steps_per_saga_max = max.parse().expect("a number"),
            ["emissions-max", max] => self.topology.bounds.emissions_per_outcome_max = max.parse().expect("a number"),
            ["hops-max", max] => self.topology.bounds.hops_max = max.parse().expect("a number"),
            ["events-max", max] => self.topology.bounds.events_per_saga_max = max.parse().expect("a number"),
            ["inline-max", max] => {
                self.topology.bounds.inline_events_max = max.parse().expect("a number");
                self.topology.bounds.inline_history_max = max.parse().expect("a number");
            }
            [step, "emits", kind, rest @ ..] => {
                let (who, of) = step.split_once('.').expect("PARTICIPANT.KIND");
                let mut emission = emission(kind);
                match rest {
                    ["after", time] => emission.after = Some(duration(time)),
                    ["for", saga] => emission.saga = Some((*saga).into()),
                    [] => {}
                    _ => panic!("unknown: {rest:?}"),
                }
                self.extra.push((who.into(), of.into(), emission));
            }
            [step, rest @ ..] if step.contains('.') => {
                let (who, kind) = step.split_once('.').expect("it has a point");
                let member = self.topology.members.iter_mut().find(|member| member.name.as_str() == who);
                let member = member.expect("a known participant");
                if member.subscription(&kind.into()).is_none() {
                    member.subscriptions.push(subscription(kind, Role::Compensable));
                }
                let of = |sub: &&mut Subscription| sub.kind.as_str() == kind;
                shape_subscription(member.subscriptions.iter_mut().find(of).expect("it is there"), rest);
            }
            [who, rest @ ..] => {
                let member = self.topology.members.iter_mut().find(|member| member.name.as_str() == *who);
                let member = member.expect("a known participant");
                match rest {
                    ["outside"] => member.outside_effects = true,
                    ["compensate-on", kind] => drop(member.compensate_on.insert((*kind).into())),
                    ["finish-on", kind] => drop(member.finish_on.insert((*kind).into())),
                    ["finishes"] => member.finishes = true,
                    _ => panic!("unknown: {words:?}"),
                }
            }
            [] => panic!("with what?"),
        }
    }

    /// What a person sees: what happened, how it stands.
    pub fn report(&self) -> String {
        let mut lines = self.log.clone();
        lines.push(format!("= {}", kebab(&self.saga.status())));
        for step in self.saga.steps() {
            let released = if step.released { ", released" } else { "" };
            let attempts = if step.attempts > 1 { format!(", {} attempts", step.attempts) } else { String::new() };
            lines.push(format!("  {}.{}: {}{attempts}{released}", step.participant, step.kind, kebab(&step.state)));
        }
        if let Some(cause) = self.saga.cause() {
            lines.push(format!("  cause: {} ({})", cause.code, cause.detail));
        }
        if self.saga.late() > 0 {
            lines.push(format!("  late: {}", self.saga.late()));
        }
        lines.extend(self.saga.open_letters().iter().map(|letter| format!("  open letter: {}", letter.code)));
        lines.extend(self.saga.next_commands().iter().map(|command| format!("  {command}")));
        lines.join("\n") + "\n"
    }
}

fn shape_subscription(sub: &mut Subscription, words: &[&str]) {
    match words {
        ["pivot"] => sub.role = Role::Pivot,
        ["retriable"] => sub.role = Role::Retriable,
        ["compensable"] => sub.role = Role::Compensable,
        ["nothing-to-undo"] => sub.role = Role::NothingToUndo,
        ["when", when] => sub.when = when_of(when),
        ["after", kind] => sub.after.push((*kind).into()),
        ["attempts", max] => sub.retry.attempts_max = max.parse().expect("a number"),
        ["deadline", time] => sub.deadline = Some(duration(time)),
        ["ttl", time] => sub.park_ttl = duration(time),
        ["block"] => sub.on_dead_letter = OnDeadLetter::Block,
        ["skip"] => sub.on_dead_letter = OnDeadLetter::Skip,
        [] => {}
        _ => panic!("unknown: {words:?}"),
    }
}

fn when_of(word: &str) -> When {
    match word {
        "running" => When::Running,
        "compensating" => When::Compensating,
        "both" => When::Both,
        _ => panic!("unknown: {word}"),
    }
}

fn parse(words: &[&str]) -> Answer {
    match words {
        ["ok"] => Answer::Ok,
        ["rejects", code] => Answer::Rejects((*code).to_owned()),
        ["retries", code] => Answer::Retries((*code).to_owned(), None),
        ["retries", code, time] => Answer::Retries((*code).to_owned(), Some(duration(time))),
        ["crashes"] => Answer::Crashes { uncertain: false },
        ["uncertain"] => Answer::Crashes { uncertain: true },
        ["not-yet"] => Answer::NotYet,
        ["invalid", code] => Answer::Invalid((*code).to_owned()),
        ["unreadable"] => Answer::Unreadable,
        ["unsent", code] => Answer::Unsent((*code).to_owned()),
        ["stuck", code] => Answer::Stuck((*code).to_owned()),
        ["nothing"] => Answer::Nothing,
        ["hangs"] => Answer::Hangs,
        ["sends"] => Answer::Sends,
        _ => panic!("unknown answer: {words:?}"),
    }
}

fn duration(text: &str) -> Duration {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).expect("a unit"));
    let number: u64 = number.parse().expect("a number");
    match unit {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(60 * number),
        "d" => Duration::from_secs(86400 * number),
        _ => panic!("unknown unit: {text}"),
    }
}

/// As it is written everywhere else.
fn kebab(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).expect("a name").as_str().expect("a name").to_owned()
}
