//! The task `mail`: recipients, sender, subject and text. The mail server is a setting of the daemon (`[mail]`).

use lettre::Address;
use lettre::message::Mailbox;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::TaskType;
use crate::invalid::{self, Invalid};

/// The most recipients of one mail.
const RECIPIENTS_MAX: usize = 50;
/// The most bytes of an address with its name.
const ADDRESS_BYTES_MAX: usize = 512;
/// The most bytes of a subject.
const SUBJECT_BYTES_MAX: usize = 1000;
/// The most bytes of a text.
const TEXT_BYTES_MAX: usize = 256 * 1024;

/// A mail, with only the fields that were given: so it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mail {
    /// Addresses such as `ops@example.org` or `Ops <ops@example.org>`.
    pub to: Vec<String>,
    /// The sender. None: that of `[mail]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The subject. None: in a hook what happened, else the job's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The text. None: in a hook the report of what happened, else nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

impl Mail {
    /// Reads the JSON form, without its type.
    pub(super) fn parse(given: Map<String, Value>) -> Result<Self, Invalid> {
        let mail: Self = invalid::read(Value::Object(given))?;
        if !(1..=RECIPIENTS_MAX).contains(&mail.to.len()) {
            let count = mail.to.len();
            let message = format!("has {count} addresses, and needs 1 to {RECIPIENTS_MAX}");
            return Err(Invalid::new("to", message));
        }
        for (number, address) in mail.to.iter().enumerate() {
            mailbox(&format!("to[{number}]"), address)?;
        }
        if let Some(address) = &mail.from {
            mailbox("from", address)?;
        }
        let subject = mail.subject.as_deref().unwrap_or_default();
        if subject.len() > SUBJECT_BYTES_MAX || subject.contains(char::is_control) {
            let message = format!(
                "must be one line of at most {SUBJECT_BYTES_MAX} bytes without control characters"
            );
            return Err(Invalid::new("subject", message));
        }
        let bytes = mail.text.as_deref().map_or(0, str::len);
        if bytes > TEXT_BYTES_MAX {
            let message = format!("has {bytes} bytes, of at most {TEXT_BYTES_MAX}");
            return Err(Invalid::new("text", message));
        }
        Ok(mail)
    }
}

impl TaskType for Mail {
    fn describe(&self) -> String {
        format!("mail to {}", self.to.join(", "))
    }
}

/// Reads an address, with or without a name. Its domain becomes ASCII (`xn--…`), which every mail server accepts; the part
/// before the `@` has no such form.
pub fn mailbox(field: &str, text: &str) -> Result<Mailbox, Invalid> {
    if text.len() > ADDRESS_BYTES_MAX || text.contains(char::is_control) {
        let message = format!(
            "must be an address of at most {ADDRESS_BYTES_MAX} bytes without control characters"
        );
        return Err(Invalid::new(field, message));
    }
    let refuse = |why: String| {
        let message = format!(
            "\"{text}\" is not an address such as \"ops@example.org\" or \"Ops <ops@example.org>\": {why}"
        );
        Invalid::new(field, message)
    };
    let mailbox: Mailbox = text.parse().map_err(|error| refuse(format!("{error}")))?;
    if mailbox.email.domain().is_ascii() {
        return Ok(mailbox);
    }
    let domain = idna::domain_to_ascii_strict(mailbox.email.domain());
    let domain = domain.map_err(|error| refuse(format!("its domain: {error}")))?;
    let address = Address::new(mailbox.email.user(), domain);
    let address = address.map_err(|error| refuse(error.to_string()))?;
    Ok(Mailbox::new(mailbox.name, address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_domain_of_an_address_is_what_mail_servers_take() {
        let address = |text: &str| mailbox("to", text).map(|mailbox| mailbox.to_string());
        assert_eq!(
            address("Anna <anna@Bücher.example>").unwrap(),
            "Anna <anna@xn--bcher-kva.example>"
        );
        assert_eq!(address("info@例え.テスト").unwrap(), "info@xn--r8jz45g.xn--zckzah");
        assert_eq!(address("jürgen@bücher.example").unwrap(), "jürgen@xn--bcher-kva.example");
        assert_eq!(address("a@Example.org").unwrap(), "a@Example.org", "it is kept as it is");
        for bad in ["a@bücher..example", "a@-ü-.example", "a@bü cher.example", "a@ü\u{ad}_.x"] {
            assert!(address(bad).is_err(), "{bad}: {:?}", address(bad));
        }
    }

    #[test]
    fn a_mail_that_could_not_be_sent_is_refused_by_its_field() {
        let fifty_one: Vec<&str> = std::iter::repeat_n("a@b.org", 51).collect();
        let cases = [
            (json!({"to": []}), "to"),
            (json!({"to": fifty_one}), "to"),
            (json!({"to": ["root"]}), "to[0]"),
            (json!({"to": ["a@b.org", "a b@c"]}), "to[1]"),
            (json!({"to": ["a@b.org\r\nBcc: c@d.org"]}), "to[0]"),
            (json!({"to": ["a@b.org"], "from": "x"}), "from"),
            (json!({"to": ["a@b.org"], "subject": "a\nBcc: c@d.org"}), "subject"),
            (json!({"to": ["a@b.org"], "text": "x".repeat(300_000)}), "text"),
            (json!({"to": ["a@b.org"], "cc": []}), "cc"),
        ];
        for (given, field) in cases {
            let Value::Object(given) = given else { unreachable!() };
            assert_eq!(Mail::parse(given.clone()).unwrap_err().field, field, "{given:?}");
        }
        let named = json!({"to": ["Öps <ops@example.org>", "root@localhost"], "subject": "ü"});
        let Value::Object(named) = named else { unreachable!() };
        assert_eq!(
            Mail::parse(named).unwrap().describe(),
            "mail to Öps <ops@example.org>, root@localhost"
        );
    }
}
