//! The variables of this process's environment that hold secrets: those that a job or the configuration names as
//! `{ env = "NAME" }`. Commands that do not name them do not inherit them, and their values are masked in every output.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::job::Job;

/// Variables that everybody has, whatever a job calls them, beside `LC_*`.
const COMMON: [&str; 11] =
    ["HOME", "LANG", "LANGUAGE", "LOGNAME", "PATH", "PWD", "SHELL", "TERM", "TMPDIR", "TZ", "USER"];
/// Bytes of a value that is masked in the outputs of all jobs: a shorter one stands in many texts by chance.
const MASKED_BYTES: usize = 6;

#[derive(Debug, Default)]
struct Known {
    names: BTreeSet<String>,
    values: BTreeSet<String>,
}

/// What is known of them. Clones share it.
#[derive(Debug, Clone)]
pub struct Confidential {
    known: Arc<Mutex<Known>>,
    /// Whether all jobs have been looked at.
    is_complete: watch::Sender<bool>,
}

impl Confidential {
    /// None yet. Commands wait until [`Confidential::complete`] says that all jobs have been looked at.
    pub fn incomplete() -> Self {
        Self { known: Arc::default(), is_complete: watch::Sender::new(false) }
    }

    /// None, of a process that has no other jobs than those that it is given.
    pub(super) fn complete_from_the_start() -> Self {
        let new = Self::incomplete();
        new.complete();
        new
    }

    /// All jobs that there were have been looked at.
    pub fn complete(&self) {
        self.is_complete.send_replace(true);
    }

    /// Takes note of the variables that a job names.
    pub fn learn_from(&self, job: &Job) {
        self.learn(job.secret_variables());
    }

    /// Takes note of variables; the answer says whether one of them was not known.
    pub fn learn(&self, names: impl IntoIterator<Item = impl AsRef<str>>) -> bool {
        let is_new = |known: &Known, name: &str| !is_common(name) && !known.names.contains(name);
        let mut known = self.known();
        let mut has_learnt = false;
        for name in names {
            let name = name.as_ref();
            if !is_new(&known, name) {
                continue;
            }
            has_learnt = true;
            known.names.insert(name.to_owned());
            let value = std::env::var(name).ok().filter(|value| value.len() >= MASKED_BYTES);
            known.values.extend(value);
        }
        has_learnt
    }

    /// Waits until all jobs have been looked at.
    pub(super) async fn completed(&self) {
        // An error means that nobody is left who could say so, and nobody is left to keep a secret from.
        drop(self.is_complete.subscribe().wait_for(|is_complete| *is_complete).await);
    }

    /// The values that no output may show.
    pub(super) fn values(&self) -> Vec<String> {
        self.known().values.iter().cloned().collect()
    }

    /// Takes out of an environment what is secret, but for these variables.
    pub(super) fn withhold(&self, env: &mut BTreeMap<OsString, OsString>, named: &[&str]) {
        let known = self.known();
        for name in known.names.iter().filter(|name| !named.contains(&name.as_str())) {
            env.remove(OsStr::new(name));
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
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
        let secrets = Confidential::complete_from_the_start();
        // The test programs of cargo have this one.
        assert!(secrets.learn(["CARGO_PKG_DESCRIPTION", "PATH", "CARGO_PKG_DESCRIPTION"]));
        assert!(!secrets.learn(["CARGO_PKG_DESCRIPTION", "LC_ALL"]), "it is known");
        let all: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
        let (mut other, mut own) = (all.clone(), all.clone());
        secrets.withhold(&mut other, &[]);
        secrets.withhold(&mut own, &["CARGO_PKG_DESCRIPTION"]);
        assert_eq!(own, all);
        assert!(!other.contains_key(OsStr::new("CARGO_PKG_DESCRIPTION")));
        assert_eq!(other.len(), all.len() - 1, "the usual variables are nobody's secret");
        assert_eq!(secrets.values(), [env!("CARGO_PKG_DESCRIPTION")]);
    }
}
