//! The page. Invariant: every figure on it was measured in the run that wrote it.

use std::fmt::Write as _;

use crate::{Args, Figures};

pub const PATH: &str = "host/docs/kafka-or-http.md";

/// In the order of the page.
const SECTIONS: [(&str, &[&str]); 6] = [
    (
        "What each must know of the others",
        &["addresses in the configurations", "to add `loyalty`", "`loyalty` gives points, s after it was begun"],
    ),
    (
        "What an order costs",
        &[
            "orders a second",
            "one at a time: median, ms",
            "one at a time: p99, ms",
            "processor time of hosts, us an order",
            "processor time of the broker, us an order",
            "bytes over the network, kB an order",
            "memory of hosts, MB",
            "memory of the broker, MB",
        ],
    ),
    (
        "Payments are killed",
        &[
            "payments away: orders ended meanwhile",
            "payments away: orders sent again by clients",
            "payments away: all ended, s after its return",
        ],
    ),
    (
        "The host of orders is killed, or the broker",
        &[
            "orders away: orders ended meanwhile",
            "orders away: orders sent again by clients",
            "orders away: all ended, s after its return",
            "broker away: orders ended meanwhile",
            "broker away: orders sent again by clients",
            "broker away: all ended, s after its return",
        ],
    ),
    (
        "A refund fails",
        &[
            "a refund fails: an operator hears of it, s after the order was sent",
            "a refund fails: hosts that need a command",
            "a refund fails: commands that settle it",
            "a refund fails: the money is back, s after the first command",
        ],
    ),
    (
        "One answer in a hundred is lost",
        &["answers lost, of 1,000 orders", "answers lost: orders sent again by clients"],
    ),
];

pub fn of(args: &Args, all: &[(&str, Figures)]) -> String {
    let mut text = include_str!("page.md").to_owned();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    text = text
        .replace("{cores}", &cores.to_string())
        .replace("{orders}", &args.orders.to_string())
        .replace("{away}", &args.away_seconds.to_string());
    let mut tables = String::new();
    for (title, names) in SECTIONS {
        let there = |name: &&&str| all.iter().any(|(_, figures)| figures.contains_key(**name));
        let names: Vec<_> = names.iter().filter(there).collect();
        if names.is_empty() {
            continue;
        }
        let columns: Vec<&str> = all.iter().map(|(setup, _)| *setup).collect();
        let _ = writeln!(tables, "## {title}\n\n| | {} |", columns.join(" | "));
        let _ = writeln!(tables, "|---|{}", "---|".repeat(columns.len()));
        for name in names {
            let cell = |figures: &Figures| figures.get(name).cloned().unwrap_or_else(|| "–".to_owned());
            let cells: Vec<String> = all.iter().map(|(_, figures)| cell(figures)).collect();
            let _ = writeln!(tables, "| {name} | {} |", cells.join(" | "));
        }
        tables.push('\n');
    }
    text.replace("{tables}\n", &tables)
}
