//! What is parsed, and what people see.

#![expect(clippy::unwrap_used, reason = "tests may panic")]

use clap::{CommandFactory as _, Parser as _};
use expect_test::{Expect, expect};
use sagahost_operator::{
    plugin_view::{HistoryLine, PluginLine, PluginView, PluginsView},
    stamp::Stamp,
    view::{
        LetterGroup, LetterLine, OutboxLine, ParkedLine, SagaLine, SagaPage, SagaView, StatusView, StepLine,
        TimelineLine, TopicLine, UnhandledLine,
    },
};
use sagahost_saga::id::Time;

use super::{
    Cli, dead_letters, outbox,
    output::Output,
    plugin_text, sagas, status,
    table::{Cell, Table},
    time_text, timeline, topics,
};

/// 2026-07-29 10:03:12
const NOW: u64 = 1_785_319_392_000;

fn stamp(before_now_ms: u64) -> Stamp {
    Stamp(Time(NOW - before_now_ms))
}

fn out() -> Output {
    Output::plain(Time(NOW))
}

fn text(of: &str) -> Option<String> {
    Some(of.to_owned())
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

fn parse(line: &str, expected: Expect) {
    let words = line.split(' ').map(|word| word.replace('_', " "));
    let said = match Cli::try_parse_from(["sagahost".to_owned()].into_iter().chain(words)) {
        Ok(cli) => format!("{:?}", cli.command),
        Err(error) => error.to_string().lines().next().unwrap_or_default().to_owned(),
    };
    expected.assert_eq(&said);
}

#[test]
fn commands_are_parsed() {
    parse(
        "run --config shop.toml",
        expect![
            "Run(Run { plugins: None, place: Place { data: None }, strict: false, new_lineage: false, published: None })"
        ],
    );
    parse(
        "run --plugins p --data d",
        expect![[
            r#"Run(Run { plugins: Some("p"), place: Place { data: Some("d") }, strict: false, new_lineage: false, published: None })"#
        ]],
    );
    parse("run --plugins p", expect!["error: the following required arguments were not provided:"]);
    parse(
        "emit OrderCreated --saga o-1 --data {} --attribute a=b",
        expect![[
            r#"Emit(Emit { kind: "OrderCreated", saga: Some("o-1"), data: Some("{}"), example: false, data_dir: None, id: None, source: "sagahost-emit", topic: None, attributes: [("a", "b")], plain: false, unchecked: false })"#
        ]],
    );
    parse(
        "emit OrderCreated --saga o-1 --data {} --attribute ab",
        expect!["error: invalid value 'ab' for '--attribute <NAME=VALUE>': write NAME=VALUE"],
    );
    parse("emit OrderCreated --data {}", expect!["error: the following required arguments were not provided:"]);
    parse(
        "sagas list --status needs-operator --where a=b --limit 5",
        expect![[
            r#"Sagas(Noun { place: Place { data: None }, what: List(List { status: Some(NeedsOperator), notes: [("a", "b")], limit: 5, before: None }) })"#
        ]],
    );
    parse("sagas cancel o-1", expect!["error: the following required arguments were not provided:"]);
    parse(
        "sagas cancel o-1 --reason no_stock --by ann",
        expect![[
            r#"Sagas(Noun { place: Place { data: None }, what: Cancel { id: "o-1", reason: "no stock", operator: Operator { by: "ann" } } })"#
        ]],
    );
    parse("sagas resolve o-1 --reason x", expect!["error: the following required arguments were not provided:"]);
    parse(
        "sagas resolve o-1 --reason x --undone --accept",
        expect!["error: the argument '--undone' cannot be used with '--accept'"],
    );
    parse(
        "sagas resolve o-1 --reason x --accept --participant payment --by ann",
        expect![[
            r#"Sagas(Noun { place: Place { data: None }, what: Resolve(Resolve { id: "o-1", undone: false, accept: true, participant: Some("payment"), reason: "x", operator: Operator { by: "ann" } }) })"#
        ]],
    );
    parse(
        "dlq redrive --code trap --dry-run --by ann",
        expect![[
            r#"DeadLetters(Noun { place: Place { data: None }, what: Redrive { key: None, choice: Choice { code: Some("trap"), participant: None, saga: None, limit: 1000 }, all: false, dry_run: true, operator: Operator { by: "ann" } } })"#
        ]],
    );
    parse(
        "outbox skip 7 2 --reason x --by ann",
        expect![[
            r#"Outbox(Noun { place: Place { data: None }, what: Skip { batch: 7, row: 2, reason: "x", operator: Operator { by: "ann" } } })"#
        ]],
    );
    parse(
        "build a b --out plugins",
        expect![[r#"Build(Build { crates: ["a", "b"], out: "plugins", target_dir: None, install: false })"#]],
    );
    parse("status --config a --data b", expect![[r#"Status(Place { data: Some("b") })"#]]);
}

#[test]
fn a_timeline() {
    let step = |participant: &str, kind: &str, state: &str| StepLine {
        participant: participant.into(),
        kind: kind.into(),
        role: "compensable".into(),
        state: state.into(),
        attempts: 1,
        version: "1.0.0".into(),
        ..StepLine::default()
    };
    let entry =
        |before: u64, what: &str| TimelineLine { at: stamp(before), what: what.into(), ..TimelineLine::default() };
    let attempt = |before, who: &str, direction: &str, kind: &str, number, outcome: &str| TimelineLine {
        participant: text(who),
        direction: text(direction),
        kind: text(kind),
        attempt: Some(number),
        outcome: text(outcome),
        took_us: Some(840 * u64::from(number)),
        version: text("1.0.0"),
        ..entry(before, "attempt")
    };
    let saga = SagaView {
        id: "o-1".into(),
        app: "shop".into(),
        status: "needs-operator".into(),
        created: stamp(65_000),
        updated: stamp(3_000),
        cause: text("rejected by inventory on PaymentProcessed: out-of-stock: no sku-1 is left"),
        notes: vec![("customer".into(), "c-1".into())],
        events: 2,
        late: 1,
        steps: vec![
            step("order", "OrderCreated", "done"),
            StepLine {
                undo_attempts: 5,
                why: text("bank-closed: try again on Monday"),
                ..step("payment", "OrderCreated", "compensation-failed")
            },
            StepLine { next_at: Some(Stamp(Time(NOW + 5000))), ..step("inventory", "PaymentProcessed", "rejected") },
        ],
        parked: vec![ParkedLine {
            participant: "loyalty".into(),
            kind: "OrderCompleted".into(),
            why: "its predecessor is missing".into(),
            until: Some(Stamp(Time(NOW + 60_000))),
        }],
        letters: vec![LetterLine {
            key: "e/1|loyalty".into(),
            code: "orphan".into(),
            detail: "no OrderCreated came".into(),
            ..LetterLine::default()
        }],
        timeline: vec![
            TimelineLine {
                kind: text("OrderCreated"),
                id: text("order-created/e-1"),
                note: text("taken-in"),
                ..entry(65_000, "event")
            },
            attempt(64_990, "payment", "handle", "OrderCreated", 1, "completed"),
            TimelineLine {
                participant: text("payment"),
                kind: text("PaymentProcessed"),
                id: text("4f2a"),
                ..entry(64_990, "emitted")
            },
            TimelineLine {
                code: text("out-of-stock"),
                detail: text("no sku-1 is left"),
                ..attempt(64_980, "inventory", "handle", "PaymentProcessed", 2, "rejected")
            },
            TimelineLine {
                status: text("compensating"),
                code: text("rejected"),
                detail: text("no sku-1 is left"),
                ..entry(64_980, "status")
            },
            TimelineLine {
                code: text("bank-closed"),
                ..attempt(60_000, "payment", "compensate", "OrderCreated", 1, "retry")
            },
            TimelineLine {
                participant: text("payment"),
                kind: text("OrderCreated"),
                reason: text("retry"),
                until: Some(stamp(59_000)),
                ..entry(60_000, "parked")
            },
            TimelineLine {
                by: text("ann"),
                outcome: text("retry"),
                reason: text("it is Monday"),
                ..entry(4000, "operator")
            },
            TimelineLine { id: text("e/1|loyalty"), code: text("orphan"), ..entry(3000, "dead-letter") },
        ],
        next: vec![
            "sagahost sagas retry o-1  # payment could not undo OrderCreated: bank-closed".into(),
            "sagahost sagas resolve o-1 --undone --participant payment --reason TEXT  # it was undone by hand".into(),
        ],
        ..SagaView::default()
    };
    expect![[r#"
        saga o-1 is needs-operator in app shop
          began    2026-07-29 10:02:07 (1m ago)
          changed  2026-07-29 10:03:09 (3s ago)
          cause    rejected by inventory on PaymentProcessed: out-of-stock: no sku-1 is left
          note     customer=c-1
          late     1 events or results came too late

        steps
          participant  event             role         state                tries  undo  version  next   why
          order        OrderCreated      compensable  done                     1        1.0.0
          payment      OrderCreated      compensable  compensation-failed      1     5  1.0.0           bank-closed: try again on Monday
          inventory    PaymentProcessed  compensable  rejected                 1        1.0.0    in 5s

        parked
          participant  event           why                         until
          loyalty      OrderCompleted  its predecessor is missing  2026-07-29 10:04:12 (in 1m)

        timeline
          time                     after  who        what                                   outcome        took  version  why
          2026-07-29 10:02:07.000   +0ms             event OrderCreated                     taken-in                      order-created/e-1
                     10:02:07.010  +10ms  payment    handle OrderCreated #1                 completed     840µs  1.0.0
                     10:02:07.010  +10ms  payment    emit PaymentProcessed                                                4f2a
                     10:02:07.020  +20ms  inventory  handle PaymentProcessed #2             rejected      1.6ms  1.0.0    out-of-stock: no sku-1 is left
                     10:02:07.020  +20ms             saga                                   compensating                  rejected: no sku-1 is left
                     10:02:12.000  +5.0s  payment    compensate OrderCreated #1             retry         840µs  1.0.0    bank-closed
                     10:02:12.000  +5.0s  payment    OrderCreated waits until 10:02:13.000                                retry
                     10:03:08.000    +1m  ann        retry                                                                it is Monday
                     10:03:09.000    +1m             dead letter                            open                          orphan e/1|loyalty

        open dead letters
          e/1|loyalty  orphan: no OrderCreated came

        it needs an operator; type one of
          sagahost sagas retry o-1                                                 # payment could not undo OrderCreated: bank-closed
          sagahost sagas resolve o-1 --undone --participant payment --reason TEXT  # it was undone by hand
    "#]].assert_eq(&timeline::text(&saga, Time(NOW), false));
    let coloured = timeline::text(&saga, Time(NOW), true);
    assert!(coloured.contains("\u{1b}[31;1mneeds-operator\u{1b}[0m"));
    expect![[r#"{"at":"2026-07-29T10:02:07.020Z","what":"attempt","participant":"inventory","kind":"PaymentProcessed","direction":"handle","attempt":2,"outcome":"rejected","code":"out-of-stock","detail":"no sku-1 is left","took-us":1680,"version":"1.0.0"}"#]].assert_eq(&serde_json::to_string(&saga.timeline[3]).unwrap());
}

#[test]
fn a_page_of_sagas() {
    let saga = |id: &str, status: &str, before| SagaLine {
        id: id.into(),
        status: status.into(),
        updated: stamp(before),
        notes: vec![("customer".into(), "c-1".into())],
    };
    let page = SagaPage {
        sagas: vec![saga("o-1", "completed", 500), saga("order-1002", "needs-operator", 7_300_000)],
        counts: vec![("completed".into(), 17), ("needs-operator".into(), 1)],
        more_before: Some(41),
    };
    expect![[r#"
        saga        status          changed                       notes
        o-1         completed       2026-07-29 10:03:11 (now)     customer=c-1
        order-1002  needs-operator  2026-07-29 08:01:32 (2h ago)  customer=c-1

        in the journal: 17 completed, 1 needs-operator
        more: --before 41
    "#]]
    .assert_eq(&sagas::list_text(&page, &out()));
    expect![[r#"
        no saga matches
    "#]]
    .assert_eq(&sagas::list_text(&SagaPage::default(), &out()));
}

#[test]
fn dead_letters_in_groups_and_one_by_one() {
    let group = |code: &str, participant: Option<&str>, open| LetterGroup {
        code: code.into(),
        participant: participant.map(str::to_owned),
        open,
        ..LetterGroup::default()
    };
    let groups = [group("trap", Some("payment"), 120), group("not-json", None, 3)];
    expect![[r#"
        open  code      participant
         120  trap      payment
           3  not-json

        list them with --each, or choose with --code, --participant, --saga
    "#]]
    .assert_eq(&dead_letters::groups_text(&groups, &out()));
    let removed = LetterGroup { removed: 4102, removed_at: Some(stamp(90_000)), ..group("not-json", None, 0) };
    expect![[r#"
        no dead letter is open

        removed  code      the last one
           4102  not-json  2026-07-29 10:01:42 (1m ago)

        their records could not be decoded, and [dead-letters] in the configuration allows no more
    "#]]
    .assert_eq(&dead_letters::groups_text(&[removed], &out()));
    let letter = LetterLine {
        key: "sagahost-emit/1|payment".into(),
        saga: text("o-1"),
        participant: text("payment"),
        kind: text("OrderCreated"),
        code: "trap".into(),
        attempts: 5,
        at: stamp(90_000),
        ..LetterLine::default()
    };
    expect![[r#"
        when                          code  participant  event         saga  tries  key
        2026-07-29 10:01:42 (1m ago)  trap  payment      OrderCreated  o-1       5  sagahost-emit/1|payment
    "#]]
    .assert_eq(&dead_letters::letters_text(&[letter], &out()));
}

#[test]
fn topics_plugins_outbox_and_status() {
    let unhandled = UnhandledLine {
        topic: "order-created".into(),
        kind: "orderCreated".into(),
        events: 3,
        last: text("order-created[2]@17"),
        meant: text("OrderCreated"),
        ..UnhandledLine::default()
    };
    let archived = UnhandledLine { kind: "OrderArchived".into(), events: 12, ignored: true, ..unhandled.clone() };
    let lines = [
        TopicLine {
            name: "order-created".into(),
            kinds: vec!["OrderCreated".into()],
            read: true,
            partitions: Some(4),
            records: Some(1000),
            lag: Some(12),
            unhandled: vec![unhandled.clone(), archived],
            ..TopicLine::default()
        },
        TopicLine {
            name: "shop.dead-letters".into(),
            written: true,
            create: text("sagahost topics create shop.dead-letters"),
            held_up: Vec::new(),
            ..TopicLine::default()
        },
    ];
    expect![[r#"
        topic              kinds         the app  partitions  records  behind  unhandled
        order-created      OrderCreated  reads             4     1000      12  orderCreated 3, OrderArchived 12 (ignored)
        shop.dead-letters                writes                                                                            missing: sagahost topics create shop.dead-letters
    "#]].assert_eq(&topics::list_text(&lines, &out()));
    let listing = PluginsView {
        plugins: vec![PluginLine {
            name: "payment".into(),
            version: "1.3.0".into(),
            digest: "0123456789abcdef".into(),
            state: "serving".into(),
            admitted: Some(stamp(86_400_000)),
            handles: vec!["OrderCreated".into()],
            emits: vec!["PaymentProcessed".into(), "PaymentFailed".into()],
            file: text("plugins/payment.wasm"),
            calls: 1200,
            failures: 3,
            p50_us: 90,
            p99_us: 210,
            ..PluginLine::default()
        }],
        refused: vec![sagahost_sandbox::report::Report::of(
            std::path::Path::new("plugins/x.wasm"),
            sagahost_sandbox::report::Fault::new("it is a text file", "", "build it with `sagahost build`"),
        )],
        ..PluginsView::default()
    };
    expect![[r#"
        plugin   version  digest        state    since                         calls  failed  p50   p99    handles       emits                           file
        payment  1.3.0    0123456789ab  serving  2026-07-28 10:03:12 (1d ago)   1200       3  90µs  210µs  OrderCreated  PaymentProcessed PaymentFailed  plugins/payment.wasm

        plugins/x.wasm is not admitted: 1 fault
          - it is a text file
            do:    build it with `sagahost build`
    "#]].assert_eq(&plugin_text::list_text(&listing, &out()));
    let batch = OutboxLine {
        batch: 7,
        records: 3,
        bytes: 2100,
        topics: [("order-completed".to_owned(), 2), ("saga-failed".to_owned(), 1)].into(),
        skipped: [(1, "ann: too large".to_owned())].into(),
        ..OutboxLine::default()
    };
    expect![[r#"
        batch  records  bytes  topics                            skipped
            7        3   2100  order-completed 2, saga-failed 1  1 (ann: too large)
    "#]]
    .assert_eq(&outbox::list_text(&[batch], &out()));
    let status = StatusView {
        app: "shop".into(),
        running: true,
        transport: "kafka at 127.0.0.1:9092".into(),
        journal: "f00d in data".into(),
        incarnation: "beef".into(),
        batch: 12,
        published: 11,
        sagas: vec![("completed".into(), 1000), ("running".into(), 7)],
        open_letters: 2,
        removed_letters: 4102,
        queued_commands: 1,
        counters: [("events".to_owned(), 4000)].into(),
        waiting_for: vec!["the broker at 127.0.0.1:9092, away for 12s".into()],
        held: vec!["order-created[2]: it was recreated".into()],
        unhandled: vec![unhandled.clone(), UnhandledLine { ignored: true, ..unhandled }],
    };
    expect![[r#"
        app shop runs
          waits for the broker at 127.0.0.1:9092, away for 12s
          held order-created[2]: it was recreated
          transport    kafka at 127.0.0.1:9092
          journal      f00d in data
          incarnation  beef
          batches      12 journaled, 1 of them not known to be published
          unhandled    3 × orderCreated in order-created, last at order-created[2]@17: did you mean OrderCreated?
          dead letters 2 open: `sagahost dead-letters list`
          dead letters 4102 removed, past the bounds of [dead-letters]
          commands     1 wait for a host to run

          sagas
          completed  1000
          running       7

          since its start
          events           4000
    "#]]
    .assert_eq(&status::text(&status, &out()));
}

#[test]
fn tables_leave_out_empty_columns_and_trailing_blanks() {
    let mut table = Table::new(["name", "none", "count", "last"]);
    table.row(["ä".into(), "".into(), Cell::number(5), "x".into()]);
    table.row(["longer".into(), "".into(), Cell::number(1000), "".into()]);
    expect![[r#"
        name    count  last
        ä           5  x
        longer   1000
    "#]]
    .assert_eq(&table.render(false));
}

#[test]
fn times() {
    let relative = |before| time_text::relative(stamp(before), Time(NOW));
    let said = [0, 900, 59_999, 60_000, 3_600_000 * 30, 86_400_000 * 9].map(relative).join(", ");
    expect!["now, now, 59s ago, 1m ago, 1d ago, 9d ago"].assert_eq(&said);
    let took = [0, 999, 1000, 12_345, 3_400_000].map(time_text::took).join(", ");
    expect!["0µs, 999µs, 1.0ms, 12.3ms, 3.4s"].assert_eq(&took);
    let after = [0, 999, 1500, 61_000].map(|ms| time_text::after(stamp(100_000), stamp(100_000 - ms))).join(", ");
    expect!["+0ms, +999ms, +1.5s, +1m"].assert_eq(&after);
}

/// Every command, argument and flag is named in the reference.
#[test]
fn the_reference_names_every_flag() {
    let reference = include_str!("../../docs/cli.md");
    let mut missing = Vec::new();
    gather(&Cli::command(), "sagahost", reference, &mut missing);
    for code in super::exit::HELP.lines().skip(1) {
        let code = code.trim().split(' ').next().unwrap_or_default();
        if !reference.contains(&format!("| {code} |")) {
            missing.push(format!("exit code {code}"));
        }
    }
    assert!(missing.is_empty(), "host/docs/cli.md does not name: {missing:#?}");
}

fn gather(command: &clap::Command, path: &str, reference: &str, missing: &mut Vec<String>) {
    let section = reference.split("\n## ").find(|section| section.starts_with(&format!("`{path}`")));
    let subcommands: Vec<&clap::Command> = command.get_subcommands().filter(|sub| sub.get_name() != "help").collect();
    if subcommands.is_empty() && section.is_none() {
        missing.push(format!("section `{path}`"));
    }
    for argument in command.get_arguments().filter(|argument| !argument.is_global_set()) {
        let name = match argument.get_long() {
            Some("help" | "version") => continue,
            Some(long) => format!("`--{long}"),
            None => format!("`{}", argument.get_id().as_str().to_uppercase()),
        };
        if !section.is_some_and(|section| section.contains(&name)) {
            missing.push(format!("{name}` of `{path}`"));
        }
    }
    for sub in subcommands {
        gather(sub, &format!("{path} {}", sub.get_name()), reference, missing);
    }
}

#[test]
fn the_reference_names_every_field() {
    let reference = include_str!("../../docs/configuration.md");
    let named = |field: &String| {
        let (table, name) = field.rsplit_once('.').unwrap_or(("", field));
        let section = reference.split("\n## ").find(|section| {
            section.starts_with(&format!("`[{table}]`")) || (table.is_empty() && section.starts_with("Top level"))
        });
        // Tables that hold others are named by their own sections.
        section.is_some_and(|section| section.contains(&format!("`{name}`")))
            || reference.contains(&format!("`[{field}]`"))
            || reference.contains(&format!("`[{field}."))
    };
    let missing: Vec<String> = crate::config::field_names().into_iter().filter(|field| !named(field)).collect();
    assert!(missing.is_empty(), "host/docs/configuration.md does not name: {missing:#?}");
}

/// What the reference shows as an example is right.
#[test]
fn the_reference_s_examples_are_right() {
    let reference = include_str!("../../docs/configuration.md");
    for example in reference.split("```toml\n").skip(1) {
        let text = example.split("```").next().unwrap();
        if let Err(faults) = crate::config::Config::parse(text, std::path::Path::new("example")) {
            panic!("{faults}\n{text}");
        }
    }
}

#[test]
fn all_about_one_plugin() {
    let version = |number: &str, state: &str| PluginLine {
        name: "payment".into(),
        version: number.into(),
        digest: format!("{number}0123456789abcdef"),
        state: state.into(),
        config: "c0ffee0123456789".into(),
        admitted: Some(stamp(86_400_000)),
        ..PluginLine::default()
    };
    let view = PluginView {
        name: "payment".into(),
        versions: vec![
            PluginLine {
                calls: 1200,
                notes: vec!["nobody here reads PaymentRefunded".into()],
                ..version("1.3.0", "serving")
            },
            PluginLine { note: Some("it fails".into()), ..version("1.2.0", "quarantined") },
        ],
        manifest: serde_json::json!({
            "name": "payment", "version": "1.3.0", "contract": "0.1.0", "data-format": 2, "reads": [1, 2],
            "subscriptions": [{"kind": "OrderCreated", "deadline-ms": 500}, {"kind": "Late", "role": "nothing-to-undo"}],
            "emits": ["PaymentProcessed"], "finish-on": ["OrderCompleted"],
            "config": {
                "limit": {"type": "integer", "default": 7}, "key": {"type": "string", "required": true},
                "label": {"type": "string"},
            },
        }),
        configured: vec!["key".into()],
        unfinished: [("1.2.00123456789abcdef".to_owned(), 3)].into(),
        history: vec![HistoryLine {
            at: stamp(3_600_000),
            digest: "1.3.00123456789abcdef".into(),
            config: "c0ffee0123456789".into(),
            what: "serves in place of 1.2.0".into(),
        }],
        ..PluginView::default()
    };
    expect![[r#"
        plugin payment

          version  digest        configuration  state        since                         calls  unfinished
          1.3.0    1.3.00123456  c0ffee012345   serving      2026-07-28 10:03:12 (1d ago)   1200
          1.2.0    1.2.00123456  c0ffee012345   quarantined  2026-07-28 10:03:12 (1d ago)                  3  it fails

          handles       role             when     from  deadline
          OrderCreated  compensable      running  now   500ms
          Late          nothing-to-undo  running  now

          emits           PaymentProcessed
          finishes on     OrderCompleted
          data format     2, reads 1 2
          configuration   key (set) label (not set) limit=7
          note            nobody here reads PaymentRefunded

          history                                                 version  configuration
          2026-07-29 09:03:12 (1h ago)  serves in place of 1.2.0  1.3.0    c0ffee012345
    "#]]
    .assert_eq(&plugin_text::show_text(&view, &out()));
}
