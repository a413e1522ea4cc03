//! What the laws are tried on: the manifest's examples and the author's own events, alone, behind one another, and
//! changed. Invariant: a plain case comes before a changed one, so that the first counterexample is often the plainest.

use std::collections::BTreeSet;

use sagahost_manifest::{Law, Manifest};
use serde_json::Value;

use crate::{
    case::{Body, Case, Input, SAGA},
    laws::applies,
    mutation::{plausible, random, systematic},
    random::Random,
};

/// Steps that one kind may wait for, one behind the other.
const CHAIN_MAX: usize = 16;

pub struct Material {
    /// For each kind of event: histories with the event behind them.
    scripts: Vec<Case>,
    /// The author's first two sagas.
    pair: Option<Case>,
    /// Kinds of which there is no event at all.
    pub missing: Vec<String>,
}

impl Material {
    pub fn new(manifest: &Manifest, events: &[Input]) -> Self {
        let mut scripts = prefixes(events);
        let example = |kind: &str| example(manifest, events, kind);
        let kinds: Vec<&str> = manifest.subscriptions.iter().map(|s| s.kind.as_str()).collect();
        for kind in &kinds {
            let Some(subject) = example(kind) else { continue };
            let chain: Vec<Input> = chain(manifest, kind).iter().filter_map(|kind| example(kind)).collect();
            scripts.push(case(&chain, &[&subject]));
            scripts.push(case(&chain, &[&subject, &subject]));
            let others = kinds.iter().filter(|other| *other != kind).filter_map(|other| example(other));
            scripts.extend(others.map(|other| case(&chain, &[&other, &subject])));
        }
        let mut seen = BTreeSet::new();
        scripts.retain(|script| seen.insert(script.to_string()));
        let missing = kinds.iter().filter(|kind| example(kind).is_none()).map(|kind| (*kind).to_owned());
        Self { missing: missing.collect(), scripts, pair: pair(events) }
    }

    /// Scripts as they are, one for each way to reach the kind's event.
    pub fn plain(&self, kind: &str) -> impl Iterator<Item = &Case> {
        self.scripts.iter().filter(move |script| script.subject().is_some_and(|subject| subject.kind == kind))
    }

    /// The cases of one law and one kind: those that are the same each time, and changed ones up to `cases_max`.
    pub fn cases(&self, law: Law, kind: &str, seed: u64, cases_max: usize) -> Vec<Case> {
        let plain: Vec<&Case> = self.plain(kind).collect();
        let mut cases: Vec<Case> = plain.iter().map(|case| (*case).clone()).collect();
        if law == Law::Order {
            let pair = self.pair.iter().filter(|pair| pair.subject().is_some_and(|subject| subject.kind == kind));
            cases.extend(pair.cloned());
        }
        // Growth is about many calls of one sort; each case is many.
        if law == Law::Growth || plain.is_empty() {
            return cases;
        }
        let mut numbers = Random::new(seed, &format!("{law}/{kind}"));
        let wild = matches!(law, Law::Malformed | Law::Bounds);
        if wild {
            // Behind the shortest history every change is tried.
            let first = plain[0];
            let body = first.subject().and_then(|subject| subject.body.json());
            cases.extend(body.map(systematic).unwrap_or_default().into_iter().map(|body| with(first, body)));
        }
        while cases.len() < cases_max {
            let Some(base) = numbers.pick(&plain) else { break };
            let Some(body) = base.subject().and_then(|subject| subject.body.json()) else { break };
            let body =
                if wild || numbers.below(4) == 0 { random(body, &mut numbers) } else { plausible(body, &mut numbers) };
            cases.push(with(base, body));
        }
        cases
    }
}

/// Kinds that a law has something to say about.
pub fn kinds(law: Law, manifest: &Manifest) -> Vec<String> {
    if law == Law::Calls && manifest.grants.is_empty() {
        return Vec::new();
    }
    let subscriptions = manifest.subscriptions.iter().filter(|subscription| applies(law, subscription));
    subscriptions.map(|subscription| subscription.kind.clone()).collect()
}

/// The author's events: each behind those of its saga that come before it.
fn prefixes(events: &[Input]) -> Vec<Case> {
    let before = |at: usize| events[..=at].iter().filter(|event| event.saga == events[at].saga).cloned().collect();
    (0..events.len()).map(|at| Case(before(at))).collect()
}

fn pair(events: &[Input]) -> Option<Case> {
    let first = &events.first()?.saga;
    let second = &events.iter().find(|event| event.saga != *first)?.saga;
    let of_both = events.iter().filter(|event| event.saga == *first || event.saga == *second);
    Some(Case(of_both.cloned().collect()))
}

/// An event of this kind: the author's first, else the manifest's.
fn example(manifest: &Manifest, events: &[Input], kind: &str) -> Option<Input> {
    let own = events.iter().find(|event| event.kind == kind).map(|event| event.body.clone());
    let declared = || manifest.subscription(kind)?.example.clone().filter(|example| *example != Value::Null);
    let body = own.or_else(|| declared().map(Body::Json))?;
    Some(Input { kind: kind.to_owned(), saga: SAGA.to_owned(), body })
}

/// What must be done before, by `after`, in order.
fn chain(manifest: &Manifest, kind: &str) -> Vec<String> {
    let mut chain: Vec<String> = Vec::new();
    let mut open: Vec<String> = manifest.subscription(kind).map(|s| s.after.clone()).unwrap_or_default();
    while let Some(kind) = open.pop() {
        if chain.len() == CHAIN_MAX || chain.contains(&kind) {
            continue;
        }
        open.extend(manifest.subscription(&kind).map(|s| s.after.clone()).unwrap_or_default());
        chain.insert(0, kind);
    }
    chain
}

fn case(chain: &[Input], rest: &[&Input]) -> Case {
    Case(chain.iter().chain(rest.iter().copied()).cloned().collect())
}

fn with(case: &Case, body: Body) -> Case {
    let mut changed = case.clone();
    if let Some(subject) = changed.0.last_mut() {
        subject.body = body;
    }
    changed
}
