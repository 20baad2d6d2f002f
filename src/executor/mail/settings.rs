//! The settings of the mail server.

use lettre::Address;
use serde::Deserialize;

/// The domain in mails from a machine whose name cannot be that of a mail server.
const NO_DOMAIN: &str = "localhost";

/// How the connection to a mail server is secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Security {
    None,
    /// TLS from the STARTTLS command on.
    StartTls,
    /// TLS from the beginning.
    Tls,
}

/// The settings of the mail server.
#[derive(Clone, PartialEq, Eq)]
pub struct MailSettings {
    /// Its host name or address.
    pub server: String,
    pub port: u16,
    pub security: Security,
    /// The sender of mails that name none.
    pub from: String,
    /// User and password; `None` for no login.
    pub login: Option<(String, String)>,
}

impl MailSettings {
    /// The mail server of this machine.
    pub fn local() -> Self {
        Self {
            server: "localhost".to_owned(),
            port: 25,
            security: Security::None,
            from: own_address(),
            login: None,
        }
    }
}

impl std::fmt::Debug for MailSettings {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}:{} {:?}", self.server, self.port, self.security)
    }
}

/// The sender of mails if none is configured: `punctual@` and the name of this machine.
fn own_address() -> String {
    format!("Punctual <punctual@{}>", domain())
}

/// The name of this machine if it is a valid domain. A name of 64 letters, for example, is not.
pub(super) fn domain() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if is_domain(&name) { name } else { NO_DOMAIN.to_owned() }
}

fn is_domain(name: &str) -> bool {
    name.is_ascii() && Address::new("punctual", name).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::mailbox;

    #[test]
    fn a_machine_whose_name_is_not_a_domain_sends_mails_as_localhost() {
        let long = "x".repeat(64);
        for name in ["rack:web1", "größe", "", "(none)", "web1.", "a b", "a\r\nb", &long] {
            assert!(!is_domain(name), "{name:?}");
        }
        for name in ["web1", "web1.example.org", "localhost"] {
            assert!(is_domain(name), "{name:?}");
        }
        assert!(is_domain(NO_DOMAIN));
        assert!(mailbox("from", &own_address()).is_ok());
    }
}
