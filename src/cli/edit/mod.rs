//! `punctual edit`: a job as TOML in an editor. Only what was changed in it is sent, for the version of the job that was
//! shown, so that no change of another client is undone.

mod document;
mod file;

use serde_json::Value;

use super::console::{Console, note};
use super::error::CliError;
use super::view;
use crate::client::{Client, ClientError};
use crate::clock::Timestamp;
use crate::json::difference;
use document::Document;
use file::EditedFile;

/// How often a change is sent again because the job has moved on in its schedule meanwhile.
const TRIES_MAX: usize = 10;

pub(super) async fn run(
    client: &Client,
    id: &str,
    console: &Console,
    now: Timestamp,
) -> Result<(), CliError> {
    let (job, version) = client.job_with_version(id).await?;
    if job.get("origin").and_then(Value::as_str) == Some("file") {
        let source = job.get("source").and_then(Value::as_str).unwrap_or_default();
        let why =
            format!("job \"{id}\" is declared in a file (source \"{source}\"): edit it there");
        return Err(CliError::Refused(why));
    }
    let mut edit = Edit { document: Document::of(&job)?, job, version };
    let file = EditedFile::create()?;
    let mut text = edit.document.text(id);
    let mut refusal: Option<String> = None;
    loop {
        file.write(&text)?;
        file.open_in_editor()?;
        let edited = file.read()?;
        if edited == text {
            return match refusal {
                None if console.is_json() => console.show(&edit.job, |_| String::new()),
                None => {
                    note(&format!("{id} was not changed"));
                    Ok(())
                }
                Some(why) => Err(CliError::Refused(format!("{why}; {id} was not changed"))),
            };
        }
        let why = match edit.apply(client, id, &edited).await {
            Ok(after) => {
                return console.show(&after, |after| view::modified(&edit.job, after, now));
            }
            Err(EditError::Refused(why)) => why,
            Err(EditError::Failed(error)) => {
                let kept = file.keep();
                note(&format!("the edited text is kept in {}", kept.display()));
                return Err(error.into());
            }
        };
        text = document::with_complaint(&edited, &why);
        refusal = Some(why);
    }
}

/// A job that is edited.
struct Edit {
    /// What the editor was shown.
    document: Document,
    /// The job as it was read last, and its version.
    job: Value,
    version: String,
}

enum EditError {
    /// The editor opens again with this complaint.
    Refused(String),
    /// Another text would not help.
    Failed(ClientError),
}

impl From<ClientError> for EditError {
    fn from(error: ClientError) -> Self {
        match &error {
            ClientError::Refused { status: 400 | 409 | 413 | 422, .. } => {
                Self::Refused(error.to_string())
            }
            ClientError::Refused { .. }
            | ClientError::Unreachable { .. }
            | ClientError::Denied { .. }
            | ClientError::Unreadable(_) => Self::Failed(error),
        }
    }
}

impl Edit {
    /// Sends what was changed in the text.
    async fn apply(&mut self, client: &Client, id: &str, text: &str) -> Result<Value, EditError> {
        let edited = document::parse(text).map_err(EditError::Refused)?;
        let patch = difference(&self.document.value, &edited);
        if patch.as_object().is_some_and(serde_json::Map::is_empty) {
            return Ok(self.job.clone());
        }
        for _ in 0..TRIES_MAX {
            match client.modify(id, &patch, &self.version).await {
                Err(error) if error.is_outdated() => self.read_again(client, id, &patch).await?,
                answer => return Ok(answer?),
            }
        }
        Err(EditError::Refused("the job changes all the time; save again to try again".to_owned()))
    }

    /// Reads the job again, which has changed. Refuses a patch of an option that another client has changed.
    async fn read_again(
        &mut self,
        client: &Client,
        id: &str,
        patch: &Value,
    ) -> Result<(), EditError> {
        let former =
            Document::of(&self.job).map_err(|error| EditError::Refused(error.to_string()))?;
        let (job, version) = client.job_with_version(id).await?;
        let present = Document::of(&job).map_err(|error| EditError::Refused(error.to_string()))?;
        (self.job, self.version) = (job, version);
        let by_others = difference(&former.value, &present.value);
        let members = by_others.as_object().into_iter().flatten();
        let both: Vec<String> = members
            .filter(|(key, _)| patch.get(*key).is_some())
            .map(|(key, _)| {
                let value = present.value.get(key).map(Value::to_string);
                format!("{key} = {}", value.as_deref().unwrap_or("(default)"))
            })
            .collect();
        if both.is_empty() {
            return Ok(());
        }
        Err(EditError::Refused(format!(
            "another client has changed the job meanwhile: {}; remove this comment and save to replace that",
            both.join(", ")
        )))
    }
}
