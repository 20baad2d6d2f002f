//! Escapes text from outside for logs and terminals, so that it can neither begin a new line nor control a terminal.

use std::borrow::Cow;

/// Control characters, line and paragraph separators, and characters that change the direction of the text.
fn is_control(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Escapes every control character as Rust does: `\n`, `\u{1b}`.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(is_control) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if is_control(letter) {
            escaped.extend(letter.escape_default());
        } else {
            escaped.push(letter);
        }
    }
    Cow::Owned(escaped)
}

/// Shortens a text to `limit` characters. A shortened text ends with `…`.
pub fn shortened(text: &str, limit: usize) -> Cow<'_, str> {
    match text.char_indices().nth(limit) {
        Some((end, _)) => Cow::Owned(format!("{}…", text.get(..end).unwrap_or_default())),
        None => Cow::Borrowed(text),
    }
}

/// Escapes every control character in the strings of a JSON text, as `\u001b`. The text means the same.
pub fn escaped_json(text: &str) -> Cow<'_, str> {
    if !text.contains(is_control) {
        return Cow::Borrowed(text);
    }
    let escape = |letter: char| {
        let code = u32::from(letter);
        if is_control(letter) { format!("\\u{code:04x}") } else { letter.to_string() }
    };
    Cow::Owned(text.chars().map(escape).collect())
}

/// Escapes a line of a program's output for a terminal, except for tabs, the line break and colours. Colours end with the
/// line.
pub fn with_colors(line: &str) -> String {
    let text = line.trim_end_matches(['\n', '\r']);
    let ending = if line.ends_with('\n') { "\n" } else { "" };
    let (mut shown, mut rest, mut colored) = (String::with_capacity(line.len()), text, false);
    while let Some(letter) = rest.chars().next() {
        if let Some(color) = color(rest) {
            shown += color;
            colored = true;
            rest = rest.get(color.len()..).unwrap_or_default();
            continue;
        }
        if letter == '\t' {
            shown.push(letter);
        } else {
            shown += &escaped(letter.encode_utf8(&mut [0; 4]));
        }
        rest = rest.get(letter.len_utf8()..).unwrap_or_default();
    }
    let no_color = if colored { "\u{1b}[0m" } else { "" };
    shown + no_color + ending
}

/// The escape sequence for a colour, `ESC [ digits m`, with which a text begins.
fn color(text: &str) -> Option<&str> {
    let parameters = text.strip_prefix("\u{1b}[")?;
    let end = parameters.find(|letter: char| !letter.is_ascii_digit() && !";:".contains(letter))?;
    let is_color = parameters.get(end..)?.starts_with('m');
    is_color.then(|| text.get(..end + 3)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_nothing_else_is() {
        let plain = "plain ünïcode \\n \"quoted\"";
        assert!(matches!(escaped(plain), Cow::Borrowed(text) if text == plain));
        assert_eq!(escaped("a\nb\t\u{1b}[31m\u{7f}\u{85}"), "a\\nb\\t\\u{1b}[31m\\u{7f}\\u{85}");
    }

    #[test]
    fn json_means_the_same_when_it_is_escaped() {
        let value = serde_json::json!({"k\u{202e}": ["\u{9b}31m \u{7f}\n\u{1b} é"]});
        let text = value.to_string();
        let shown = escaped_json(&text);
        assert!(!shown.contains(is_control), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }

    #[test]
    fn an_output_keeps_its_colours_and_cannot_control_a_terminal() {
        let cases = [
            ("plain é\tx\n", "plain é\tx\n"),
            ("ends\r\n", "ends\n"),
            ("\u{1b}[1;31mred\u{1b}[0m", "\u{1b}[1;31mred\u{1b}[0m\u{1b}[0m"),
            ("\u{1b}[2J\u{1b}]0;title\u{7}", "\\u{1b}[2J\\u{1b}]0;title\\u{7}"),
            ("a\rb\u{9b}31m", "a\\rb\\u{9b}31m"),
            ("\u{1b}[31", "\\u{1b}[31"),
            ("\u{1b}", "\\u{1b}"),
        ];
        for (line, shown) in cases {
            assert_eq!(with_colors(line), shown);
        }
    }
}
