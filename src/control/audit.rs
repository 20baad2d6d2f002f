//! Who changed what: each control request that changes something is one line of the log, with the process that sent it
//! and the outcome. A refused request has changed nothing, and is logged at the level debug only.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::{Extension, FromRequestParts};
use axum::http::request::Parts;

use super::Api;
use super::error::ApiError;
use super::listener::SocketPeer;
use crate::job::JobId;
use crate::run::{Run, RunId};
use crate::scheduler::request::RequestError;
use crate::server::PeerUser as _;
use crate::user;

/// The target under which control requests are logged.
pub const TARGET: &str = "audit";
const MESSAGE: &str = "control request";
const DONE: &str = "done";

/// The most user names that are cached.
const USERS_MAX: usize = 1024;
/// How long a request waits for the name of its user: the lookup may go over the network.
const NAME_LIMIT: Duration = Duration::from_millis(300);

/// A cache of user names. Each is looked up once.
#[derive(Debug, Clone, Default)]
pub struct UserNames(Arc<Mutex<NameCache>>);

/// The name of each user; none if the user has no name, or the lookup has not ended yet.
type NameCache = BTreeMap<u32, Option<Arc<str>>>;

#[derive(Debug)]
enum CachedName {
    Known(Option<Arc<str>>),
    /// The caller has to look it up.
    Unknown,
}

impl UserNames {
    /// The name of a user, if it can be looked up within [`NAME_LIMIT`].
    async fn name(&self, uid: u32) -> Option<Arc<str>> {
        if let CachedName::Known(name) = self.cached(uid) {
            return name;
        }
        let users = self.clone();
        let looking_up = tokio::task::spawn_blocking(move || {
            let name = user::name_of(uid).map(Arc::from);
            users.lock().insert(uid, name.clone());
            name
        });
        tokio::time::timeout(NAME_LIMIT, looking_up).await.ok()?.ok()?
    }

    /// Only the first caller for a user gets [`CachedName::Unknown`], so that each user is looked up once.
    fn cached(&self, uid: u32) -> CachedName {
        let mut names = self.lock();
        if let Some(known) = names.get(&uid) {
            return CachedName::Known(known.clone());
        }
        if names.len() >= USERS_MAX {
            names.clear();
        }
        names.insert(uid, None);
        CachedName::Unknown
    }

    fn lock(&self) -> MutexGuard<'_, NameCache> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The process that has sent a request, as the kernel reports it.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    uid: Option<u32>,
    user: Option<Arc<str>>,
    pid: Option<i32>,
}

impl FromRequestParts<Api> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let peer = Extension::<SocketPeer>::from_request_parts(parts, api).await;
        let Extension(peer) = peer.map_err(|error| ApiError::internal(error.body_text()))?;
        let uid = peer.user();
        let user = match uid {
            Some(uid) => api.users.name(uid).await,
            None => None,
        };
        Ok(Self { uid, user, pid: peer.pid() })
    }
}

impl Caller {
    /// The user in a form for people.
    pub(super) fn name(&self) -> Option<String> {
        let uid = self.uid?;
        Some(match &self.user {
            Some(user) => format!("{user} (uid {uid})"),
            None => format!("uid {uid}"),
        })
    }

    /// None if the kernel does not report it.
    pub(super) fn uid(&self) -> Option<u32> {
        self.uid
    }

    /// Begins the audit of a request that changes something.
    pub(super) fn begin(self, action: &'static str) -> AuditedChange {
        AuditedChange {
            caller: self,
            action,
            job: None,
            run: None,
            jobs: None,
            counts: None,
            changed: None,
            is_logged: false,
        }
    }

    /// Logs a change of the log filter.
    pub(super) fn changed_log_filter(&self, filter: &str, previous: &str) {
        let Self { uid, user, pid } = self;
        tracing::info!(target: TARGET, action = %"log-level", outcome = %DONE, %filter, %previous, uid,
            user = user.as_deref().map(display), pid, "{MESSAGE}");
    }
}

/// How many jobs a request about many has changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct BulkCounts {
    pub(super) changed: usize,
    pub(super) unchanged: usize,
    pub(super) refused: usize,
}

/// Which jobs a request about many names, and what became of them so far.
#[derive(Debug)]
struct NamedJobs {
    conditions: String,
    counts: BulkCounts,
}

/// How many jobs of a batch were added, replaced and refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct BatchCounts {
    pub(super) added: usize,
    pub(super) replaced: usize,
    pub(super) refused: usize,
}

/// A request that changes something. It is logged once: when its outcome is known, or with the outcome `unknown` when its
/// client goes away before that, since the scheduler carries out what it has been handed.
#[derive(Debug)]
pub(super) struct AuditedChange {
    caller: Caller,
    action: &'static str,
    job: Option<JobId>,
    run: Option<RunId>,
    jobs: Option<NamedJobs>,
    counts: Option<BatchCounts>,
    /// The options of a job that it has changed.
    changed: Option<String>,
    is_logged: bool,
}

impl AuditedChange {
    /// Names the job that it changes.
    pub(super) fn of_job(mut self, id: &JobId) -> Self {
        self.job = Some(id.clone());
        self
    }

    /// Names the conditions of the jobs that it changes.
    pub(super) fn of_jobs(mut self, conditions: String) -> Self {
        self.jobs = Some(NamedJobs { conditions, counts: BulkCounts::default() });
        self
    }

    /// Says what became of these jobs so far.
    pub(super) fn counting_jobs(mut self, counts: BulkCounts) -> Self {
        if let Some(jobs) = &mut self.jobs {
            jobs.counts = counts;
        }
        self
    }

    /// Names the run that it changes.
    pub(super) fn of_run(mut self, id: &RunId) -> Self {
        self.run = Some(id.clone());
        self
    }

    /// Logs the outcome.
    pub(super) fn finish<T>(self, result: Result<T, RequestError>) -> Result<T, ApiError> {
        match result {
            Ok(done) => {
                self.done();
                Ok(done)
            }
            Err(refusal) => Err(self.refused(refusal)),
        }
    }

    /// Logs the outcome, with the run that the request has created or cancelled.
    pub(super) fn finish_with_run(
        mut self,
        result: Result<Arc<Run>, RequestError>,
    ) -> Result<Arc<Run>, ApiError> {
        if let Ok(run) = &result {
            self.run = Some(run.id.clone());
            self.job = Some(run.job_id.clone());
        }
        self.finish(result)
    }

    /// Marks an addition that has replaced a job.
    pub(super) fn replacing(mut self) -> Self {
        self.action = "replace";
        self
    }

    pub(super) fn counting(mut self, counts: BatchCounts) -> Self {
        self.counts = Some(counts);
        self
    }

    /// Names the options that it has changed.
    pub(super) fn changing(mut self, options: &[String]) -> Self {
        self.changed = Some(options.join(","));
        self
    }

    pub(super) fn done(mut self) {
        self.log(DONE);
    }

    /// Logs why the request was refused, and returns the error to answer with.
    pub(super) fn refused(mut self, error: impl Display + Into<ApiError>) -> ApiError {
        self.is_logged = true;
        let Self { caller: Caller { uid, user, pid }, action, job, run, .. } = &self;
        tracing::debug!(target: TARGET, %action, outcome = %"refused", job = job.as_ref().map(display),
            run = run.as_ref().map(display), %error, uid, user = user.as_deref().map(display), pid, "{MESSAGE}");
        error.into()
    }

    fn log(&mut self, outcome: &str) {
        self.is_logged = true;
        let Self {
            caller: Caller { uid, user, pid }, action, job, run, jobs, counts, changed, ..
        } = self;
        if let Some(NamedJobs { conditions, counts }) = jobs {
            let BulkCounts { changed, unchanged, refused } = counts;
            tracing::info!(target: TARGET, %action, %outcome, jobs = %conditions, changed, unchanged, refused,
                uid, user = user.as_deref().map(display), pid, "{MESSAGE}");
            return;
        }
        tracing::info!(target: TARGET, %action, %outcome, job = job.as_ref().map(display),
            run = run.as_ref().map(display), changed = changed.as_ref().map(display), added = counts.map(|counts| counts.added),
            replaced = counts.map(|counts| counts.replaced), refused = counts.map(|counts| counts.refused),
            uid, user = user.as_deref().map(display), pid, "{MESSAGE}");
    }
}

impl Drop for AuditedChange {
    fn drop(&mut self) {
        if !self.is_logged {
            self.log("unknown");
        }
    }
}

/// Logs a reload that a signal has triggered.
pub fn reload_by_signal() {
    tracing::info!(target: TARGET, action = %"reload", outcome = %DONE, by = %"signal", "{MESSAGE}");
}

/// Logs that the start's log filter is back, because the time limit of a change is over.
pub fn log_filter_expired(filter: &str, previous: &str) {
    tracing::info!(target: TARGET, action = %"log-level", outcome = %DONE, %filter, %previous, by = %"time limit", "{MESSAGE}");
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read};
    use std::os::fd::AsFd;

    use super::*;

    /// The lines that `log` logs.
    fn lines(log: impl FnOnce()) -> String {
        let (mut reader, writer) = io::pipe().unwrap();
        let again = move || writer.as_fd().try_clone_to_owned().map(io::PipeWriter::from).unwrap();
        let logging = tracing_subscriber::fmt().with_writer(again).with_ansi(false).without_time();
        tracing::subscriber::with_default(logging.with_target(false).finish(), log);
        let mut lines = String::new();
        reader.read_to_string(&mut lines).unwrap();
        lines
    }

    #[test]
    fn a_change_is_logged_once_even_if_its_client_goes_away() {
        let caller = Caller { uid: Some(7), user: Some("ada".into()), pid: Some(42) };
        let change = || caller.clone().begin("pause").of_job(&JobId::parse("a").unwrap());
        let ends = "action=pause outcome=";
        let by = "job=a uid=7 user=ada pid=42";
        let said = lines(|| change().finish(Ok(())).unwrap());
        assert_eq!(said, format!(" INFO control request {ends}done {by}\n"));
        let said = lines(|| drop(change()));
        assert_eq!(said, format!(" INFO control request {ends}unknown {by}\n"));
        let refusal = RequestError::NotFound(JobId::parse("a").unwrap());
        let said = lines(|| drop(change().finish::<()>(Err(refusal))));
        assert_eq!(said, "", "it has changed nothing");
        let nobody = Caller { uid: None, user: None, pid: None };
        let counts = BatchCounts { added: 3, replaced: 2, refused: 1 };
        let said = lines(|| nobody.begin("add-batch").counting(counts).done());
        let expected = "action=add-batch outcome=done added=3 replaced=2 refused=1\n";
        assert_eq!(said, format!(" INFO control request {expected}"));
    }

    #[tokio::test]
    async fn a_user_is_looked_up_once() {
        let users = UserNames::default();
        assert_eq!(users.name(0).await.as_deref(), Some("root"));
        users.lock().insert(0, Some("cached".into()));
        assert_eq!(users.name(0).await.as_deref(), Some("cached"));
        assert_eq!(users.name(u32::MAX - 7).await, None);
        let many = 0..u32::try_from(USERS_MAX * 2).unwrap();
        many.for_each(|uid| drop(users.cached(1_000_000 + uid)));
        assert!(users.lock().len() <= USERS_MAX);
    }
}
