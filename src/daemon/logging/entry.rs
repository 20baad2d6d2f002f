//! One entry of the log, made of an event: its text is one line, and its fields stand beside it for journald. Control
//! characters are escaped and lengths are limited here, whichever field they came in.

use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::Context;

use crate::printable::escaped;

/// Bytes of the text of an entry; the rest is cut off. journald cuts longer lines of a stream in two.
const TEXT_BYTES_MAX: usize = 32 * 1024;
/// Bytes of the value of a field. So all fields of an entry fit into one datagram.
const VALUE_BYTES_MAX: usize = 8 * 1024;
/// What stands in place of what was cut off.
const CUT: char = '…';

/// Who reads the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    /// journald, which knows time and priority of each entry by itself.
    Journal,
    /// A person, a file or another program: time and level stand in the text.
    Plain,
}

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) level: Level,
    /// One line, without its line break.
    pub(super) text: String,
    /// What journald is told beside the text; none for a text that is not an event.
    pub(super) details: Option<Details>,
}

/// What journald is told beside the text of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Details {
    pub(super) metadata: &'static Metadata<'static>,
    pub(super) fields: Vec<(&'static str, String)>,
}

impl Entry {
    /// An entry that is only a text.
    pub(super) fn of_text(text: &str, level: Level) -> Self {
        let mut line = Limited::new(TEXT_BYTES_MAX);
        line.push(text.strip_suffix('\n').unwrap_or(text));
        Self { level, text: line.text, details: None }
    }

    fn of_event(event: &Event<'_>, reader: Reader) -> Self {
        let metadata = event.metadata();
        let level = *metadata.level();
        let mut fields = Fields { message: String::new(), fields: Vec::new() };
        event.record(&mut fields);
        let Fields { message, fields } = fields;
        let mut line = Limited::new(TEXT_BYTES_MAX);
        if reader == Reader::Plain {
            // A clock that cannot be read leaves its place empty.
            SystemTime.format_time(&mut Writer::new(&mut line.text)).unwrap_or_default();
            line.push(&format!(" {level:>5} "));
        }
        line.push(&message);
        for (name, value) in &fields {
            line.push(&format!(" {name}={}", value.shown()));
        }
        let details = (reader == Reader::Journal).then(|| Details {
            metadata,
            fields: fields.iter().map(|(name, value)| (*name, value.plain())).collect(),
        });
        Self { level, text: line.text, details }
    }

    /// The priority, as syslog(3) has it.
    pub(super) fn priority(&self) -> u8 {
        match self.level {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        }
    }

    /// The line for standard error. journald reads the priority at its beginning.
    pub(super) fn line(&self, reader: Reader) -> String {
        match reader {
            Reader::Journal => format!("<{}>{}\n", self.priority(), self.text),
            Reader::Plain => format!("{}\n", self.text),
        }
    }

    /// How much memory it takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let fields = self.details.iter().flat_map(|details| &details.fields);
        let fields: usize =
            fields.map(|(_, value)| value.len() + size_of::<(&str, String)>()).sum();
        size_of::<Self>() + self.text.len() + fields
    }
}

/// A text that is escaped, and cut off at a limit.
#[derive(Debug)]
struct Limited {
    text: String,
    limit: usize,
    is_cut: bool,
}

impl Limited {
    fn new(limit: usize) -> Self {
        Self { text: String::new(), limit, is_cut: false }
    }

    /// Adds as much as there is room for, escaped.
    fn push(&mut self, text: &str) {
        self.push_raw(&escaped(text));
    }

    /// Adds as much as there is room for.
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

impl Write for Limited {
    /// Fails once the text is cut off: the rest need not be formatted.
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push_raw(text);
        if self.is_cut { Err(fmt::Error) } else { Ok(()) }
    }
}

/// The value of a field, as it was given, but cut off at the limit.
#[derive(Debug)]
struct Value(String);

impl Value {
    fn of(value: fmt::Arguments<'_>) -> Self {
        let mut text = Limited::new(VALUE_BYTES_MAX);
        // It fails only where the text was cut off.
        text.write_fmt(value).unwrap_or_default();
        Self(text.text)
    }

    /// One line, as journald is told it.
    fn plain(&self) -> String {
        let mut text = Limited::new(VALUE_BYTES_MAX);
        text.push(&self.0);
        text.text
    }

    /// As it stands in the text of an entry: in quotes if it could be taken for the end of the value and for other fields.
    fn shown(&self) -> String {
        let is_special = |letter: char| letter.is_whitespace() || matches!(letter, '=' | '"');
        if !self.0.is_empty() && !self.0.contains(is_special) {
            return self.plain();
        }
        let quoted = format!("{:?}", self.0);
        let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let mut text = Limited::new(VALUE_BYTES_MAX);
        text.push(inner.unwrap_or_default());
        format!("\"{}\"", text.text)
    }
}

/// The fields of an event, apart from its message.
#[derive(Debug)]
struct Fields {
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: Value) {
        match field.name() {
            "message" => self.message = value.plain(),
            name => self.fields.push((name, value)),
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, Value::of(format_args!("{value}")));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, Value::of(format_args!("{value:?}")));
    }
}

/// Turns each event into an entry, and passes it on.
#[derive(Debug)]
pub(super) struct Entries<P> {
    reader: Reader,
    pass_on: P,
}

impl<P: Fn(Entry)> Entries<P> {
    pub(super) fn new(reader: Reader, pass_on: P) -> Self {
        Self { reader, pass_on }
    }
}

impl<S: Subscriber, P: Fn(Entry) + 'static> Layer<S> for Entries<P> {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        (self.pass_on)(Entry::of_event(event, self.reader));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// The entries that are made of what `log` logs.
    fn entries(reader: Reader, log: impl FnOnce()) -> Vec<Entry> {
        let made = Arc::new(Mutex::new(Vec::new()));
        let own = Arc::clone(&made);
        let layer = Entries::new(reader, move |entry| own.lock().unwrap().push(entry));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        Arc::into_inner(made).unwrap().into_inner().unwrap()
    }

    #[test]
    fn an_event_is_one_line_whatever_its_fields_hold() {
        let reason = "a\nERROR forged \u{1b}[31m\u{9b}\u{2028}\u{202e} ü\t\n";
        let made = entries(Reader::Plain, || {
            tracing::warn!(%reason, text = "b\n", path = %"/a\\b", number = 3, "cancel\nled");
        });
        let line = made[0].line(Reader::Plain);
        let expected = "  WARN cancel\\nled reason=\"a\\nERROR forged \\u{1b}[31m\\u{9b}\\u{2028}\\u{202e} ü\\t\\n\" \
            text=\"b\\n\" path=/a\\b number=3\n";
        assert!(line.ends_with(expected) && line.starts_with("20"), "{line:?}");
        assert_eq!(made[0].details, None);
    }

    #[test]
    fn a_value_cannot_be_taken_for_other_fields() {
        let long = format!("{} uid=0", "\"".repeat(VALUE_BYTES_MAX));
        let made = entries(Reader::Plain, || {
            tracing::info!(job = %"x uid=0 user=root", a = %"", b = "", c = %"\"", d = %"\\ ", e = ?["f g"], uid = 7, "x");
            tracing::info!(job = %long, uid = 7, "x");
        });
        let expected = r#"x job="x uid=0 user=root" a="" b="" c="\"" d="\\ " e="[\"f g\"]" uid=7"#;
        assert!(made[0].text.ends_with(expected), "{}", made[0].text);
        assert!(made[1].text.ends_with("…\" uid=7"), "a value that is cut off has its end");
    }

    #[test]
    fn journald_is_told_priority_and_fields_and_no_time() {
        let made = entries(Reader::Journal, || {
            tracing::error!(job = %"a b", run = "r\n1", attempt = 2, error = ?Some(1), "x");
            tracing::warn!("x");
            tracing::info!("x");
            tracing::debug!("x");
            tracing::trace!("x");
        });
        assert_eq!(
            made[0].line(Reader::Journal),
            "<3>x job=\"a b\" run=\"r\\n1\" attempt=2 error=Some(1)\n"
        );
        let expected = [("job", "a b"), ("run", "r\\n1"), ("attempt", "2"), ("error", "Some(1)")];
        let expected = expected.map(|(name, value)| (name, value.to_owned()));
        assert_eq!(made[0].details.as_ref().unwrap().fields, expected);
        let priorities: Vec<u8> = made.iter().map(Entry::priority).collect();
        assert_eq!(priorities, [3, 4, 6, 7, 7]);
    }

    #[test]
    fn what_is_too_long_is_cut_off_at_a_character() {
        let long = "\u{1b}é".repeat(VALUE_BYTES_MAX);
        let made = entries(
            Reader::Journal,
            || tracing::warn!(a = %long, b = %long, c = %long, d = %long, e = %long, "x"),
        );
        let entry = &made[0];
        assert!(entry.text.len() <= TEXT_BYTES_MAX + CUT.len_utf8() && entry.text.ends_with(CUT));
        for (_, value) in &entry.details.as_ref().unwrap().fields {
            assert!(value.len() <= VALUE_BYTES_MAX + CUT.len_utf8() && value.ends_with(CUT));
        }
        let text = Entry::of_text(&long, Level::ERROR).text;
        assert!(text.len() <= TEXT_BYTES_MAX + CUT.len_utf8() && text.ends_with(CUT));
    }
}
