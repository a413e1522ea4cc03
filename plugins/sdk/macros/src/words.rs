//! Names that an author types: unknown ones are answered with the nearest known one. Invariant: whoever mistypes a name
//! reads all names that there are.

use syn::{Ident, Token, parse::ParseStream};

/// Names seen so far, so that none is given twice.
#[derive(Default)]
pub struct Words {
    seen: Vec<String>,
}

impl Words {
    /// The next name before `=`, one of `known`.
    pub fn next(&mut self, input: ParseStream, known: &[&str]) -> syn::Result<Ident> {
        let name: Ident = input.parse()?;
        let text = name.to_string();
        if !known.contains(&text.as_str()) {
            return Err(syn::Error::new(name.span(), format!("unknown argument `{text}`; {}", choices(&text, known))));
        }
        if self.seen.contains(&text) {
            return Err(syn::Error::new(name.span(), format!("duplicate `{text}`")));
        }
        self.seen.push(text);
        Ok(name)
    }
}

/// One of some words, as the role of a subscription.
pub fn one_of(input: ParseStream, what: &str, known: &[&str]) -> syn::Result<Ident> {
    let word: Ident = input.parse()?;
    let text = word.to_string();
    if known.contains(&text.as_str()) {
        return Ok(word);
    }
    Err(syn::Error::new(word.span(), format!("`{text}` is not a valid {what}; {}", choices(&text, known))))
}

/// `=`, with an example where it is missing.
pub fn equals(input: ParseStream, name: &Ident, example: &str) -> syn::Result<()> {
    if input.parse::<Option<Token![=]>>()?.is_some() {
        return Ok(());
    }
    Err(syn::Error::new(name.span(), format!("`{name}` needs a value: `{name} = {example}`")))
}

/// The comma behind an argument; none is needed behind the last one.
pub fn comma(input: ParseStream) -> syn::Result<()> {
    if input.is_empty() { Ok(()) } else { input.parse::<Token![,]>().map(|_| ()) }
}

/// `did you mean …? there are …`
pub fn choices(typed: &str, known: &[&str]) -> String {
    let all = match known {
        [] => String::new(),
        [one] => format!("there is `{one}`"),
        [first @ .., last] => {
            let first: Vec<String> = first.iter().map(|word| format!("`{word}`")).collect();
            format!("there are {} and `{last}`", first.join(", "))
        }
    };
    match nearest(typed, known) {
        Some(near) if known.len() == 1 => format!("did you mean `{near}`?"),
        Some(near) => format!("did you mean `{near}`? {all}"),
        None => all,
    }
}

fn nearest<'a>(typed: &str, known: &[&'a str]) -> Option<&'a str> {
    let typed = typed.to_lowercase().replace('-', "_");
    let (distance, word) = known.iter().map(|word| (distance(&typed, word), *word)).min()?;
    (distance <= 1 + word.len() / 3).then_some(word)
}

/// How many letters must be put in, left out or replaced.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (line, letter) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, other) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// As the host checks it.
pub fn is_kind(kind: &str) -> bool {
    const BYTES_MAX: usize = 128;
    (1..=BYTES_MAX).contains(&kind.len())
        && kind.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':'))
}
