//! Figures, and the table that they make. Invariant: a table has the medians of all rounds, and says of each figure with a
//! bound whether the host that is measured keeps it.

use std::{borrow::Cow, collections::BTreeMap};

use sagahost_demo::figures::quantile;

/// Where the tables are kept.
pub const PAGE: &str = "host/docs/neighbours.md";

/// One number of one run.
pub struct Figure {
    pub what: Cow<'static, str>,
    pub unit: &'static str,
    pub value: f64,
    pub bound: Option<f64>,
    /// More is better, and the bound is the least.
    more: bool,
}

impl Figure {
    pub fn new(what: impl Into<Cow<'static, str>>, unit: &'static str, value: f64) -> Self {
        Self { what: what.into(), unit, value, bound: None, more: false }
    }

    pub fn at_most(self, bound: f64) -> Self {
        Self { bound: Some(bound), ..self }
    }

    pub fn at_least(self, bound: f64) -> Self {
        Self { bound: Some(bound), more: true, ..self }
    }

    fn keeps(&self, value: f64) -> Option<bool> {
        self.bound.map(|bound| if self.more { value >= bound } else { value <= bound })
    }
}

#[derive(Default)]
pub struct Table {
    /// In the order of the case.
    figures: Vec<Figure>,
    values: BTreeMap<(Cow<'static, str>, usize), Vec<f64>>,
}

impl Table {
    /// Of one run, of the host of that number.
    pub fn add(&mut self, host: usize, figures: Vec<Figure>) {
        for figure in figures {
            eprintln!("  {}: {} {}", figure.what, short(figure.value), figure.unit);
            self.values.entry((figure.what.clone(), host)).or_default().push(figure.value);
            if self.figures.iter().all(|known| known.what != figure.what) {
                self.figures.push(figure);
            }
        }
    }

    fn median(&self, figure: &Figure, host: usize) -> f64 {
        self.values.get(&(figure.what.clone(), host)).map_or(f64::NAN, |all| quantile(all, 0.5))
    }

    /// What the last of so many hosts does not keep.
    pub fn missed(&self, hosts: usize) -> Vec<&str> {
        let missed = |figure: &&Figure| figure.keeps(self.median(figure, hosts - 1)) == Some(false);
        self.figures.iter().filter(missed).map(|figure| &*figure.what).collect()
    }

    /// In Markdown. Of two hosts the first one is the other.
    pub fn text(&self, hosts: usize) -> String {
        let columns = if hosts > 1 { "other | this" } else { "this" };
        let aligned = "---:|".repeat(hosts);
        let mut text = format!("| | {columns} | bound | |\n|---|{aligned}---:|---|\n");
        for figure in &self.figures {
            let of = |host| self.median(figure, host);
            let cells: String = (0..hosts).map(|host| format!("| {} {} ", short(of(host)), figure.unit)).collect();
            let bound = figure.bound.map(|bound| format!("{} {}", short(bound), figure.unit)).unwrap_or_default();
            let kept = match figure.keeps(of(hosts - 1)) {
                None => "",
                Some(true) => "kept",
                Some(false) => "**missed**",
            };
            text.push_str(&format!("| {} {cells}| {bound} | {kept} |\n", figure.what));
        }
        text
    }
}

fn short(value: f64) -> String {
    if value.is_nan() {
        "none".to_owned()
    } else if value.abs() < 10.0 && value.fract() != 0.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

/// The page with another section of that case, and the others as they were.
pub fn replace(page: &str, case: &str, section: &str) -> String {
    let heading = format!("## `{case}`\n");
    let Some((head, rest)) = page.split_once(&heading) else { return format!("{}\n\n{section}", page.trim_end()) };
    let behind = rest.find("## `").map_or("", |at| &rest[at..]);
    format!("{}\n\n{}\n\n{behind}", head.trim_end(), section.trim_end()).trim_end().to_owned() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_medians_and_says_what_is_kept() {
        let mut table = Table::default();
        for (round, (other, this)) in [(900.0, 20.0), (800.0, 10.0), (1_000.0, 40.0)].into_iter().enumerate() {
            table.add(0, vec![Figure::new("p99", "ms", other).at_most(30.0)]);
            table.add(1, vec![Figure::new("p99", "ms", this), Figure::new("done", "/s", round as f64).at_least(5.0)]);
        }
        let text = table.text(2);
        assert!(text.starts_with("| | other | this | bound | |\n|---|---:|---:|---:|---|\n"), "{text}");
        assert!(text.contains("| p99 | 900 ms | 20 ms | 30 ms | kept |"), "{text}");
        assert!(text.contains("| done | none /s | 1 /s | 5 /s | **missed** |"), "{text}");
        assert_eq!(table.missed(2), ["done"]);
    }

    #[test]
    fn a_page_keeps_the_sections_of_other_cases() {
        let page = replace("# Page\n\nText\n", "a", "## `a`\n\nold\n");
        let page = replace(&page, "b", "## `b`\n\nb\n");
        assert_eq!(replace(&page, "a", "## `a`\n\nnew\n"), "# Page\n\nText\n\n## `a`\n\nnew\n\n## `b`\n\nb\n");
    }
}
