//! One event of the log as one line: control characters are escaped here, whichever field they came in.

use std::io::{self, Write};
use std::os::fd::AsFd;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use crate::printable::escaped;

/// Whether standard error goes to journald.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Journal {
    Yes,
    No,
}

impl Journal {
    /// systemd names the device and inode of its stream; a variable that is only inherited names another one.
    pub(super) fn find() -> Self {
        let named = std::env::var("JOURNAL_STREAM").unwrap_or_default();
        let own = rustix::fs::fstat(io::stderr().as_fd());
        let is_own = own.is_ok_and(|own| named == format!("{}:{}", own.st_dev, own.st_ino));
        if is_own { Self::Yes } else { Self::No }
    }
}

/// The priority of a level, as sd-daemon(3) has it.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        _ => "<7>",
    }
}

/// A text as one line of the log, with its line break.
pub(super) fn formatted(text: &str, level: Level, journal: Journal) -> String {
    let prefix = if journal == Journal::Yes { priority(level) } else { "" };
    format!("{prefix}{}\n", escaped(text.strip_suffix('\n').unwrap_or(text)))
}

/// Makes a writer for each event, which passes it on as one line.
#[derive(Debug)]
pub(super) struct Lines<W> {
    to: W,
    journal: Journal,
}

impl<W> Lines<W> {
    pub(super) fn new(to: W, journal: Journal) -> Self {
        Self { to, journal }
    }
}

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Lines<W> {
    type Writer = Event<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Event { to: self.to.make_writer(), journal: self.journal, level: Level::INFO }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Self::Writer {
        Event { to: self.to.make_writer(), journal: self.journal, level: *meta.level() }
    }
}

/// Writes one event.
#[derive(Debug)]
pub(super) struct Event<W> {
    to: W,
    journal: Journal,
    level: Level,
}

impl<W: Write> Write for Event<W> {
    /// Takes a whole event: the formatter makes one call for each.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let line = formatted(&String::from_utf8_lossy(event), self.level, self.journal);
        self.to.write_all(line.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_whatever_its_fields_hold() {
        let mut written = Vec::new();
        let event =
            "INFO cancelled reason=a\nERROR forged \u{1b}[31m\u{9b}\u{2028}\u{202e} ü\t\n\n";
        let mut writer = Event { to: &mut written, journal: Journal::No, level: Level::INFO };
        writer.write_all(event.as_bytes()).unwrap();
        let line = String::from_utf8(written).unwrap();
        let expected =
            "INFO cancelled reason=a\\nERROR forged \\u{1b}[31m\\u{9b}\\u{2028}\\u{202e} ü\\t\\n\n";
        assert_eq!(line, expected);
    }

    #[test]
    fn journald_is_told_the_level() {
        assert_eq!(formatted("WARN x", Level::WARN, Journal::Yes), "<4>WARN x\n");
        assert_eq!(formatted("ERROR x", Level::ERROR, Journal::Yes), "<3>ERROR x\n");
    }
}
