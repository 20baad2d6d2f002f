//! Sends mails to the server of `[mail]`, in a task of the async runtime: a mail needs no worker thread or process.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::response::Response;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;

use super::Assignment;
use super::notice::{report, subject};
use super::report::{Shared, failed};
use crate::job::{Mail, Task, mailbox};
use crate::output::Stream;
use crate::run::Outcome;
use crate::task::context::Context;

/// How long the server may take for each of its answers.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
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
            from: format!("Punctual <punctual@{}>", host_name()),
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
        let mut started_at = shared.clock.now();
        let task = Arc::clone(&assignment.task);
        let outcome = match (&*task, context.cancellation.ending()) {
            (_, Some(ending)) => ending.into(),
            (Task::Mail(mail), None) => {
                let sending = async {
                    // Nobody closes it.
                    let _place = places.acquire().await;
                    started_at = shared.clock.now();
                    let _limit = shared.limit(assignment.timeout, &context);
                    self.send(mail, &assignment, &context, &shared).await.unwrap_or_else(failed)
                };
                tokio::select! {
                    biased;
                    outcome = sending => outcome,
                    ending = context.cancellation.cancelled() => ending.into(),
                }
            }
            (
                Task::Builtin { .. } | Task::Command(_) | Task::Http(_) | Task::Unreadable(_),
                None,
            ) => failed("it is no mail"),
        };
        shared.report(&assignment, &context, started_at, outcome.into()).await;
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
        let transport = shared.clients.reading.run(move || transport(&server)).await?;
        let sent = transport?.send(message).await;
        let mut answer = match &sent {
            Ok(response) => in_words(response),
            Err(error) => innermost(error),
        };
        answer.push('\n');
        context.log.write(shared.clock.now(), Stream::Stdout, answer.as_bytes());
        Ok(match sent {
            Ok(_) => {
                let result = json!({"server": place, "answer": answer.trim_end()});
                Outcome::Succeeded { result: Some(result), exit_code: None }
            }
            Err(error) => Outcome::Failed {
                error: format!("{place}: {}", answer.trim_end()),
                exit_code: None,
                signal: None,
                permanent: error.is_permanent(),
            },
        })
    }
}

fn transport(settings: &MailSettings) -> Result<AsyncSmtpTransport<Tokio1Executor>, String> {
    let tls = || {
        TlsParameters::builder(settings.server.clone())
            .build_rustls()
            .map_err(|error| format!("there is no TLS: {}", innermost(&error)))
    };
    let tls = match settings.security {
        Security::None => Tls::None,
        Security::StartTls => Tls::Required(tls()?),
        Security::Tls => Tls::Wrapper(tls()?),
    };
    let builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(settings.server.clone())
        .port(settings.port)
        .tls(tls)
        .hello_name(ClientId::Domain(host_name()))
        .timeout(Some(ANSWER_LIMIT));
    Ok(match settings.login.clone() {
        Some((user, password)) => builder.credentials(Credentials::new(user, password)).build(),
        None => builder.build(),
    })
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
        .message_id(Some(format!("<{}@{}>", assignment.run_id.0, host_name())))
        .subject(given.unwrap_or_else(|| format!("job {}", assignment.job_id.as_str())))
        .header(ContentType::TEXT_PLAIN)
        .raw_header(HeaderValue::new(AUTO_SUBMITTED.0, AUTO_SUBMITTED.1.to_owned()));
    for to in &mail.to {
        builder = builder.to(address("to", to)?);
    }
    builder.body(text).map_err(|error| format!("the mail cannot be written: {error}"))
}

/// The name of this machine.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// A server's answer in one line.
fn in_words(response: &Response) -> String {
    let text: Vec<&str> = response.message().collect();
    format!("{} {}", response.code(), text.join(" "))
}

/// An error with the one that it came from, which says more.
fn innermost(error: &lettre::transport::smtp::Error) -> String {
    let mut texts = vec![error.to_string()];
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        let text = inner.to_string();
        if texts.iter().all(|known| !known.contains(&text)) {
            texts.push(text);
        }
        source = inner.source();
    }
    texts.join(": ")
}
