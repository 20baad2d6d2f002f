//! Who changed what: each control request that changes something is one line of the log, with the process that sent it
//! and the outcome. A refused request has changed nothing and is only logged at the level debug.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::{Extension, FromRequestParts};
use axum::http::request::Parts;

use super::Api;
use super::error::ApiError;
use super::log::Changed;
use super::unix::Peer;
use crate::job::JobId;
use crate::run::{Run, RunId};
use crate::scheduler::request::RequestError;
use crate::server::Peer as _;
use crate::user;

/// The target under which control requests are logged.
pub const TARGET: &str = "audit";
/// The message of every such line.
const MESSAGE: &str = "control request";
/// The outcome of a request that was carried out.
const DONE: &str = "done";

/// Users whose names are known.
const USERS_MAX: usize = 1024;
/// How long a request waits for the name of its user, which may have to be looked up over the network.
const NAME_LIMIT: Duration = Duration::from_millis(300);

/// Names of users, each of which is looked up once.
#[derive(Debug, Clone, Default)]
pub struct Users(Arc<Mutex<Names>>);

/// The name of each user that was looked up; none if there is no name, or not yet.
type Names = BTreeMap<u32, Option<Arc<str>>>;

/// What is known of a user.
#[derive(Debug)]
enum Known {
    /// Its name, if it has one.
    Name(Option<Arc<str>>),
    /// It was not looked up.
    Nothing,
}

impl Users {
    /// The name of a user, if it is known soon enough.
    async fn name(&self, uid: u32) -> Option<Arc<str>> {
        if let Known::Name(name) = self.known_or_begun(uid) {
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

    /// What is known of a user. If nothing is, the caller looks it up, and nobody else does.
    fn known_or_begun(&self, uid: u32) -> Known {
        let mut names = self.lock();
        if let Some(known) = names.get(&uid) {
            return Known::Name(known.clone());
        }
        if names.len() >= USERS_MAX {
            names.clear();
        }
        names.insert(uid, None);
        Known::Nothing
    }

    fn lock(&self) -> MutexGuard<'_, Names> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The process that has sent a request, as the kernel knows it.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    uid: Option<u32>,
    user: Option<Arc<str>>,
    pid: Option<i32>,
}

impl FromRequestParts<Api> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let peer = Extension::<Peer>::from_request_parts(parts, api).await;
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
    /// Who it is, for people.
    pub(super) fn name(&self) -> Option<String> {
        let uid = self.uid?;
        Some(match &self.user {
            Some(user) => format!("{user} (uid {uid})"),
            None => format!("uid {uid}"),
        })
    }

    /// The user that it runs as; none where that is not known.
    pub(super) fn uid(&self) -> Option<u32> {
        self.uid
    }

    /// Begins a request that changes something.
    pub(super) fn orders(self, action: &'static str) -> Order {
        Order { caller: self, action, job: None, run: None, counts: None, is_logged: false }
    }

    /// Logs a change of the log's filter.
    pub(super) fn changed_log_filter(&self, changed: &Changed) {
        let Self { uid, user, pid } = self;
        let (filter, previous) = (&changed.now.filter, &changed.previous);
        tracing::info!(target: TARGET, action = %"log-level", outcome = %DONE, %filter, %previous, uid,
            user = user.as_deref().map(display), pid, "{MESSAGE}");
    }
}

/// What became of the jobs of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) added: usize,
    pub(super) replaced: usize,
    pub(super) refused: usize,
}

/// A request that changes something. It is logged once: when its outcome is known, or when its client goes away before;
/// what was handed to the scheduler until then is carried out all the same.
#[derive(Debug)]
pub(super) struct Order {
    caller: Caller,
    action: &'static str,
    job: Option<JobId>,
    run: Option<RunId>,
    counts: Option<Counts>,
    is_logged: bool,
}

impl Order {
    /// Names the job that it changes.
    pub(super) fn of_job(mut self, id: &JobId) -> Self {
        self.job = Some(id.clone());
        self
    }

    /// Names the run that it changes.
    pub(super) fn of_run(mut self, id: &RunId) -> Self {
        self.run = Some(id.clone());
        self
    }

    /// Logs what became of it.
    pub(super) fn end<T>(self, result: Result<T, RequestError>) -> Result<T, ApiError> {
        match result {
            Ok(done) => {
                self.done();
                Ok(done)
            }
            Err(refusal) => Err(self.refused(refusal)),
        }
    }

    /// Logs what became of it, with the run that it has made or ended.
    pub(super) fn end_with_run(
        mut self,
        result: Result<Arc<Run>, RequestError>,
    ) -> Result<Arc<Run>, ApiError> {
        if let Ok(run) = &result {
            self.run = Some(run.id.clone());
            self.job = Some(run.job_id.clone());
        }
        self.end(result)
    }

    /// Says that an addition has replaced a job.
    pub(super) fn replacing(mut self) -> Self {
        self.action = "replace";
        self
    }

    /// Says what became of the jobs of a batch.
    pub(super) fn counting(mut self, counts: Counts) -> Self {
        self.counts = Some(counts);
        self
    }

    /// Logs that it was done.
    pub(super) fn done(mut self) {
        self.log(DONE);
    }

    /// Logs why it was refused; gives the answer.
    pub(super) fn refused(mut self, error: impl Display + Into<ApiError>) -> ApiError {
        self.is_logged = true;
        let Self { caller: Caller { uid, user, pid }, action, job, run, .. } = &self;
        tracing::debug!(target: TARGET, %action, outcome = %"refused", job = job.as_ref().map(display),
            run = run.as_ref().map(display), %error, uid, user = user.as_deref().map(display), pid, "{MESSAGE}");
        error.into()
    }

    fn log(&mut self, outcome: &str) {
        self.is_logged = true;
        let Self { caller: Caller { uid, user, pid }, action, job, run, counts, .. } = self;
        tracing::info!(target: TARGET, %action, %outcome, job = job.as_ref().map(display),
            run = run.as_ref().map(display), added = counts.map(|counts| counts.added),
            replaced = counts.map(|counts| counts.replaced), refused = counts.map(|counts| counts.refused),
            uid, user = user.as_deref().map(display), pid, "{MESSAGE}");
    }
}

impl Drop for Order {
    fn drop(&mut self) {
        if !self.is_logged {
            self.log("unknown");
        }
    }
}

/// Logs a reload that a signal has asked for.
pub fn reload_by_signal() {
    tracing::info!(target: TARGET, action = %"reload", outcome = %DONE, by = %"signal", "{MESSAGE}");
}

/// Logs that a change of the log's filter has ended by its limit.
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
    fn an_order_is_logged_once_also_when_its_client_goes_away() {
        let caller = Caller { uid: Some(7), user: Some("ada".into()), pid: Some(42) };
        let order = || caller.clone().orders("pause").of_job(&JobId::parse("a").unwrap());
        let ends = "action=pause outcome=";
        let by = "job=a uid=7 user=ada pid=42";
        let said = lines(|| order().end(Ok(())).unwrap());
        assert_eq!(said, format!(" INFO control request {ends}done {by}\n"));
        let said = lines(|| drop(order()));
        assert_eq!(said, format!(" INFO control request {ends}unknown {by}\n"));
        let refusal = RequestError::NotFound(JobId::parse("a").unwrap());
        let said = lines(|| drop(order().end::<()>(Err(refusal))));
        assert_eq!(said, "", "it has changed nothing");
        let nobody = Caller { uid: None, user: None, pid: None };
        let counts = Counts { added: 3, replaced: 2, refused: 1 };
        let said = lines(|| nobody.orders("add-batch").counting(counts).done());
        let expected = "action=add-batch outcome=done added=3 replaced=2 refused=1\n";
        assert_eq!(said, format!(" INFO control request {expected}"));
    }

    #[tokio::test]
    async fn a_user_is_looked_up_once() {
        let users = Users::default();
        assert_eq!(users.name(0).await.as_deref(), Some("root"));
        users.lock().insert(0, Some("cached".into()));
        assert_eq!(users.name(0).await.as_deref(), Some("cached"));
        assert_eq!(users.name(u32::MAX - 7).await, None);
        let many = 0..u32::try_from(USERS_MAX * 2).unwrap();
        many.for_each(|uid| drop(users.known_or_begun(1_000_000 + uid)));
        assert!(users.lock().len() <= USERS_MAX);
    }
}
