//! Figures, the table and the chart. Invariant: what is shown is the median of all rounds; the JSON has every round.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::{Map, Value, json};

use crate::team::Team;

/// The figure of the host, of that of the services by hand, is to be at most or at least so much.
struct Target {
    team: Team,
    figure: &'static str,
    bound: f64,
    least: bool,
}

const TARGETS: [Target; 6] = [
    Target { team: Team::Host, figure: "burst: sagas a second", bound: 0.4, least: true },
    Target { team: Team::HostReusing, figure: "burst: sagas a second", bound: 0.7, least: true },
    Target { team: Team::Host, figure: "burst: processor time of all, us a saga", bound: 2.0, least: false },
    Target { team: Team::Host, figure: "500 a second: processor time of all, us a saga", bound: 0.3, least: false },
    Target { team: Team::Host, figure: "one at a time: p50, ms", bound: 0.35, least: false },
    Target { team: Team::Host, figure: "hot article: of the same with many", bound: 0.9, least: true },
];

/// One team in one round.
struct Run {
    team: Team,
    figures: Vec<(String, f64)>,
}

#[derive(Default)]
pub struct Results {
    runs: Vec<Run>,
}

impl Results {
    /// Its number.
    pub fn begin(&mut self, team: Team) -> usize {
        self.runs.push(Run { team, figures: Vec::new() });
        self.runs.len()
    }

    /// Of the run that began last.
    pub fn add(&mut self, name: &str, value: f64) {
        if let Some(run) = self.runs.last_mut() {
            run.figures.push((name.to_owned(), value));
        }
    }

    /// Every name, in the order in which they came.
    fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in self.runs.iter().flat_map(|run| &run.figures) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        names
    }

    fn of(&self, team: Team, name: &str) -> Vec<f64> {
        let runs = self.runs.iter().filter(|run| run.team == team);
        runs.flat_map(|run| &run.figures).filter(|(known, _)| known == name).map(|(_, value)| *value).collect()
    }

    fn median(&self, team: Team, name: &str) -> Option<f64> {
        let mut all = self.of(team, name);
        all.sort_by(f64::total_cmp);
        let middle = all.len() / 2;
        let lower = all.get(middle.checked_sub(1 - all.len() % 2)?)?;
        Some((lower + all.get(middle)?) / 2.0)
    }

    /// In Markdown.
    pub fn table(&self, teams: &[Team]) -> String {
        let names: Vec<&str> = teams.iter().map(|team| team.name()).collect();
        let mut text = format!(
            "| | {} | sagahost, of by hand | reuse, of by hand | target |\n|---|{}---:|---:|---|\n",
            names.join(" | "),
            "---:|".repeat(teams.len())
        );
        for name in self.names() {
            let of = |team: &Team| self.median(*team, name);
            let cells: Vec<String> = teams.iter().map(|team| of(team).map_or_else(|| "–".to_owned(), short)).collect();
            let ratios = [Team::Host, Team::HostReusing]
                .map(|team| self.ratio(team, name).map_or_else(String::new, |ratio| format!("{ratio:.2} x")));
            let targets = TARGETS.iter().filter(|target| target.figure == name && teams.contains(&target.team));
            let targets: Vec<String> = targets.map(|target| self.target(target)).collect();
            let (cells, ratios, targets) = (cells.join(" | "), ratios.join(" | "), targets.join("; "));
            let _ = writeln!(text, "| {name} | {cells} | {ratios} | {targets} |");
        }
        text
    }

    fn ratio(&self, team: Team, name: &str) -> Option<f64> {
        Some(self.median(team, name)? / self.median(Team::ByHand, name)?)
    }

    fn target(&self, target: &Target) -> String {
        let Target { team, figure, .. } = *target;
        // A figure that is a share already is compared with the bound itself.
        let value = if figure.contains("of the same") { self.median(team, figure) } else { self.ratio(team, figure) };
        let kept = value.is_some_and(|value| if target.least { value >= target.bound } else { value <= target.bound });
        let sign = if target.least { ">=" } else { "<=" };
        let of = if team == Team::Host { "" } else { "reuse " };
        format!("{of}{sign} {} x, {}", target.bound, if kept { "kept" } else { "**missed**" })
    }

    pub fn json(&self) -> Result<String> {
        let run = |run: &Run| {
            let figures: Map<String, Value> =
                run.figures.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
            json!({ "team": run.team.name(), "figures": figures })
        };
        let runs: Vec<Value> = self.runs.iter().map(run).collect();
        Ok(serde_json::to_string_pretty(&json!({ "runs": runs }))?)
    }

    /// How long an order takes at each rate, on logarithmic scales.
    pub fn chart(&self, teams: &[Team]) -> String {
        chart::of(teams, |team, rate, of| self.median(team, &format!("{rate} a second: {of}, ms")))
    }
}

mod chart {
    use std::fmt::Write as _;

    use crate::{team::Team, workloads::RATES};

    const WIDTH: f64 = 720.0;
    const HEIGHT: f64 = 400.0;
    const LEFT: f64 = 64.0;
    const BELOW: f64 = 48.0;
    const RIGHT: f64 = 150.0;
    const ABOVE: f64 = 32.0;
    /// Milliseconds at the lower and the upper edge.
    const FROM_MS: f64 = 1.0;
    const TO_MS: f64 = 10_000.0;
    const COLOURS: [&str; 4] = ["#8a5a00", "#0060c0", "#008060", "#808080"];

    fn x(rate: u32) -> f64 {
        let (first, last) = (f64::from(RATES[0]).ln(), f64::from(RATES[RATES.len() - 1]).ln());
        LEFT + (f64::from(rate).ln() - first) / (last - first) * (WIDTH - LEFT - RIGHT)
    }

    fn y(ms: f64) -> f64 {
        let part = (ms.clamp(FROM_MS, TO_MS) / FROM_MS).ln() / (TO_MS / FROM_MS).ln();
        HEIGHT - BELOW - part * (HEIGHT - BELOW - ABOVE)
    }

    pub fn of(teams: &[Team], median: impl Fn(Team, u32, &str) -> Option<f64>) -> String {
        let mut text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
             <text x=\"{LEFT}\" y=\"18\" font-size=\"14\">From when an order is due to its end, ms (line: median, dashed: p99)</text>\n"
        );
        for ms in [1.0, 10.0, 100.0, 1_000.0, 10_000.0] {
            let (at, right) = (y(ms), WIDTH - RIGHT);
            let _ =
                writeln!(text, "<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>");
            let _ = writeln!(text, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{ms}</text>", LEFT - 8.0, at + 4.0);
        }
        for rate in RATES {
            let below = HEIGHT - BELOW + 18.0;
            let _ = writeln!(text, "<text x=\"{:.1}\" y=\"{below}\" text-anchor=\"middle\">{rate}/s</text>", x(rate));
        }
        for (number, team) in teams.iter().enumerate() {
            let colour = COLOURS[number % COLOURS.len()];
            for (of, dash) in [("p50", ""), ("p99", " stroke-dasharray=\"5 4\"")] {
                let points: Vec<String> = RATES
                    .iter()
                    .filter_map(|rate| Some(format!("{:.1},{:.1}", x(*rate), y(median(*team, *rate, of)?))))
                    .collect();
                let points = points.join(" ");
                let _ = writeln!(
                    text,
                    "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>"
                );
            }
            let (left, at) = (WIDTH - RIGHT + 12.0, ABOVE + 20.0 + 20.0 * number as f64);
            let _ = writeln!(text, "<text x=\"{left}\" y=\"{at}\" fill=\"{colour}\">{}</text>", team.name());
        }
        text + "</svg>\n"
    }
}

pub fn short(value: f64) -> String {
    match value.abs() {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 1.0 => format!("{value:.1}"),
        value => format!("{value:.3}"),
    }
}
