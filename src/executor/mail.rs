//! Sends mails to the server of `[mail]`, in a task of the async runtime: a mail needs no worker thread or process.

mod handover;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::transport::smtp::client::TlsParameters;
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::response::Response;
use lettre::{Address, Message};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;

use handover::{LIMIT, hand_in};

use super::Assignment;
use super::notice::{report, subject};
use super::place;
use super::report::{Shared, failed};
use crate::job::{Mail, Task, mailbox};
use crate::output::Stream;
use crate::run::Outcome;
use crate::task::context::Context;

/// What a machine is called in mails whose name cannot be that of a mail server.
const NO_DOMAIN: &str = "localhost";
/// Tells auto-responders not to answer the mail (RFC 3834).
const AUTO_SUBMITTED: (HeaderName, &str) =
    (HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated");

/// How the connection to a mail server is secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Security {
    /// Not at all.
    None,
    /// By TLS, once the server has said that it can.
    StartTls,
    /// By TLS from the beginning.
    Tls,
}

/// The settings of the mail server.
#[derive(Clone, PartialEq, Eq)]
pub struct MailSettings {
    /// Name or address of the server.
    pub server: String,
    /// Its port.
    pub port: u16,
    /// How the connection is secured.
    pub security: Security,
    /// The sender of mails that name none.
    pub from: String,
    /// User and password.
    pub login: Option<(String, String)>,
}

impl MailSettings {
    /// The machine's own server.
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

/// Sends mails. Clones share the settings.
#[derive(Debug, Clone)]
pub struct Mailer {
    settings: Arc<Mutex<Arc<MailSettings>>>,
}

impl Mailer {
    /// A mailer with these settings.
    pub fn new(settings: MailSettings) -> Self {
        Self { settings: Arc::new(Mutex::new(Arc::new(settings))) }
    }

    /// Uses these settings for the mails that follow.
    pub fn set(&self, settings: MailSettings) {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    fn settings(&self) -> Arc<MailSettings> {
        Arc::clone(&self.settings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sends a mail once the limit of mails at a time allows it, and reports the outcome.
    pub(super) async fn execute(
        self,
        shared: Arc<Shared>,
        assignment: Assignment,
        context: Arc<Context>,
        places: Arc<Semaphore>,
    ) {
        let attempt = || async {
            let Task::Mail(mail) = &*assignment.task else { return Ok(failed("it is no mail")) };
            let sent = self.send(mail, &assignment, &context, &shared).await;
            Ok(sent.unwrap_or_else(failed))
        };
        place::execute(&shared, (&assignment, &context), &places, attempt).await;
    }

    async fn send(
        &self,
        mail: &Mail,
        assignment: &Assignment,
        context: &Context,
        shared: &Shared,
    ) -> Result<Outcome, String> {
        let settings = self.settings();
        if let Some((_, password)) = &settings.login {
            context.log.hide(vec![password.clone()]);
        }
        let message = message(mail, assignment, &settings, shared.clock.now().into())?;
        let place = format!("{}:{}", settings.server, settings.port);
        // The machine's certificates are read from files.
        let server = Arc::clone(&settings);
        let tls = shared.clients.reading.run(move || tls(&server)).await??;
        let hello = ClientId::Domain(domain());
        let sent = hand_in(&settings, tls, &hello, &message, LIMIT).await;
        let mut answer = match &sent {
            Ok(response) => in_words(response),
            Err(undelivered) => undelivered.why.clone(),
        };
        answer.push('\n');
        context.log.write(shared.clock.now(), Stream::Stdout, answer.as_bytes());
        Ok(match sent {
            Ok(_) => {
                let result = json!({"server": place, "answer": answer.trim_end()});
                Outcome::Succeeded { result: Some(result), exit_code: None }
            }
            Err(undelivered) => Outcome::Failed {
                error: format!("{place}: {}", undelivered.why),
                exit_code: None,
                signal: None,
                permanent: undelivered.is_permanent,
            },
        })
    }
}

/// By what the connection is secured; none if it is not.
fn tls(settings: &MailSettings) -> Result<Option<TlsParameters>, String> {
    if settings.security == Security::None {
        return Ok(None);
    }
    let tls = TlsParameters::builder(settings.server.clone()).build_rustls();
    tls.map(Some).map_err(|error| format!("there is no TLS: {}", handover::in_words(&error)))
}

/// The mail. Each attempt to send it has the same id, so that what arrives twice can be seen to be the same.
fn message(
    mail: &Mail,
    assignment: &Assignment,
    settings: &MailSettings,
    now: SystemTime,
) -> Result<Message, String> {
    let facts = assignment.event.as_deref();
    let from = mail.from.as_deref().unwrap_or(&settings.from);
    let address = |field: &str, text: &str| mailbox(field, text).map_err(|error| error.to_string());
    let given = mail.subject.clone().or_else(|| facts.map(subject));
    let text = mail.text.clone().or_else(|| facts.map(report)).unwrap_or_default();
    let mut builder = Message::builder()
        .from(address("from", from)?)
        .date(now)
        .message_id(Some(format!("<{}@{}>", assignment.run_id.0, domain())))
        .subject(given.unwrap_or_else(|| format!("job {}", assignment.job_id.as_str())))
        .header(ContentType::TEXT_PLAIN)
        .raw_header(HeaderValue::new(AUTO_SUBMITTED.0, AUTO_SUBMITTED.1.to_owned()));
    for to in &mail.to {
        builder = builder.to(address("to", to)?);
    }
    builder.body(text).map_err(|error| format!("the mail cannot be written: {error}"))
}

/// The sender of mails where none is set: `punctual@` and the name of this machine.
fn own_address() -> String {
    format!("Punctual <punctual@{}>", domain())
}

/// The name of this machine, where it can be that of a mail server: not every name that a machine may have can be, such as
/// one of 64 letters.
fn domain() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if is_domain(&name) { name } else { NO_DOMAIN.to_owned() }
}

fn is_domain(name: &str) -> bool {
    name.is_ascii() && Address::new("punctual", name).is_ok()
}

/// A server's answer in one line.
fn in_words(response: &Response) -> String {
    let text: Vec<&str> = response.message().collect();
    format!("{} {}", response.code(), text.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_whose_name_is_no_domain_sends_mails_as_localhost() {
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
