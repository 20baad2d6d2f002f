//! The constructor of a job: a definition is compiled, completed with the job defaults, and checked against what this
//! daemon can do. It is pure, and the same for the socket, the file and `punctual check`. Facts that
//! only the executor knows come from [`Builtins`] and [`CommandRights`].

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{
    Command, Definition, Due, ExecutorKind, Job, JobId, JobPatch, JobState, Origin, Policy,
    PolicyInput, PoolSettings, Task,
};
use crate::clock::Timestamp;
use crate::instant::parse_instant;
use crate::invalid::Invalid;
use crate::secret::Text;
use crate::trigger::Trigger;
use crate::zone::DefaultZone;

/// The most bytes of a builtin's arguments, as JSON.
const ARGS_BYTES_MAX: usize = 256 * 1024;
/// The most bytes of a job's definition, as JSON.
const JOB_BYTES_MAX: usize = 512 * 1024;
/// The executor of a job that names none, if it can run the task.
const DEFAULT_EXECUTOR: &str = "default";

/// The builtins of this daemon.
pub trait Builtins: std::fmt::Debug + Send + Sync {
    /// Refuses an unknown builtin, and arguments that it does not take.
    fn check(&self, name: &str, args: &Map<String, Value>) -> Result<(), Invalid>;

    /// Whether there is a builtin of this name.
    fn has(&self, name: &str) -> bool;
}

/// What this daemon can give to commands, and which clients may ask for it.
pub trait CommandRights: std::fmt::Debug + Send + Sync {
    /// Refuses a command that this daemon can never start.
    fn check(&self, command: &Command) -> Result<(), Invalid>;

    /// Refuses a task that this user may not have run. None stands for an unknown user.
    fn check_requester(&self, uid: Option<u32>, task: &Task) -> Result<(), Invalid>;

    /// Refuses a secret of this daemon to this user.
    fn check_secret_of(&self, uid: Option<u32>, field: &str) -> Result<(), Invalid>;

    /// The same rights with another user for commands that name none.
    fn with_default_user(&self, user: Option<String>) -> Arc<dyn CommandRights>;
}

/// What definitions are checked against.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The zone of triggers that name none, and where it was found.
    pub zone: DefaultZone,
    /// The policy options of jobs that give none.
    pub defaults: PolicyInput,
    /// The pools, by name.
    pub executors: BTreeMap<String, PoolSettings>,
    /// The number of crashes of the daemon during one run after which the run is lost; at least 1.
    pub max_crashes: u32,
    pub builtins: Arc<dyn Builtins>,
    /// The source of the jobs that this daemon's file declares. Declared jobs of other sources are never changed.
    pub source: Arc<str>,
    /// The rights of commands. None: commands are not checked against them.
    pub rights: Option<Arc<dyn CommandRights>>,
}

/// What becomes of a definition whose trigger has no further occurrence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EndedTrigger {
    Refused,
    /// The job is finished.
    Accepted,
}

impl Rules {
    /// Compiles a definition into a job, or says which field is wrong.
    pub fn admit(
        &self,
        definition: Definition,
        origin: Origin,
        now: Timestamp,
    ) -> Result<Job, Invalid> {
        let ended = match origin {
            // It was right when it was written.
            Origin::File => EndedTrigger::Accepted,
            Origin::Socket => EndedTrigger::Refused,
        };
        self.compile(definition, origin, ended, now)
    }

    /// Compiles the definition of a job with a patch, or says which field is wrong. [`Job::modified`] takes it.
    pub fn modify(&self, job: &Job, patch: &JobPatch, now: Timestamp) -> Result<Job, Invalid> {
        let ended =
            if patch.has_trigger() { EndedTrigger::Refused } else { EndedTrigger::Accepted };
        self.compile(patch.apply(job)?, job.origin, ended, now)
    }

    fn compile(
        &self,
        mut definition: Definition,
        origin: Origin,
        ended: EndedTrigger,
        now: Timestamp,
    ) -> Result<Job, Invalid> {
        let policy = definition.take_policy().complete(&self.defaults)?;
        let id = match &definition.id {
            Some(id) => JobId::parse(id)?,
            None => JobId::parse(&uuid::Uuid::now_v7().to_string())?,
        };
        let trigger = self.trigger(&definition, ended, now);
        let trigger = trigger.map_err(|invalid| invalid.within("trigger"))?;
        let task = Task::from_value(std::mem::take(&mut definition.task));
        let task = task.map_err(|invalid| invalid.within("task"))?;
        let checked = self.check_task(&task).and_then(|()| task.check_is_no_hook());
        checked.map_err(|invalid| invalid.within("task"))?;
        self.check_hooks(&policy)?;
        self.check_privileges(&task, &policy)?;
        let executor = self.executor_for(definition.executor.as_deref(), &task)?;
        let is_paused = definition.paused || definition.next_run_time == Some(None);
        let state = match next_run(&definition, &id, &trigger, now)? {
            Some(next) if is_paused => JobState::Paused { next },
            Some(next) => JobState::Active { next },
            None if ended == EndedTrigger::Accepted => JobState::Finished,
            None => {
                return Err(Invalid::new("trigger", trigger.ended_reason(now).unwrap_or_default()));
            }
        };
        let mut job = Job {
            name: definition.name.unwrap_or_else(|| id.to_string()),
            executor,
            policy,
            tags: definition.tags,
            description: definition.description,
            source: (origin == Origin::File).then(|| Arc::clone(&self.source)),
            ..Job::new(id, trigger, task, origin, state, now)
        };
        job.bytes = job.definition_bytes();
        if job.bytes > JOB_BYTES_MAX {
            let message = format!(
                "a job has at most {JOB_BYTES_MAX} bytes as JSON, this one has {}",
                job.bytes
            );
            return Err(Invalid::new("", message));
        }
        Ok(job)
    }

    /// These rules with this default user for commands. A running daemon keeps its own at a reload.
    #[must_use]
    pub fn running_as(self, default_user: Option<String>) -> Self {
        let rights = self.rights.map(|own| own.with_default_user(default_user));
        Self { rights, ..self }
    }

    fn trigger(
        &self,
        definition: &Definition,
        ended: EndedTrigger,
        now: Timestamp,
    ) -> Result<Trigger, Invalid> {
        let trigger = Trigger::compile(&definition.trigger, &self.zone.zone, now)?;
        if ended == EndedTrigger::Accepted && trigger.end().is_some_and(|end| end < now) {
            return Ok(trigger);
        }
        trigger.require_occurrence()
    }

    /// Checks a stored job again, because its builtin or executor may have gone or come.
    pub fn check(&self, job: &Job) -> Result<(), Invalid> {
        if let Some(reason) = &job.unreadable {
            return Err(Invalid::new("", reason.clone()));
        }
        Trigger::parse(job.trigger.spec(), &self.zone.zone, job.anchor)
            .map_err(|invalid| invalid.within("trigger"))?;
        let task =
            Task::from_value(job.task.to_value()).map_err(|invalid| invalid.within("task"))?;
        self.check_task(&task).map_err(|invalid| invalid.within("task"))?;
        self.check_hooks(&job.policy)?;
        self.executor_for(Some(&job.executor), &job.task).map(drop)
    }

    fn check_task(&self, task: &Task) -> Result<(), Invalid> {
        let Task::Builtin(builtin) = task else { return Ok(()) };
        let bytes = builtin.args.bytes();
        if bytes > ARGS_BYTES_MAX {
            let message = format!("has {bytes} bytes as JSON, of at most {ARGS_BYTES_MAX}");
            return Err(Invalid::new("args", message));
        }
        self.builtins.check(&builtin.name, &builtin.args.to_map())
    }

    /// Refuses a job that this user may not have run here. None stands for an unknown user. The jobs of the file may do
    /// whatever the daemon can.
    pub fn check_requester(&self, job: &Job, uid: Option<u32>) -> Result<(), Invalid> {
        let Some(rights) = &self.rights else { return Ok(()) };
        // What the job has from the job defaults comes from the file, and not from this user.
        let defaults = self.default_policy()?;
        let is_secret = |text: &&Text| text.plain().is_none();
        let heartbeat = job.policy.heartbeat.as_ref().filter(is_secret);
        if heartbeat.is_some() && heartbeat != defaults.heartbeat.as_ref() {
            rights.check_secret_of(uid, "heartbeat")?;
        }
        let is_default = |given: &(&str, &Task)| hooks(&defaults).any(|default| default == *given);
        for (name, task) in tasks(&job.task, &job.policy).filter(|given| !is_default(given)) {
            rights.check_requester(uid, task).map_err(|invalid| invalid.within(name))?;
        }
        Ok(())
    }

    /// Refuses a run of this job the secrets of this task. Admission has checked that already, unless a daemon with fewer
    /// rights accepted the job and this one, with more rights than its clients, took it over.
    pub fn check_secrets(&self, job: &Job, task: &Task) -> Result<(), Invalid> {
        let Some(field) = task.secret_field() else { return Ok(()) };
        self.check_secret(job, &field, |defaults| {
            hooks(defaults).any(|(_, default)| default == task)
        })
    }

    /// Whether a heartbeat of this job may be sent: the same check as [`Self::check_secrets`], for its URL.
    pub fn may_beat(&self, job: &Job, url: &Text) -> bool {
        let is_default = |defaults: &Policy| defaults.heartbeat.as_ref() == Some(url);
        url.plain().is_some() || self.check_secret(job, "heartbeat", is_default).is_ok()
    }

    /// Refuses a job a secret, unless the file gives it: in the job, or in the job defaults.
    fn check_secret(
        &self,
        job: &Job,
        field: &str,
        is_default: impl FnOnce(&Policy) -> bool,
    ) -> Result<(), Invalid> {
        let Some(rights) = &self.rights else { return Ok(()) };
        if job.origin == Origin::File {
            return Ok(());
        }
        // The rights come first, because they are quick to check.
        rights.check_secret_of(job.requester, field).or_else(|refused| {
            let defaults = self.default_policy();
            if defaults.is_ok_and(|defaults| is_default(&defaults)) { Ok(()) } else { Err(refused) }
        })
    }

    /// Refuses commands that this daemon can never start. Only a new definition is checked like this: a stored one may come
    /// from a daemon with other privileges, and fails when it runs.
    fn check_privileges(&self, task: &Task, policy: &Policy) -> Result<(), Invalid> {
        let Some(rights) = &self.rights else { return Ok(()) };
        check_commands(&**rights, tasks(task, policy))
    }

    /// Checks the job defaults. A fault in them would be a fault of every job.
    pub fn check_defaults(&self) -> Result<(), Invalid> {
        let policy = self.default_policy()?;
        self.check_hooks(&policy)?;
        let Some(rights) = &self.rights else { return Ok(()) };
        check_commands(&**rights, hooks(&policy))
    }

    /// The policy of a job that gives no option.
    fn default_policy(&self) -> Result<Policy, Invalid> {
        self.defaults.complete(&PolicyInput::default())
    }

    fn check_hooks(&self, policy: &Policy) -> Result<(), Invalid> {
        for (name, task) in policy.hooks() {
            let checked = self.check_task(task).and_then(|()| self.executor_for(None, task));
            checked.map_err(|invalid| invalid.within(name))?;
        }
        Ok(())
    }

    /// Refuses a stored job that is due and cannot run here, because its builtin or executor is gone.
    pub fn can_run(&self, job: &Job) -> Result<(), Invalid> {
        if let Task::Builtin(builtin) = &*job.task
            && !self.builtins.has(&builtin.name)
        {
            let message = format!("unknown builtin \"{}\"", builtin.name);
            return Err(Invalid::new("task.name", message));
        }
        self.executor_for(Some(&job.executor), &job.task).map(drop)
    }

    /// The pool that runs a task: the one that is named, or one that can run it.
    pub fn executor_for(&self, given: Option<&str>, task: &Task) -> Result<String, Invalid> {
        let able =
            |name: &&String| self.executors.get(*name).is_some_and(|pool| pool.kind.runs(task));
        let known = || self.executors.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let default = DEFAULT_EXECUTOR.to_owned();
        let Some(name) = given else {
            let chosen = std::iter::once(&default).chain(self.executors.keys()).find(able);
            return chosen.cloned().ok_or_else(|| {
                Invalid::new(
                    "executor",
                    format!("none of the executors ({}) runs this task", known()),
                )
            });
        };
        let Some(pool) = self.executors.get(name) else {
            let message = format!("unknown executor \"{name}\" (configured: {})", known());
            return Err(Invalid::new("executor", message));
        };
        if !pool.kind.runs(task) {
            let kind = pool.kind.word();
            let wanted = ExecutorKind::ProcessPool.word();
            let message = format!(
                "\"{name}\" is a {kind}, which runs no commands; a command needs a {wanted}"
            );
            return Err(Invalid::new("executor", message));
        }
        Ok(name.to_owned())
    }
}

fn check_commands<'t>(
    rights: &dyn CommandRights,
    mut tasks: impl Iterator<Item = (&'static str, &'t Task)>,
) -> Result<(), Invalid> {
    tasks.try_for_each(|(name, task)| match task {
        Task::Command(command) => rights.check(command).map_err(|fault| fault.within(name)),
        _ => Ok(()),
    })
}

/// The task of a job and those of its hooks, each with its key.
fn tasks<'a>(task: &'a Task, policy: &'a Policy) -> impl Iterator<Item = (&'static str, &'a Task)> {
    std::iter::once(("task", task)).chain(hooks(policy))
}

fn hooks(policy: &Policy) -> impl Iterator<Item = (&'static str, &Task)> {
    policy.hooks().map(|(name, task)| (name, &**task))
}

/// Warnings about a job that is accepted.
pub fn warnings(job: &Job, now: Timestamp) -> Vec<String> {
    why_missed(job, now).into_iter().chain(job.task.advice()).collect()
}

/// The warning that an accepted job will never run, because its only occurrence is already too late.
fn why_missed(job: &Job, now: Timestamp) -> Option<String> {
    let (next, grace) = (job.next()?, job.policy.misfire_grace_time?);
    let is_late = now.signed_duration_since(next.due_at) > grace;
    if !is_late || job.trigger.next_after(now.max(next.scheduled_at)).is_some() {
        return None;
    }
    let at = job.trigger.zone().to_fixed(next.due_at).format("%Y-%m-%d %H:%M:%S %:z");
    let grace = job.policy.misfire_grace_seconds()?;
    Some(format!(
        "it will not run: its only occurrence, {at}, has passed by more than misfire_grace_time ({grace} s)"
    ))
}

/// When a job that is defined at `now` runs first: at its `next_run_time`, else at the trigger's first occurrence.
fn next_run(
    definition: &Definition,
    id: &JobId,
    trigger: &Trigger,
    now: Timestamp,
) -> Result<Option<Due>, Invalid> {
    if let Some(Some(text)) = &definition.next_run_time {
        let at = parse_instant(text, trigger.zone())
            .map_err(|why| Invalid::new("next_run_time", why))?;
        return Ok(Some(Due { scheduled_at: at, due_at: at }));
    }
    Ok(first_occurrence(trigger, now).map(|first| Due::new(id, trigger, first)))
}

/// The first occurrence of a job that is defined at `now`. Earlier ones do not count, except for a one-shot, which then
/// is late.
fn first_occurrence(trigger: &Trigger, now: Timestamp) -> Option<Timestamp> {
    if trigger.is_one_shot() { trigger.first() } else { trigger.next_from(now) }
}
