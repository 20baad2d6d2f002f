//! Foreign text in a line-based format: whatever could begin a new line or command a terminal is shown escaped.

use std::borrow::Cow;

/// Whether a character does something other than stand in its place: control characters, line and paragraph
/// separators, and those that change the direction of the text.
fn is_control(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text with every control character as Rust writes it: `\n`, `\u{1b}`.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_nothing_else_is() {
        let plain = "plain ünïcode \\n \"quoted\"";
        assert!(matches!(escaped(plain), Cow::Borrowed(text) if text == plain));
        assert_eq!(escaped("a\nb\t\u{1b}[31m\u{7f}\u{85}"), "a\\nb\\t\\u{1b}[31m\\u{7f}\\u{85}");
    }
}
