//! How commands end, by the real binary. Invariant: each kind of end has an exit code of its own, which the kind alone
//! decides, and a text that says what happened.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixListener,
    process::Command,
    thread,
};

use sagahost_tests::binary::Site;

/// Commands that go to the host, one for each request that changes something and one that only asks.
const COMMANDS: [&[&str]; 6] = [
    &["sagas", "cancel", "o-1", "--reason", "a test"],
    &["topics", "resume", "order-created[0]", "--from", "earliest"],
    &["plugins", "pause", "payment", "--reason", "a test"],
    &["dead-letters", "redrive", "order-created[0]@7"],
    &["config", "reload"],
    &["status"],
];

fn site(config: &str) -> Site {
    let site = Site::new(&[], config);
    fs::create_dir(site.file("data")).expect("it is new");
    site
}

/// Stands in for a host of that site: answers each request with `reply`, or reads it and says nothing.
fn answering(site: &Site, reply: Option<String>) {
    let listener = UnixListener::bind(site.file("data/admin.sock")).expect("the socket can be bound");
    thread::spawn(move || {
        let mut silent = Vec::new();
        for stream in listener.incoming().flatten() {
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).expect("a request comes");
            match &reply {
                Some(reply) => writeln!(&stream, "{reply}").expect("it can be answered"),
                None => silent.push(stream),
            }
        }
    });
}

#[test]
fn the_kind_that_a_host_answers_is_the_exit_code_of_every_command() {
    let kinds = [
        ("not-found", 3),
        ("invalid", 2),
        ("refused", 5),
        ("needs-host", 4),
        ("unavailable", 11),
        ("timed-out", 12),
        ("transport", 9),
        ("journal", 10),
        ("failed", 1),
        ("a-kind-of-a-newer-host", 1),
    ];
    for (kind, code) in kinds {
        let site = site("");
        let text = format!("it is {kind}");
        answering(&site, Some(format!(r#"{{"refused":{{"why":"{kind}","text":"{text}"}}}}"#)));
        for words in COMMANDS {
            let ended = site.run(words);
            assert_eq!((ended.code, ended.err.trim_end()), (code, &*text), "{words:?}");
        }
        let ended = site.run(&["--json", "status"]);
        assert_eq!(ended.code, code);
        let said: serde_json::Value = serde_json::from_str(&ended.err).expect("it is JSON");
        assert_eq!(said, serde_json::json!({ "error": text, "exit-code": code }));
    }
}

#[test]
fn a_host_that_does_not_answer_in_time_is_told_from_one_that_is_not_there() {
    let silent = site("[admin]\nrequest-timeout = \"100ms\"\n");
    answering(&silent, None);
    let ended = silent.run(&["status"]);
    assert_eq!(ended.code, 12, "{}", ended.err);
    assert!(
        ended.err.starts_with("timed out after ") && ended.err.contains("it may still be carried out"),
        "{}",
        ended.err
    );

    let foreign = site("");
    answering(&foreign, Some("good morning".to_owned()));
    let ended = foreign.run(&["status"]);
    assert_eq!(ended.code, 4, "{}", ended.err);
    assert!(ended.err.contains("is of another version"), "{}", ended.err);
}

/// Words, and how they end: the code, and what is said.
fn check(site: &Site, words: &[&str], code: i32, said: &str) {
    let ended = site.run(words);
    assert_eq!(ended.code, code, "{words:?}: {}", ended.err);
    assert!(ended.err.contains(said), "{words:?}: {}", ended.err);
}

#[test]
fn without_a_host_the_codes_are_the_same() {
    let site = site("");
    check(&site, &["sagas", "list"], 3, "there is no journal in");
    check(&site, &["sagas", "lists"], 2, "unrecognized subcommand");
    check(&site, &["--config", "other.toml", "status"], 2, "other.toml");
    check(&site, &["run"], 1, "nothing to run: no plugin in");
    check(&site, &["sagas", "show", "nobody"], 3, "there is no saga nobody");
    check(&site, &["topics", "resume", "order-created[0]"], 4, "no host is running");
    check(&site, &["plugins", "pause", "payment", "--reason", "a test"], 3, "no plugin payment serves");

    fs::write(site.file("data/topics.db"), "no database").expect("it can be written");
    check(&site, &["topics", "list"], 9, "topics.db");
    fs::write(site.file("data/journal.db"), "no database").expect("it can be written");
    check(&site, &["sagas", "list"], 10, "failed to open the journal");
}

#[test]
fn a_running_host_refuses_with_the_reason() {
    let site = Site::new(&["order", "payment"], "");
    fs::write(site.file("plugins/broken.wasm"), "no plugin").expect("it can be written");
    let host = site.start();
    check(&site, &["plugins", "list"], 1, "1 not admitted");
    check(&site, &["outbox", "retry"], 5, "no outbox row is refused");
    let retire = ["plugins", "retire", "payment", "--reason", "a test"];
    check(&site, &retire, 5, "payment.wasm is in the plugin directory: remove it first");
    check(&site, &["plugins", "resume", "payment"], 3, "plugin payment is not paused by an operator");
    check(&site, &["topics", "resume", "order-created[0]"], 3, "order-created[0] is not held");
    fs::write(site.file("sagahost.toml"), "no configuration").expect("it can be written");
    // The command itself needs no more of the file than where the data is.
    check(&site, &["config", "reload"], 2, "sagahost.toml");
    assert_eq!(host.stop(), 0);
}

#[test]
fn a_second_signal_ends_the_host_at_once() {
    let site = Site::new(&["order"], "");
    let host = site.start();
    let id = host.id().to_string();
    // Held still meanwhile, so that the first signal cannot end it before the second one is there.
    for signal in ["-STOP", "-INT", "-TERM", "-CONT"] {
        let sent = Command::new("kill").args([signal, &id]).status().expect("kill runs");
        assert!(sent.success());
    }
    let (code, log) = host.ended_with();
    assert_eq!(code, 130, "{log}");
    assert!(log.contains("second signal received: exiting immediately"), "{log}");
    // It left nothing behind that would keep the next one from starting.
    assert_eq!(site.start().stop(), 0);
}
