//! Turns a tracing event into an entry of the log: one line of text, and fields for journald. All control characters are
//! escaped and all lengths are limited here, so callers may log any text.

use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::Context;

use crate::printable::escaped;

/// Maximum length of the text in bytes; the rest is cut off. journald splits longer lines of a stream.
const TEXT_BYTES_MAX: usize = 32 * 1024;
/// Maximum length of a field's value in bytes, so that all fields of an entry fit into one datagram.
const VALUE_BYTES_MAX: usize = 8 * 1024;
/// Replaces text that was cut off.
const CUT: char = '…';

/// The format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogFormat {
    /// For journald, which stores the time and the priority of each entry itself.
    Journal,
    /// For a terminal or a file: the line begins with time and level.
    Plain,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LogEntry {
    pub(super) level: Level,
    /// One line, without its line break.
    pub(super) text: String,
    /// For journald; `None` if the entry was not made from an event.
    pub(super) fields: Option<JournalFields>,
}

/// What journald stores beside the text of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JournalFields {
    pub(super) metadata: &'static Metadata<'static>,
    pub(super) values: Vec<(&'static str, String)>,
}

impl LogEntry {
    /// An entry without fields.
    pub(super) fn from_text(text: &str, level: Level) -> Self {
        let mut line = BoundedText::new(TEXT_BYTES_MAX);
        line.push(text.strip_suffix('\n').unwrap_or(text));
        Self { level, text: line.text, fields: None }
    }

    fn from_event(event: &Event<'_>, format: LogFormat) -> Self {
        let metadata = event.metadata();
        let level = *metadata.level();
        let mut visited = EventFields { message: String::new(), fields: Vec::new() };
        event.record(&mut visited);
        let EventFields { message, fields } = visited;
        let mut line = BoundedText::new(TEXT_BYTES_MAX);
        if format == LogFormat::Plain {
            // If the clock cannot be read, the line has no time.
            SystemTime.format_time(&mut Writer::new(&mut line.text)).unwrap_or_default();
            line.push(&format!(" {level:>5} "));
        }
        line.push(&message);
        for (name, value) in &fields {
            line.push(&format!(" {name}={}", value.quoted()));
        }
        let fields = (format == LogFormat::Journal).then(|| JournalFields {
            metadata,
            values: fields.iter().map(|(name, value)| (*name, value.plain())).collect(),
        });
        Self { level, text: line.text, fields }
    }

    /// The priority as in syslog(3).
    pub(super) fn priority(&self) -> u8 {
        match self.level {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        }
    }

    /// The line for stderr. journald reads the priority at its start.
    pub(super) fn line(&self, format: LogFormat) -> String {
        match format {
            LogFormat::Journal => format!("<{}>{}\n", self.priority(), self.text),
            LogFormat::Plain => format!("{}\n", self.text),
        }
    }

    /// The memory that the entry takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let values = self.fields.iter().flat_map(|fields| &fields.values);
        let values: usize =
            values.map(|(_, value)| value.len() + size_of::<(&str, String)>()).sum();
        size_of::<Self>() + self.text.len() + values
    }
}

/// A text that is cut off at a limit.
#[derive(Debug)]
struct BoundedText {
    text: String,
    limit: usize,
    is_cut: bool,
}

impl BoundedText {
    fn new(limit: usize) -> Self {
        Self { text: String::new(), limit, is_cut: false }
    }

    /// Appends the escaped text, as far as there is room.
    fn push(&mut self, text: &str) {
        self.push_raw(&escaped(text));
    }

    /// Appends the text, as far as there is room.
    fn push_raw(&mut self, text: &str) {
        if self.is_cut {
            return;
        }
        let room = self.limit.saturating_sub(self.text.len());
        self.is_cut = text.len() > room;
        self.text.push_str(text.get(..text.floor_char_boundary(room)).unwrap_or_default());
        if self.is_cut {
            self.text.push(CUT);
        }
    }
}

impl Write for BoundedText {
    /// Fails once the text is cut off, so that the rest is not formatted.
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push_raw(text);
        if self.is_cut { Err(fmt::Error) } else { Ok(()) }
    }
}

/// The unescaped value of a field, cut off at the limit.
#[derive(Debug)]
struct FieldValue(String);

impl FieldValue {
    fn format(value: fmt::Arguments<'_>) -> Self {
        let mut text = BoundedText::new(VALUE_BYTES_MAX);
        // This fails only if the text is cut off.
        text.write_fmt(value).unwrap_or_default();
        Self(text.text)
    }

    /// The escaped value, for journald.
    fn plain(&self) -> String {
        let mut text = BoundedText::new(VALUE_BYTES_MAX);
        text.push(&self.0);
        text.text
    }

    /// The value as it appears in the text of an entry: in quotes if it could be taken for several fields.
    fn quoted(&self) -> String {
        let is_special = |letter: char| letter.is_whitespace() || matches!(letter, '=' | '"');
        if !self.0.is_empty() && !self.0.contains(is_special) {
            return self.plain();
        }
        let debug = format!("{:?}", self.0);
        let inner = debug.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let mut text = BoundedText::new(VALUE_BYTES_MAX);
        text.push(inner.unwrap_or_default());
        format!("\"{}\"", text.text)
    }
}

/// Collects the message and the other fields of an event.
#[derive(Debug)]
struct EventFields {
    message: String,
    fields: Vec<(&'static str, FieldValue)>,
}

impl EventFields {
    fn add(&mut self, field: &Field, value: FieldValue) {
        match field.name() {
            "message" => self.message = value.plain(),
            name => self.fields.push((name, value)),
        }
    }
}

impl Visit for EventFields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, FieldValue::format(format_args!("{value}")));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, FieldValue::format(format_args!("{value:?}")));
    }
}

/// The tracing layer that turns each event into an entry and passes it to `sink`.
#[derive(Debug)]
pub(super) struct EntryLayer<P> {
    format: LogFormat,
    sink: P,
}

impl<P: Fn(LogEntry)> EntryLayer<P> {
    pub(super) fn new(format: LogFormat, sink: P) -> Self {
        Self { format, sink }
    }
}

impl<S: Subscriber, P: Fn(LogEntry) + 'static> Layer<S> for EntryLayer<P> {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        (self.sink)(LogEntry::from_event(event, self.format));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// The entries of the events that `log` emits.
    fn entries(format: LogFormat, log: impl FnOnce()) -> Vec<LogEntry> {
        let made = Arc::new(Mutex::new(Vec::new()));
        let own = Arc::clone(&made);
        let layer = EntryLayer::new(format, move |entry| own.lock().unwrap().push(entry));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        Arc::into_inner(made).unwrap().into_inner().unwrap()
    }

    #[test]
    fn an_event_is_one_line_whatever_its_fields_contain() {
        let reason = "a\nERROR forged \u{1b}[31m\u{9b}\u{2028}\u{202e} ü\t\n";
        let made = entries(LogFormat::Plain, || {
            tracing::warn!(%reason, text = "b\n", path = %"/a\\b", number = 3, "cancel\nled");
        });
        let line = made[0].line(LogFormat::Plain);
        let expected = "  WARN cancel\\nled reason=\"a\\nERROR forged \\u{1b}[31m\\u{9b}\\u{2028}\\u{202e} ü\\t\\n\" \
            text=\"b\\n\" path=/a\\b number=3\n";
        assert!(line.ends_with(expected) && line.starts_with("20"), "{line:?}");
        assert_eq!(made[0].fields, None);
    }

    #[test]
    fn a_value_cannot_be_taken_for_other_fields() {
        let long = format!("{} uid=0", "\"".repeat(VALUE_BYTES_MAX));
        let made = entries(LogFormat::Plain, || {
            tracing::info!(job = %"x uid=0 user=root", a = %"", b = "", c = %"\"", d = %"\\ ", e = ?["f g"], uid = 7, "x");
            tracing::info!(job = %long, uid = 7, "x");
        });
        let expected = r#"x job="x uid=0 user=root" a="" b="" c="\"" d="\\ " e="[\"f g\"]" uid=7"#;
        assert!(made[0].text.ends_with(expected), "{}", made[0].text);
        assert!(
            made[1].text.ends_with("…\" uid=7"),
            "a value that is cut off has its closing quote"
        );
    }

    #[test]
    fn journald_gets_priority_and_fields_but_no_time() {
        let made = entries(LogFormat::Journal, || {
            tracing::error!(job = %"a b", run = "r\n1", attempt = 2, error = ?Some(1), "x");
            tracing::warn!("x");
            tracing::info!("x");
            tracing::debug!("x");
            tracing::trace!("x");
        });
        assert_eq!(
            made[0].line(LogFormat::Journal),
            "<3>x job=\"a b\" run=\"r\\n1\" attempt=2 error=Some(1)\n"
        );
        let expected = [("job", "a b"), ("run", "r\\n1"), ("attempt", "2"), ("error", "Some(1)")];
        let expected = expected.map(|(name, value)| (name, value.to_owned()));
        assert_eq!(made[0].fields.as_ref().unwrap().values, expected);
        let priorities: Vec<u8> = made.iter().map(LogEntry::priority).collect();
        assert_eq!(priorities, [3, 4, 6, 7, 7]);
    }

    #[test]
    fn long_text_is_cut_off_between_characters() {
        let long = "\u{1b}é".repeat(VALUE_BYTES_MAX);
        let made = entries(
            LogFormat::Journal,
            || tracing::warn!(a = %long, b = %long, c = %long, d = %long, e = %long, "x"),
        );
        let entry = &made[0];
        assert!(entry.text.len() <= TEXT_BYTES_MAX + CUT.len_utf8() && entry.text.ends_with(CUT));
        for (_, value) in &entry.fields.as_ref().unwrap().values {
            assert!(value.len() <= VALUE_BYTES_MAX + CUT.len_utf8() && value.ends_with(CUT));
        }
        let text = LogEntry::from_text(&long, Level::ERROR).text;
        assert!(text.len() <= TEXT_BYTES_MAX + CUT.len_utf8() && text.ends_with(CUT));
    }
}
