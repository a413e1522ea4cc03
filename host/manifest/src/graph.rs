//! Who reads and emits what, as the manifests declare it. Invariant: it is drawn from declarations alone, so a cycle here
//! may be one that never runs; hop count and steps per saga are what stops one that does (SEMANTICS.md, rule 16).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use sagahost_saga::{notation, topology::Role};
use serde::{Deserialize, Serialize};

use crate::manifest::Manifest;

/// The app's topology, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Graph {
    pub participants: Vec<Node>,
    /// Kinds and participants in turn, from a kind back to itself: `A`, `payment`, `B`, `order`, `A`.
    pub cycles: Vec<Vec<String>>,
    /// Kinds that no participant here emits: they come from outside.
    pub from_outside: BTreeSet<String>,
    /// Kinds that no participant here reads: they are for others, or for nobody.
    pub unread: BTreeSet<String>,
    /// `stock on PaymentProcessed`: steps that others here go on from, and that nothing takes back when those fail.
    pub never_undone: BTreeSet<String>,
    /// Participants that do something that has to be undone and emit nothing when they undo it: nobody hears of it.
    pub silent_undo: BTreeSet<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Node {
    pub name: String,
    pub handles: Vec<String>,
    pub emits: Vec<String>,
    pub starts: Vec<String>,
    pub compensate_on: Vec<String>,
    pub finish_on: Vec<String>,
    pub compensable: bool,
    /// Kinds whose handling leaves nothing to undo, by its own word.
    pub not_undone: Vec<String>,
}

impl Graph {
    pub fn of<'m>(manifests: impl IntoIterator<Item = &'m Manifest>) -> Self {
        let mut participants: Vec<Node> = manifests.into_iter().map(Node::of).collect();
        participants.sort_by(|a, b| a.name.cmp(&b.name));
        let kinds =
            |of: fn(&Node) -> Vec<&String>| -> BTreeSet<String> { participants.iter().flat_map(of).cloned().collect() };
        let read = kinds(|node| node.handles.iter().chain(&node.compensate_on).chain(&node.finish_on).collect());
        let emitted = kinds(|node| node.emits.iter().chain(&node.starts).collect());
        let silent = |node: &&Node| node.compensable && node.emits.is_empty();
        Self {
            cycles: cycles(&participants),
            from_outside: read.difference(&emitted).cloned().collect(),
            unread: emitted.difference(&read).cloned().collect(),
            never_undone: participants.iter().flat_map(|node| node.never_undone(&read)).collect(),
            silent_undo: participants.iter().filter(silent).map(|node| node.name.clone()).collect(),
            participants,
        }
    }

    /// A flow chart in Mermaid's language. Kinds that nobody here reads, steps that nothing undoes and cycles are marked.
    pub fn mermaid(&self) -> String {
        let mut text = "flowchart LR\n".to_owned();
        let mut line = |line: std::fmt::Arguments<'_>| {
            let _ = writeln!(text, "  {}", notation::line(&line.to_string()));
        };
        let mut marked = BTreeSet::new();
        for kind in &self.unread {
            marked.insert((id(kind), "unread"));
        }
        for name in self.cycles.iter().flatten() {
            marked.insert((id(name), "cycle"));
        }
        for step in &self.never_undone {
            marked.insert((id(step.split(' ').next().unwrap_or_default()), "neverUndone"));
        }
        for name in &self.silent_undo {
            marked.insert((id(name), "silentUndo"));
        }
        for node in &self.participants {
            let name = &node.name;
            line(format_args!("{}[[{name}]]", id(name)));
            for kind in &node.handles {
                line(format_args!("{}([{kind}]) --> {}", id(kind), id(name)));
            }
            for kind in &node.compensate_on {
                line(format_args!("{}([{kind}]) -. compensates .-> {}", id(kind), id(name)));
            }
            for kind in &node.finish_on {
                line(format_args!("{}([{kind}]) -. finishes .-> {}", id(kind), id(name)));
            }
            for kind in &node.emits {
                line(format_args!("{} --> {}([{kind}])", id(name), id(kind)));
            }
            for kind in &node.starts {
                line(format_args!("{} -- another saga --> {}([{kind}])", id(name), id(kind)));
            }
        }
        for (name, class) in &marked {
            line(format_args!("class {name} {class}"));
        }
        for (class, style) in CLASSES.iter().filter(|(class, _)| marked.iter().any(|(_, used)| used == class)) {
            line(format_args!("classDef {class} {style}"));
        }
        text
    }
}

/// How marks look: dashed where an event ends, red where something may go wrong.
const CLASSES: &[(&str, &str)] = &[
    ("unread", "stroke-dasharray: 4"),
    ("cycle", "stroke: #c00, stroke-width: 3px"),
    ("neverUndone", "stroke: #c60, stroke-width: 3px"),
    ("silentUndo", "stroke: #c60, stroke-dasharray: 2"),
];

/// Mermaid's ids know no hyphens and dots.
fn id(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

impl Node {
    fn of(manifest: &Manifest) -> Self {
        Self {
            name: manifest.name.clone(),
            handles: manifest.subscriptions.iter().map(|subscription| subscription.kind.clone()).collect(),
            emits: manifest.emits.clone(),
            starts: manifest.starts.clone(),
            compensate_on: manifest.compensate_on.clone(),
            finish_on: manifest.finish_on.clone(),
            compensable: manifest.subscriptions.iter().any(|s| matches!(s.role, Role::Compensable)),
            not_undone: manifest
                .subscriptions
                .iter()
                .filter(|s| matches!(s.role, Role::NothingToUndo))
                .map(|s| s.kind.clone())
                .collect(),
        }
    }

    /// It says that there is nothing to undo, and yet others act on what it emits.
    fn never_undone(&self, read: &BTreeSet<String>) -> Vec<String> {
        let followed = self.emits.iter().chain(&self.starts).any(|kind| read.contains(kind));
        let steps = self.not_undone.iter().filter(|_| followed);
        steps.map(|kind| format!("{} on {kind}", self.name)).collect()
    }
}

/// Each once, beginning with the kind whose name comes first.
fn cycles(participants: &[Node]) -> Vec<Vec<String>> {
    let mut behind: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    for node in participants {
        for kind in &node.handles {
            let emitted = node.emits.iter().chain(&node.starts).map(|emitted| (&*node.name, &**emitted));
            behind.entry(kind).or_default().extend(emitted);
        }
    }
    let mut found = Vec::new();
    for start in behind.keys() {
        let mut path = vec![(*start).to_owned()];
        walk(start, start, &behind, &mut BTreeSet::new(), &mut path, &mut found);
    }
    found
}

/// Depth first, over kinds that come behind `start` in the alphabet: a cycle is found from its first kind only.
fn walk<'g>(
    start: &str,
    at: &'g str,
    behind: &BTreeMap<&'g str, Vec<(&'g str, &'g str)>>,
    seen: &mut BTreeSet<&'g str>,
    path: &mut Vec<String>,
    found: &mut Vec<Vec<String>>,
) {
    const FOUND_MAX: usize = 20;
    for (participant, kind) in behind.get(at).into_iter().flatten() {
        if found.len() >= FOUND_MAX {
            return;
        }
        path.extend([(*participant).to_owned(), (*kind).to_owned()]);
        if *kind == start {
            found.push(path.clone());
        } else if *kind > start && seen.insert(kind) {
            walk(start, kind, behind, seen, path, found);
        }
        path.truncate(path.len() - 2);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test")]

    use expect_test::expect;

    use super::*;

    fn manifest(name: &str, handles: &[&str], emits: &[&str]) -> Manifest {
        let subscriptions: Vec<_> = handles.iter().map(|kind| serde_json::json!({ "kind": kind })).collect();
        let json = serde_json::json!({
            "name": name, "version": "1.0.0", "contract": "0.1.0", "subscriptions": subscriptions, "emits": emits,
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_chain_has_no_cycle_and_two_that_feed_each_other_have_one() {
        let order = manifest("order", &["OrderCreated", "Reserved"], &["OrderCompleted"]);
        let payment = manifest("payment", &["OrderCreated"], &["Paid"]);
        let stock = manifest("stock", &["Paid"], &["Reserved"]);
        let chain = Graph::of([&order, &payment, &stock]);
        assert_eq!(chain.cycles, Vec::<Vec<String>>::new());
        assert_eq!(chain.from_outside, BTreeSet::from(["OrderCreated".to_owned()]));
        assert_eq!(chain.unread, BTreeSet::from(["OrderCompleted".to_owned()]));

        let again = manifest("again", &["Reserved"], &["Paid", "OrderCreated"]);
        let round = Graph::of([&order, &payment, &stock, &again]);
        let cycles: Vec<String> = round.cycles.iter().map(|cycle| cycle.join(" → ")).collect();
        assert_eq!(
            cycles,
            [
                "OrderCreated → payment → Paid → stock → Reserved → again → OrderCreated",
                "Paid → stock → Reserved → again → Paid"
            ]
        );
        let alone = manifest("alone", &["A"], &["A"]);
        assert_eq!(Graph::of([&alone]).cycles, [["A", "alone", "A"]]);
        assert_eq!(Graph::of([&manifest("mute", &["A"], &[])]).silent_undo, BTreeSet::from(["mute".to_owned()]));
    }

    #[test]
    fn a_step_that_others_go_on_from_and_nothing_takes_back_is_named() {
        let mut first = manifest("first", &["A"], &["B"]);
        first.subscriptions[0].role = Role::NothingToUndo;
        let second = manifest("second", &["B"], &["C"]);
        assert_eq!(Graph::of([&first, &second]).never_undone, BTreeSet::from(["first on A".to_owned()]));
        assert_eq!(Graph::of([&first]).never_undone, BTreeSet::new(), "nothing follows it");
    }

    #[test]
    fn it_is_drawn_for_mermaid() {
        let mut payment = manifest("payment-v2", &["OrderCreated"], &["Paid"]);
        payment.compensate_on = vec!["Failed".to_owned()];
        payment.finish_on = vec!["Done".to_owned()];
        expect![[r#"
            flowchart LR
              payment_v2[[payment-v2]]
              OrderCreated([OrderCreated]) --> payment_v2
              Failed([Failed]) -. compensates .-> payment_v2
              Done([Done]) -. finishes .-> payment_v2
              payment_v2 --> Paid([Paid])
              class Paid unread
              classDef unread stroke-dasharray: 4
        "#]]
        .assert_eq(&Graph::of([&payment]).mermaid());
        let mut alone = manifest("alone", &["A"], &["A"]);
        alone.subscriptions[0].role = Role::NothingToUndo;
        expect![[r#"
            flowchart LR
              alone[[alone]]
              A([A]) --> alone
              alone --> A([A])
              class A cycle
              class alone cycle
              class alone neverUndone
              classDef cycle stroke: #c00, stroke-width: 3px
              classDef neverUndone stroke: #c60, stroke-width: 3px
        "#]]
        .assert_eq(&Graph::of([&alone]).mermaid());
    }
}
