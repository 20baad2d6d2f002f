//! Sends mails to the server of `[mail]`, as tasks of the async runtime. [`smtp`] delivers a message.

mod settings;
mod smtp;

pub use settings::{MailSettings, Security};

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use lettre::Message;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::transport::smtp::client::TlsParameters;
use lettre::transport::smtp::extension::ClientId;
use serde_json::json;
use tokio::sync::Semaphore;

use self::settings::domain;
use self::smtp::{LIMIT, deliver, describe_error, describe_response};
use super::assignment::Assignment;
use super::hook_report::{report, subject};
use super::run::{ExecutorServices, failed, failure};
use crate::job::{Mail, mailbox};
use crate::output::Stream;
use crate::run::Outcome;
use crate::task::context::Context;

/// Tells auto-responders not to answer the mail (RFC 3834).
const AUTO_SUBMITTED: (HeaderName, &str) =
    (HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated");

/// Sends mails. Clones share the settings.
#[derive(Debug, Clone)]
pub struct Mailer {
    settings: Arc<Mutex<Arc<MailSettings>>>,
}

impl Mailer {
    pub fn new(settings: MailSettings) -> Self {
        Self { settings: Arc::new(Mutex::new(Arc::new(settings))) }
    }

    /// Changes the settings for the mails that follow.
    pub fn set(&self, settings: MailSettings) {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    fn settings(&self) -> Arc<MailSettings> {
        Arc::clone(&self.settings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sends a mail as soon as a permit is free, and reports the outcome.
    pub(super) async fn execute(
        self,
        services: Arc<ExecutorServices>,
        mail: Arc<Mail>,
        assignment: Assignment,
        context: Arc<Context>,
        permits: Arc<Semaphore>,
    ) {
        let attempt = || async {
            let sent = self.send(&mail, &assignment, &context, &services).await;
            services.deliveries.mail(matches!(sent, Ok(Outcome::Succeeded { .. })));
            Ok(sent.unwrap_or_else(failed))
        };
        services.execute_async(&assignment, &context, &permits, attempt).await;
    }

    async fn send(
        &self,
        mail: &Mail,
        assignment: &Assignment,
        context: &Context,
        services: &ExecutorServices,
    ) -> Result<Outcome, String> {
        let settings = self.settings();
        if let Some((_, password)) = &settings.login {
            context.log.hide(vec![password.clone()]);
        }
        let message = message(mail, assignment, &settings, services.clock.now().into())?;
        let server = format!("{}:{}", settings.server, settings.port);
        // The machine's certificates are read from files, which may block.
        let tls_settings = Arc::clone(&settings);
        let tls = services.clients.blocking.run(move || tls(&tls_settings)).await??;
        let hello = ClientId::Domain(domain());
        let sent = deliver(&settings, tls, &hello, &message, LIMIT).await;
        let answer = match &sent {
            Ok(response) => describe_response(response),
            Err(error) => error.why.clone(),
        };
        let now = services.clock.now();
        context.log.write(now, Stream::Stdout, format!("{answer}\n").as_bytes());
        Ok(match sent {
            Ok(_) => {
                let result = json!({"server": server, "answer": answer.trim_end()});
                Outcome::Succeeded { result: Some(result), exit_code: None }
            }
            Err(error) => failure(format!("{server}: {}", error.why), error.is_permanent),
        })
    }
}

/// The TLS parameters of the connection; `None` for a connection without TLS.
fn tls(settings: &MailSettings) -> Result<Option<TlsParameters>, String> {
    if settings.security == Security::None {
        return Ok(None);
    }
    let tls = TlsParameters::builder(settings.server.clone()).build_rustls();
    tls.map(Some).map_err(|error| format!("TLS could not be set up: {}", describe_error(&error)))
}

/// Builds the mail. Each attempt to send it has the same message id, so that a receiver can recognise a second copy.
fn message(
    mail: &Mail,
    assignment: &Assignment,
    settings: &MailSettings,
    now: SystemTime,
) -> Result<Message, String> {
    let event = assignment.event.as_deref();
    let from = mail.from.as_deref().unwrap_or(&settings.from);
    let address = |field: &str, text: &str| mailbox(field, text).map_err(|error| error.to_string());
    let subject = mail.subject.clone().or_else(|| event.map(subject));
    let text = mail.text.clone().or_else(|| event.map(report)).unwrap_or_default();
    let mut builder = Message::builder()
        .from(address("from", from)?)
        .date(now)
        .message_id(Some(format!("<{}@{}>", assignment.run_id.0, domain())))
        .subject(subject.unwrap_or_else(|| format!("job {}", assignment.job_id.as_str())))
        .header(ContentType::TEXT_PLAIN)
        .raw_header(HeaderValue::new(AUTO_SUBMITTED.0, AUTO_SUBMITTED.1.to_owned()));
    for to in &mail.to {
        builder = builder.to(address("to", to)?);
    }
    builder.body(text).map_err(|error| format!("the mail cannot be written: {error}"))
}
