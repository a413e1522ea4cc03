//! How ids are shown, and how they are typed. Invariant: `typed` reads what `id` shows as that very id, and nothing that
//! is shown moves a terminal's cursor, begins a line or hides.

use std::{borrow::Cow, error::Error, fmt::Write as _};

/// An id as people see it and may type it. One that a line of text carries well stands as it is; any other is a JSON
/// string: `"order\n7"`. (So what `jq` prints can be typed, with quotes or without.)
pub fn id(id: &str) -> Cow<'_, str> {
    let plain = |c: char| !is_hidden(c) && !c.is_whitespace() && c != '\'';
    if !id.starts_with(['"', '-', '@']) && !id.is_empty() && id.chars().all(plain) {
        return id.into();
    }
    let mut text = String::from('"');
    let mut blank = false;
    for c in id.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            // Shell quotes go around it as it is, and columns stay apart.
            '\'' => escape(c, &mut text),
            ' ' if !blank => text.push(c),
            c if is_hidden(c) || c.is_whitespace() => escape(c, &mut text),
            c => text.push(c),
        }
        blank = c == ' ';
    }
    text.push('"');
    text.into()
}

/// The id that was typed: what begins with a double quote is a JSON string, anything else is the id itself.
///
/// # Errors
/// The text begins with a double quote and is not a JSON string.
pub fn typed(text: &str) -> Result<String, String> {
    if !text.starts_with('"') {
        return Ok(text.to_owned());
    }
    serde_json::from_str(text).map_err(|_| {
        "an id that begins with a double quote is read as a JSON string, and this is not one: write it as commands \
         print it, in single quotes for the shell, as '\"order\\n7\"'"
            .to_owned()
    })
}

/// An id as a word of a shell's command line.
pub fn id_word(text: &str) -> String {
    word(&id(text))
}

/// A text as one word of a shell's command line.
pub fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '/' | '_' | '-' | '=' | ':' | '@' | ',' | '+');
    match !text.is_empty() && text.chars().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// A text from elsewhere, within one line: control and other hidden characters are shown as JSON would escape them.
pub fn line(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hidden) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_hidden(c) { escape(c, &mut shown) } else { shown.push(c) }
    }
    shown.into()
}

/// `\n`, `\u001b`
pub fn escape(c: char, to: &mut String) {
    match c {
        '\n' => to.push_str("\\n"),
        '\r' => to.push_str("\\r"),
        '\t' => to.push_str("\\t"),
        c => {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing into a string cannot fail.
                let _ = write!(to, "\\u{unit:04x}");
            }
        }
    }
}

/// Does a terminal obey it, or show nothing where it stands, or change the order of what is around it? Controls (C0, DEL,
/// C1), separators of lines and paragraphs, marks of direction, and characters without width.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// An error and its causes in one text, from the outside in. A cause that the text around it says already is not said
/// again.
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text += ": ";
            text += &said;
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_are_shown_as_they_can_be_typed() {
        for (of, shown, in_a_shell) in [
            ("o-1", "o-1", "o-1"),
            ("order/7|payment", "order/7|payment", "'order/7|payment'"),
            ("order-created[2]@17", "order-created[2]@17", "'order-created[2]@17'"),
            (r"C:\orders\7", r"C:\orders\7", r"'C:\orders\7'"),
            ("größe→7", "größe→7", "'größe→7'"),
            ("", r#""""#, r#"'""'"#),
            ("-rf", r#""-rf""#, r#"'"-rf"'"#),
            ("@o-1", r#""@o-1""#, r#"'"@o-1"'"#),
            ("two words", r#""two words""#, r#"'"two words"'"#),
            ("a  # b", r#""a \u0020# b""#, r#"'"a \u0020# b"'"#),
            ("it's", r#""it\u0027s""#, r#"'"it\u0027s"'"#),
            ("\"quoted\"", r#""\"quoted\"""#, r#"'"\"quoted\""'"#),
            ("o\n1\t\r\u{1b}[2J", r#""o\n1\t\r\u001b[2J""#, r#"'"o\n1\t\r\u001b[2J"'"#),
            ("\0\0\0*", r#""\u0000\u0000\u0000*""#, r#"'"\u0000\u0000\u0000*"'"#),
            ("a\u{202e}b\u{e0041}", r#""a\u202eb\udb40\udc41""#, r#"'"a\u202eb\udb40\udc41"'"#),
        ] {
            assert_eq!((&*id(of), &*id_word(of)), (shown, in_a_shell));
            assert_eq!(typed(shown).as_deref(), Ok(of));
        }
        assert!(typed("\"half").is_err());
        assert_eq!(line("a\nb\u{9b}31m\u{2028}c\\n"), "a\\nb\\u009b31m\\u2028c\\n");
    }

    proptest! {
        #[test]
        fn every_id_can_be_typed(of in any::<String>()) {
            let shown = id(&of);
            prop_assert!(!shown.chars().any(is_hidden), "{shown:?}");
            prop_assert!(!shown.is_empty() && !shown.starts_with('-') && !shown.contains("  "));
            prop_assert_eq!(typed(&shown), Ok(of.clone()));
            let word = id_word(&of);
            let unquoted = word.strip_prefix('\'').and_then(|word| word.strip_suffix('\'')).unwrap_or(&word);
            prop_assert!(!unquoted.contains('\''));
            prop_assert_eq!(unquoted, &*shown);
        }

        #[test]
        fn a_text_stays_in_its_line(of in any::<String>()) {
            prop_assert!(!line(&of).chars().any(is_hidden));
        }
    }
}
