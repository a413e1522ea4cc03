//! Aligned tables. Invariant: no line ends in blanks, colours take no room, and a cell is within its line whatever is in
//! it.

use sagahost_saga::notation;

/// What a cell means, so that a terminal can show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Good,
    Busy,
    Bad,
    Faint,
}

impl Tone {
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Good => Some("32"),
            Self::Busy => Some("33"),
            Self::Bad => Some("31;1"),
            Self::Faint => Some("2"),
        }
    }
    pub fn paint(self, text: &str, colour: bool) -> String {
        match self.code().filter(|_| colour && !text.is_empty()) {
            Some(code) => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            None => text.to_owned(),
        }
    }

    /// The sequence of these colours that a text begins with.
    pub fn sequence(text: &str) -> Option<&str> {
        const ALL: [&str; 5] = ["\u{1b}[0m", "\u{1b}[32m", "\u{1b}[33m", "\u{1b}[31;1m", "\u{1b}[2m"];
        let sequence = ALL.into_iter().find(|sequence| text.starts_with(sequence))?;
        text.get(..sequence.len())
    }
}

/// Of a saga, a step, a plugin.
pub fn tone_of(state: &str) -> Tone {
    match state {
        "completed" | "done" | "serving" | "undone" => Tone::Good,
        "running" | "finishing" | "compensating" | "retrying" | "started" | "waiting" | "early" | "retry"
        | "not-yet" => Tone::Busy,
        "needs-operator"
        | "quarantined"
        | "compensation-failed"
        | "blocked"
        | "unknown"
        | "paused"
        | "refused"
        | "stuck"
        | "invalid"
        | "uncertain"
        | "given-up" => Tone::Bad,
        _ => Tone::Plain,
    }
}

#[derive(Clone, Debug)]
pub struct Cell {
    text: String,
    tone: Tone,
    right: bool,
}

impl Cell {
    pub fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: notation::line(&text.into()).into_owned(), tone, right: false }
    }
    /// As it can be typed.
    pub fn id(id: &str) -> Self {
        Self { text: notation::id(id).into_owned(), tone: Tone::Plain, right: false }
    }
    /// Of what may have one; empty: it has none.
    pub fn id_if_any(id: Option<&str>) -> Self {
        id.map_or_else(|| "".into(), Self::id)
    }
    pub fn state(text: &str) -> Self {
        Self::toned(text, tone_of(text))
    }
    pub fn number(number: impl ToString) -> Self {
        Self { text: number.to_string(), tone: Tone::Plain, right: true }
    }
    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

pub struct Table {
    indent: usize,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub fn new<const N: usize>(header: [&str; N]) -> Self {
        Self { indent: 0, rows: vec![header.iter().map(|name| Cell::toned(*name, Tone::Faint)).collect()] }
    }

    pub fn indented(mut self, by: usize) -> Self {
        self.indent = by;
        self
    }

    pub fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        self.rows.push(cells.into());
    }

    /// Columns in which no row has anything are left out.
    pub fn render(&self, colour: bool) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| self.rows.iter().map(|row| row[column].width()).max().unwrap_or(0);
        let filled = |column: &usize| self.rows.iter().skip(1).any(|row| row[*column].width() > 0);
        let right = |column: usize| self.rows.iter().skip(1).all(|row| row[column].right || row[column].width() == 0);
        let shown: Vec<(usize, usize, bool)> =
            (0..columns).filter(filled).map(|column| (column, width(column), right(column))).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = " ".repeat(self.indent);
            for (i, (column, width, right)) in shown.iter().enumerate() {
                let cell = &row[*column];
                let blanks = " ".repeat(width - cell.width());
                let painted = cell.tone.paint(&cell.text, colour);
                line += if i > 0 { "  " } else { "" };
                line += &if *right { blanks + &painted } else { painted + &blanks };
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}
