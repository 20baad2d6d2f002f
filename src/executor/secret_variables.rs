//! The environment variables of the daemon that hold secrets: those that a job or the configuration names as
//! `{ env = "NAME" }`. A command inherits such a variable only if its job names it, and the values are masked in the
//! output of every run.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Variables that every command inherits even if a job names them as secrets; the same holds for all `LC_*`.
const COMMON: [&str; 11] =
    ["HOME", "LANG", "LANGUAGE", "LOGNAME", "PATH", "PWD", "SHELL", "TERM", "TMPDIR", "TZ", "USER"];
/// Bytes that a value needs to be masked in the outputs of all jobs: a shorter one occurs in many texts by chance.
const MASKED_BYTES: usize = 6;

#[derive(Debug, Default)]
struct KnownSecrets {
    names: BTreeSet<String>,
    values: BTreeSet<String>,
}

/// The names and values of the secret variables. Clones share them.
#[derive(Debug, Clone)]
pub struct SecretVariables {
    known: Arc<Mutex<KnownSecrets>>,
    /// Whether the variables of all stored jobs are known.
    is_complete: watch::Sender<bool>,
}

impl SecretVariables {
    /// An empty set. Commands wait until [`SecretVariables::complete`] is called.
    pub fn incomplete() -> Self {
        Self { known: Arc::default(), is_complete: watch::Sender::new(false) }
    }

    /// An empty set that commands need not wait for, for a process without stored jobs.
    pub(super) fn complete_from_the_start() -> Self {
        let new = Self::incomplete();
        new.complete();
        new
    }

    /// Marks the set as complete: the variables of all stored jobs have been added.
    pub fn complete(&self) {
        self.is_complete.send_replace(true);
    }

    /// Adds variables; the answer says whether one of them is new.
    pub fn add(&self, names: impl IntoIterator<Item = impl AsRef<str>>) -> bool {
        let mut known = self.known();
        let mut has_added = false;
        for name in names {
            let name = name.as_ref();
            if is_common(name) || known.names.contains(name) {
                continue;
            }
            known.names.insert(name.to_owned());
            has_added = true;
            let value = std::env::var(name).ok().filter(|value| value.len() >= MASKED_BYTES);
            known.values.extend(value);
        }
        has_added
    }

    /// Waits until the set is complete.
    pub(super) async fn completed(&self) {
        // An error means that the sender is gone, and with it the daemon.
        drop(self.is_complete.subscribe().wait_for(|is_complete| *is_complete).await);
    }

    /// The values to mask in every output.
    pub(super) fn values(&self) -> Vec<String> {
        self.known().values.iter().cloned().collect()
    }

    /// Removes the secret variables from an environment, except the `named` ones.
    pub(super) fn withhold(&self, env: &mut BTreeMap<OsString, OsString>, named: &[&str]) {
        let known = self.known();
        for name in known.names.iter().filter(|name| !named.contains(&name.as_str())) {
            env.remove(OsStr::new(name));
        }
    }

    fn known(&self) -> MutexGuard<'_, KnownSecrets> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_common(name: &str) -> bool {
    COMMON.contains(&name) || name.starts_with("LC_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_job_names_as_a_secret_is_withheld_from_the_others() {
        let secrets = SecretVariables::complete_from_the_start();
        // cargo sets this one for test programs.
        assert!(secrets.add(["CARGO_PKG_DESCRIPTION", "PATH", "CARGO_PKG_DESCRIPTION"]));
        assert!(!secrets.add(["CARGO_PKG_DESCRIPTION", "LC_ALL"]), "it is known already");
        let all: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
        let (mut other, mut own) = (all.clone(), all.clone());
        secrets.withhold(&mut other, &[]);
        secrets.withhold(&mut own, &["CARGO_PKG_DESCRIPTION"]);
        assert_eq!(own, all);
        assert!(!other.contains_key(OsStr::new("CARGO_PKG_DESCRIPTION")));
        assert_eq!(other.len(), all.len() - 1, "the usual variables are not secret");
        assert_eq!(secrets.values(), [env!("CARGO_PKG_DESCRIPTION")]);
    }
}
