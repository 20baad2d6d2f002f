//! journald's native protocol: each entry is one datagram with its text, its priority and its fields.
//!
//! The thread of the queue sends it, so it may wait for journald. `tracing-journald` would block the thread that logs, and
//! would drop entries that cannot be sent without counting them.

use std::fmt::{Display, Write};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use super::entry::{JournalFields, LogEntry, LogFormat};

/// Where journald receives entries.
const SOCKET: &str = "/run/systemd/journal/socket";

/// The value of `SYSLOG_IDENTIFIER=`, for `journalctl -t`.
const IDENTIFIER: &str = "punctual";

/// journald's maximum length of a field name in bytes.
const NAME_BYTES_MAX: usize = 64;

/// The format for stderr. `JOURNAL_STREAM` has device and inode of systemd's stream to journald. If they are not those of
/// stderr, the variable was only inherited.
pub(super) fn stderr_format() -> LogFormat {
    let named = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let own = rustix::fs::fstat(io::stderr().as_fd());
    let is_journal = own.is_ok_and(|own| named == format!("{}:{}", own.st_dev, own.st_ino));
    if is_journal { LogFormat::Journal } else { LogFormat::Plain }
}

/// Sends entries to journald.
#[derive(Debug)]
pub(super) struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Journal {
    /// The journal of this machine.
    pub(super) fn new() -> io::Result<Self> {
        Self::at(Path::new(SOCKET))
    }

    fn at(path: &Path) -> io::Result<Self> {
        Ok(Self { socket: UnixDatagram::unbound()?, path: path.to_owned() })
    }

    /// Sends an event, and waits while journald has no room. Returns false if it was not sent, because journald is gone or
    /// the entry has no fields.
    ///
    /// An entry without fields is the last one of a process. journald may look up the unit of a datagram's sender only
    /// after that process has ended; for a line on stderr it always knows the unit.
    pub(super) fn send(&self, entry: &LogEntry) -> bool {
        let Some(fields) = &entry.fields else { return false };
        let datagram = datagram(entry, fields);
        loop {
            match self.socket.send_to(datagram.as_bytes(), &self.path) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                sent => return sent.is_ok(),
            }
        }
    }
}

/// The datagram for journald: one field per line. Line breaks within values are escaped.
fn datagram(entry: &LogEntry, fields: &JournalFields) -> String {
    let metadata = fields.metadata;
    let mut datagram = format!(
        "MESSAGE={}\nPRIORITY={}\nSYSLOG_IDENTIFIER={IDENTIFIER}\nPUNCTUAL_TARGET={}\n",
        entry.text,
        entry.priority(),
        metadata.target()
    );
    let mut add = |name: &str, value: &dyn Display| {
        writeln!(datagram, "{name}={value}").unwrap_or_default();
    };
    if let Some((file, line)) = metadata.file().zip(metadata.line()) {
        add("CODE_FILE", &file);
        add("CODE_LINE", &line);
    }
    for (name, value) in &fields.values {
        add(&field_name(name), value);
    }
    datagram
}

/// The name of a field in the journal: `PUNCTUAL_JOB` for `job`.
fn field_name(name: &str) -> String {
    let letter = |letter: char| {
        if letter.is_ascii_alphanumeric() { letter.to_ascii_uppercase() } else { '_' }
    };
    "PUNCTUAL_".chars().chain(name.chars().map(letter)).take(NAME_BYTES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use tracing::Level;
    use tracing_subscriber::layer::SubscriberExt;

    use super::super::entry::EntryLayer;
    use super::*;

    fn log_to(journal: Journal, log: impl FnOnce()) {
        let layer = EntryLayer::new(LogFormat::Journal, move |entry| assert!(journal.send(&entry)));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
    }

    #[test]
    fn an_event_is_one_datagram_with_its_fields() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let receiver = UnixDatagram::bind(&path).unwrap();
        log_to(Journal::at(&path).unwrap(), || {
            let error = "no\nPRIORITY=0";
            tracing::warn!(target: "ledger", job = %"backup", attempt = 2, again.at = 7, %error, "failed");
        });
        let mut buffer = [0; 4096];
        let length = receiver.recv(&mut buffer).unwrap();
        let text = str::from_utf8(&buffer[..length]).unwrap();
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("CODE_")).collect();
        let expected = [
            "MESSAGE=failed job=backup attempt=2 again.at=7 error=\"no\\nPRIORITY=0\"",
            "PRIORITY=4",
            "SYSLOG_IDENTIFIER=punctual",
            "PUNCTUAL_TARGET=ledger",
            "PUNCTUAL_JOB=backup",
            "PUNCTUAL_ATTEMPT=2",
            "PUNCTUAL_AGAIN_AT=7",
            "PUNCTUAL_ERROR=no\\nPRIORITY=0",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn the_largest_entry_fits_into_a_datagram() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let receiver = UnixDatagram::bind(&path).unwrap();
        let long = "x".repeat(1024 * 1024);
        log_to(Journal::at(&path).unwrap(), || {
            tracing::warn!(a = %long, b = %long, c = %long, d = %long, e = %long, f = %long, g = %long, h = %long, "x");
        });
        assert!(receiver.recv(&mut vec![0; 256 * 1024]).unwrap() > 64 * 1024);
    }

    #[test]
    fn a_failure_is_returned_and_an_entry_without_fields_is_not_sent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let journal = Journal::at(&path).unwrap();
        let metadata =
            tracing::callsite!(name: "x", kind: tracing::metadata::Kind::EVENT, fields: a);
        let metadata = tracing::Callsite::metadata(metadata);
        let fields = Some(JournalFields { metadata, values: Vec::new() });
        let event = LogEntry { level: Level::WARN, text: "x".to_owned(), fields };
        assert!(!journal.send(&event), "journald is gone");
        let receiver = UnixDatagram::bind(&path).unwrap();
        assert!(journal.send(&event), "it is back");
        assert!(receiver.recv(&mut [0; 64]).unwrap() > 0);
        assert!(!journal.send(&LogEntry::from_text("x", Level::ERROR)));
    }
}
