//! journald's native protocol: each entry is one datagram with its text, its priority and its fields.
//!
//! The thread of the queue sends it, and may wait for journald. `tracing-journald` would send from the thread that logs,
//! block it, and drop entries that cannot be sent without counting them.

use std::fmt::{Display, Write};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sendto, socket_with,
};

use super::entry::{Details, Entry, Reader};

/// Where journald receives entries.
const SOCKET: &str = "/run/systemd/journal/socket";

/// The value of `SYSLOG_IDENTIFIER=`, which `journalctl -t` searches.
const IDENTIFIER: &str = "punctual";

/// Bytes of the name of a field, as journald limits them.
const NAME_BYTES_MAX: usize = 64;

/// Who reads standard error. systemd names the device and inode of its stream to journald; a variable that is only
/// inherited names another one.
pub(super) fn reader() -> Reader {
    let named = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let own = rustix::fs::fstat(io::stderr().as_fd());
    let is_journal = own.is_ok_and(|own| named == format!("{}:{}", own.st_dev, own.st_ino));
    if is_journal { Reader::Journal } else { Reader::Plain }
}

/// A way to send entries to journald.
#[derive(Debug)]
pub(super) struct Journal {
    socket: OwnedFd,
    address: SocketAddrUnix,
}

impl Journal {
    /// The one of this machine.
    pub(super) fn new() -> io::Result<Self> {
        Self::at(Path::new(SOCKET))
    }

    fn at(path: &Path) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        Ok(Self { socket, address: SocketAddrUnix::new(path)? })
    }

    /// Sends an event, and waits while journald has no room. False if it cannot be sent: journald is gone, or this is
    /// only a text.
    ///
    /// A text is the last thing that a process says, and journald may find out too late which unit that process was in.
    /// Of a line on standard error it always knows.
    pub(super) fn send(&self, entry: &Entry) -> bool {
        let Some(details) = &entry.details else { return false };
        let datagram = datagram(entry, details);
        loop {
            match sendto(&self.socket, datagram.as_bytes(), SendFlags::NOSIGNAL, &self.address) {
                Err(rustix::io::Errno::INTR) => {}
                sent => return sent.is_ok(),
            }
        }
    }
}

/// An entry as journald reads it: a field a line. No value has a line break, since they are escaped.
fn datagram(entry: &Entry, details: &Details) -> String {
    let metadata = details.metadata;
    let mut fields = format!(
        "MESSAGE={}\nPRIORITY={}\nSYSLOG_IDENTIFIER={IDENTIFIER}\nPUNCTUAL_TARGET={}\n",
        entry.text,
        entry.priority(),
        metadata.target()
    );
    let mut add = |name: &str, value: &dyn Display| {
        writeln!(fields, "{name}={value}").unwrap_or_default();
    };
    if let Some((file, line)) = metadata.file().zip(metadata.line()) {
        add("CODE_FILE", &file);
        add("CODE_LINE", &line);
    }
    for (name, value) in &details.fields {
        add(&field_name(name), value);
    }
    fields
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
    use std::os::unix::net::UnixDatagram;

    use tracing::Level;
    use tracing_subscriber::layer::SubscriberExt;

    use super::super::entry::Entries;
    use super::*;

    fn log_to(journal: Journal, log: impl FnOnce()) {
        let layer = Entries::new(Reader::Journal, move |entry| assert!(journal.send(&entry)));
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
    fn what_cannot_be_sent_is_told_and_a_text_is_not_sent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let journal = Journal::at(&path).unwrap();
        let metadata =
            tracing::callsite!(name: "x", kind: tracing::metadata::Kind::EVENT, fields: a);
        let metadata = tracing::Callsite::metadata(metadata);
        let details = Some(Details { metadata, fields: Vec::new() });
        let event = Entry { level: Level::WARN, text: "x".to_owned(), details };
        assert!(!journal.send(&event), "journald is gone");
        let receiver = UnixDatagram::bind(&path).unwrap();
        assert!(journal.send(&event), "it is back");
        assert!(receiver.recv(&mut [0; 64]).unwrap() > 0);
        assert!(!journal.send(&Entry::of_text("x", Level::ERROR)));
    }
}
