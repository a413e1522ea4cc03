//! Ids that no keyboard has: as commands print them they can be typed. Invariant of all tests: the words that are typed are
//! those that were printed.

use sagahost_tests::{binary::Site, wait::until};
use serde_json::Value;

/// A false row, control sequences, an option, quotes and blanks, a turned direction, a key of eight bytes.
const IDS: [&str; 6] =
    ["a\nFORGED  completed\u{1b}[2J", "-rf", "it's \"quoted\"  twice", "\"", "o\u{202e}1\\n", "\0\0\0\0\0\0\0*"];

#[test]
fn every_id_is_printed_so_that_it_can_be_typed() {
    let site = Site::new(&["hostile"], "app = \"shop\"\n");
    let host = site.start();
    for id in IDS {
        let typed = serde_json::to_string(id).unwrap();
        let data = r#"{"fault": "none"}"#;
        let emitted = site.run(&["emit", "HostileTried", "--saga", &typed, "--id", &typed, "--data", data]);
        assert_eq!(emitted.code, 0, "{emitted:?}");
    }
    let listed = until("all sagas are there", || {
        let json: Value = serde_json::from_str(&site.run(&["sagas", "list", "--json"]).out).unwrap();
        let ids = json["sagas"].as_array()?.iter().map(|saga| saga["id"].as_str().unwrap_or_default().to_owned());
        Some(ids.collect::<Vec<_>>()).filter(|ids| ids.len() == IDS.len())
    });
    assert!(IDS.iter().all(|id| listed.iter().any(|listed| listed == id)), "{listed:?}");

    let text = site.run(&["sagas", "list"]).out;
    let rows: Vec<&str> = text.lines().skip(1).take_while(|line| !line.is_empty()).collect();
    assert_eq!(rows.len(), IDS.len(), "one row for each:\n{text}");
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()) && !text.contains('\u{202e}'), "{text:?}");
    for row in rows {
        // An id with blanks is in quotes, and a table's columns are two blanks apart.
        let printed = row.split("  ").next().unwrap();
        let shown = site.run(&["sagas", "show", printed]);
        assert_eq!(shown.code, 0, "{printed}: {shown:?}");
        assert!(shown.out.starts_with(&format!("saga {printed} is running")), "{}", shown.out);
        let cancelled = site.run(&["sagas", "cancel", printed, "--reason", "a test"]);
        assert_eq!(cancelled.code, 0, "{printed}: {cancelled:?}");
    }
    let lost = site.run(&["sagas", "show", r"a\nb"]);
    assert!(lost.code == 3 && lost.err.contains("is typed with them, in single quotes"), "{lost:?}");
    let half = site.run(&["sagas", "show", "\"half"]);
    assert!(half.code == 2 && half.err.contains("is read as a JSON string"), "{half:?}");
    assert_eq!(host.stop(), 0);
}
