//! `sagahost dev` through the real binary: an author changes the source and sees what becomes of it.

use std::fs;

use sagahost_tests::author::{Author, Running};

fn change(author: &Author, from: &str, to: &str) {
    let file = author.path("seats/src/lib.rs");
    let text = fs::read_to_string(&file).expect("the source is there");
    assert!(text.contains(from), "{text}");
    fs::write(&file, text.replace(from, to)).expect("the source can be written");
}

fn serving(author: &Author) -> Running {
    author.types("sagahost new seats --on SeatsAsked --emits SeatsTaken");
    let mut dev = author.starts(&["dev"], "seats");
    dev.says("serving; `help`", 0);
    dev
}

#[test]
fn a_change_of_the_source_serves_the_next_event_and_a_bad_one_does_not() {
    let author = Author::default();
    let mut dev = serving(&author);

    // From another terminal.
    let said = author.types("cd seats && sagahost emit --example SeatsAsked");
    let saga = said.split_whitespace().find(|word| word.starts_with("example-")).expect("it names the saga");
    dev.says(&format!("saga {saga} is running"), 0);
    let known = dev.says("emit SeatsTaken", 0);

    change(&author, "capacity: i64,", "capacity: i64x,");
    dev.says("cannot find type `i64x`", known);
    let known = dev.says("the previous version still serves", known);
    dev.is_typed("example SeatsAsked");
    let known = dev.says("handle SeatsAsked #1  completed", known);

    // Mended, and another rule.
    change(&author, "capacity: i64x,", "capacity: i64,");
    change(&author, "\"nothing is asked for\"", "\"nobody comes\"");
    let known = dev.says("serves from the next event on", known);
    dev.is_typed("emit SeatsAsked @s-1 {\"orderId\": \"s-1\", \"quantity\": 0}");
    dev.says("QUANTITY: nobody comes", known);

    let (code, said) = dev.interrupted();
    assert_eq!(code, 0, "{said}");
    // The second change may be under way as a build of its own.
    assert!(said.contains("ended: everything is journaled and published\n"), "{said}");
}

#[test]
fn the_prompt_answers_and_the_next_run_begins_anew() {
    let author = Author::default();
    let mut dev = serving(&author);
    dev.is_typed("exampel SeatsAsked");
    dev.says("did you mean `example`?", 0);
    dev.is_typed("example SeatsAskde");
    dev.says("no plugin here takes SeatsAskde: did you mean `SeatsAsked`?", 0);
    dev.is_typed("example SeatsAsked");
    let known = dev.says("saga dev-1 is running", 0);
    dev.is_typed("show dev-1");
    dev.says("saga dev-1 is running in app sagahost", known);
    dev.is_typed("sagas");
    dev.says("in the journal: 1 running", known);
    let (code, said) = author.fails(&["dev", "--dir", "seats"]);
    assert_eq!(code, 1);
    assert!(said.contains("another `sagahost dev` is running in seats/.sagahost-dev"), "{said}");
    assert_eq!(dev.interrupted().0, 0);

    let mut dev = author.starts(&["dev"], "seats");
    let known = dev.says("serving; `help`", 0);
    dev.is_typed("sagas");
    dev.says("no saga matches", known);
    dev.is_typed("quit");
    dev.says("ended: everything is journaled and published", known);
}
