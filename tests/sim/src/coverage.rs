//! The core's table, phase × input × disposition: what a run of many seeds has covered, held against `coverage.txt`.
//! Invariant: each combination is covered, or excluded with a reason; one that is both is a fault of the list.

use std::collections::BTreeMap;

use sagahost_processor::coverage::{Cell, DISPOSITIONS, INPUTS, PHASES};

/// How often each was met, and in which seed first.
pub type Table = BTreeMap<Cell, (u64, u64)>;

pub fn add(table: &mut Table, seed: u64, met: impl IntoIterator<Item = (Cell, u64)>) {
    for (cell, count) in met {
        table.entry(cell).or_insert((0, seed)).0 += count;
    }
}

/// Lines as `never|seldom PHASE INPUT DISPOSITION: why`, each one name, several with commas, or `*` for all.
/// What is seldom may be met or not.
const LIST: &str = include_str!("../coverage.txt");

struct Line<'l> {
    text: &'l str,
    never: bool,
    cell: [&'l str; 3],
}

impl<'l> Line<'l> {
    fn parse(text: &'l str) -> Result<Self, String> {
        let wrong = || format!("coverage.txt: write it as `never PHASE INPUT DISPOSITION: why`: {text}");
        let (cell, why) = text.split_once(": ").ok_or_else(wrong)?;
        let words: Vec<&str> = cell.split_whitespace().collect();
        let [how @ ("never" | "seldom"), phase, input, disposition] = words[..] else { return Err(wrong()) };
        let known = |words: &str, all: &[&str]| words == "*" || words.split(',').all(|word| all.contains(&word));
        if why.is_empty() || !known(phase, &PHASES) || !known(input, &INPUTS) || !known(disposition, &DISPOSITIONS) {
            return Err(wrong());
        }
        Ok(Self { text, never: how == "never", cell: [phase, input, disposition] })
    }

    fn is_about(&self, cell: &Cell) -> bool {
        self.cell
            .into_iter()
            .zip([cell.0, cell.1, cell.2])
            .all(|(mine, its)| mine == "*" || mine.split(',').any(|one| one == its))
    }
}

pub fn print(table: &Table) {
    println!("{:>14} {:<18} {}", "phase", "input", DISPOSITIONS.map(|name| format!("{name:>10}")).concat());
    for phase in PHASES {
        for input in INPUTS {
            let counts = DISPOSITIONS.map(|disposition| table.get(&(phase, input, disposition)).map_or(0, |met| met.0));
            if counts.iter().any(|count| *count > 0) {
                println!("{phase:>14} {input:<18} {}", counts.map(|count| format!("{count:>10}")).concat());
            }
        }
    }
}

/// What is neither covered nor excluded, and what is both.
pub fn faults(table: &Table) -> Vec<String> {
    let lines = LIST.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(Line::parse);
    let lines: Vec<Line<'_>> = match lines.collect() {
        Ok(lines) => lines,
        Err(wrong) => return vec![wrong],
    };
    let mut faults = Vec::new();
    for cell in
        PHASES.iter().flat_map(|p| INPUTS.iter().flat_map(move |i| DISPOSITIONS.iter().map(move |d| (*p, *i, *d))))
    {
        let (count, seed) = table.get(&cell).copied().unwrap_or_default();
        let mut excluded = false;
        for line in lines.iter().filter(|line| line.is_about(&cell)) {
            excluded = true;
            if line.never && count > 0 {
                faults.push(format!(
                    "{cell:?} was met {count} times, first in seed {seed}, and is excluded: {}",
                    line.text
                ));
            }
        }
        if count == 0 && !excluded {
            faults.push(format!("{cell:?} was not met, and is not excluded"));
        }
    }
    faults
}
