//! `[mail]`: the SMTP server that mails are sent through.

use serde::Deserialize;

use super::secrets::Secrets;
use crate::executor::{MailSettings, Security};
use crate::invalid::Invalid;
use crate::job::mailbox;
use crate::secret::Text;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MailTable {
    server: Option<String>,
    port: Option<u16>,
    security: Option<Security>,
    from: Option<String>,
    username: Option<String>,
    password: Option<Text>,
}

impl MailTable {
    /// Checks the table, fills in the defaults and reads the password.
    pub(super) fn check(self, secrets: &mut Secrets) -> Result<MailSettings, Invalid> {
        let refuse = |field: &str, why: &str| Err(Invalid::new(format!("mail.{field}"), why));
        let local = MailSettings::local();
        let server = self.server.unwrap_or_else(|| local.server.clone());
        if server.is_empty() || server.contains(|letter: char| letter.is_control() || letter == ' ')
        {
            return refuse("server", "must be the name or the address of a mail server");
        }
        let server = to_ascii(server).map_err(|invalid| invalid.within("mail"))?;
        let is_local = server == local.server || matches!(server.as_str(), "127.0.0.1" | "::1");
        let security =
            self.security.unwrap_or(if is_local { Security::None } else { Security::StartTls });
        let default_port = match security {
            Security::None => local.port,
            Security::StartTls => 587,
            Security::Tls => 465,
        };
        if self.port == Some(0) {
            return refuse("port", "must be between 1 and 65535");
        }
        let from = self.from.unwrap_or(local.from);
        mailbox("from", &from).map_err(|invalid| invalid.within("mail"))?;
        let login = match (self.username, self.password) {
            // Without the password, which only the service can read, this process is a command that sends no mail.
            (Some(user), Some(password)) => {
                Some((user, secrets.read("mail.password", &password)?.unwrap_or_default()))
            }
            (None, None) => None,
            (Some(_), None) => return refuse("password", "missing: a username needs a password"),
            (None, Some(_)) => return refuse("username", "missing: a password needs a username"),
        };
        if login.is_some() && security == Security::None && !is_local {
            return refuse(
                "security",
                "must not be \"none\" if a password is sent to another host",
            );
        }
        Ok(MailSettings { server, port: self.port.unwrap_or(default_port), security, from, login })
    }
}

/// The ASCII form (IDNA) of a host name, which DNS and certificates use.
fn to_ascii(server: String) -> Result<String, Invalid> {
    if server.is_ascii() {
        return Ok(server);
    }
    idna::domain_to_ascii_strict(&server).map_err(|error| {
        Invalid::new("server", format!("\"{server}\" is not a valid domain: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_name_is_converted_to_ascii() {
        let name = |server: &str| to_ascii(server.to_owned());
        assert_eq!(name("Mail.bücher.example").unwrap(), "mail.xn--bcher-kva.example");
        assert_eq!(name("Mail.example.org").unwrap(), "Mail.example.org");
        let invalid = name("ü..example").unwrap_err();
        assert_eq!(invalid.field, "server");
        assert!(invalid.message.contains("\"ü..example\""), "{invalid}");
    }
}
