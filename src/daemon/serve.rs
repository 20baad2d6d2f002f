//! Phase 3 of a daemon's life: it serves. While the scheduler, the sockets and the helpers run by themselves, the
//! [`Daemon`] handles signals and reloads. The jobs of the file are declared here too, at the start and at each reload.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::config_loader::ConfigLoader;
use super::file_jobs::{self, FileJobs};
use super::scheduler_thread::{RunningScheduler, SchedulerEnd};
use super::service_manager;
use super::settings;
use super::signals::{SignalRequest, Signals};
use super::start::Startup;
use super::startup_error::StartupError;
use super::status_line::StatusLine;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::control::{self, DeclaredFile, ReloadRequest, ReloadResult, Reloaded};
use crate::executor::{Mailer, Privileges};
use crate::job::admission::Rules;
use crate::retention::RetentionPolicy;
use crate::scheduler::declare::{DeclareError, DeclareReport, Occasion, declare};
use crate::scheduler::handle::Handle;
use crate::store::Archive;

/// A daemon whose scheduler runs.
pub(super) struct Daemon {
    pub(super) loader: ConfigLoader,
    /// The configuration that the parts were built from.
    pub(super) config: Config,
    /// Where the daemon listens.
    pub(super) socket: PathBuf,
    /// How many jobs the file has declared so far.
    pub(super) declared_jobs: usize,
    /// What `/v1/status` shows of the file.
    pub(super) declared: watch::Sender<DeclaredFile>,
    pub(super) rules: watch::Sender<Arc<Rules>>,
    pub(super) retention: watch::Sender<RetentionPolicy>,
    pub(super) mailer: Mailer,
    pub(super) handle: Handle,
    pub(super) archive: Arc<dyn Archive>,
    pub(super) reloads: mpsc::Receiver<ReloadRequest>,
    pub(super) status_line: StatusLine,
}

impl Daemon {
    /// Declares the jobs of the file, opens the control socket for all requests, and then lets jobs fire: a job may use
    /// the socket as soon as it starts.
    pub(super) async fn begin(
        &mut self,
        jobs: FileJobs,
        startup: &mut Startup,
        signals: &mut Signals,
    ) -> Result<(), StartupError> {
        let rules = self.rules.borrow().as_ref().clone();
        let declare =
            async || self.declare(rules.clone(), jobs.clone(), Occasion::Start).await.map(drop);
        startup.retry(signals, declare).await?;
        startup.set_up();
        let begin = async || Ok::<(), DeclareError>(self.handle.begin().await?);
        startup.retry(signals, begin).await
    }

    /// Serves until a signal asks the daemon to stop. Returns how the scheduler ended, if it ended by itself because it
    /// could not go on.
    pub(super) async fn serve(
        &mut self,
        signals: &mut Signals,
        scheduler: &mut RunningScheduler,
    ) -> Option<SchedulerEnd> {
        tracing::info!(socket = %self.socket.display(), "ready");
        tokio::select! {
            () = self.handle_requests(signals) => None,
            ended = &mut scheduler.ended => Some(ended),
        }
    }

    /// Reloads the configuration on each request, until a signal asks the daemon to stop.
    async fn handle_requests(&mut self, signals: &mut Signals) {
        loop {
            let order = tokio::select! {
                request = signals.next() => match request {
                    SignalRequest::Stop => return,
                    SignalRequest::Reload => None,
                },
                Some(order) = self.reloads.recv() => Some(order),
            };
            service_manager::reloading();
            let force = order.as_ref().is_some_and(|order| order.force);
            let Ok(answer) = signals.unless_stopped(self.reload(force)).await else { return };
            match &answer {
                Ok(reloaded) if reloaded.restart_needed.is_empty() => {
                    tracing::info!("the configuration was reloaded");
                }
                Ok(reloaded) => {
                    let tables = reloaded.restart_needed.join(", ");
                    tracing::warn!(%tables, "the configuration was reloaded; changes of these tables take effect only after a restart");
                }
                Err(error) => {
                    tracing::error!(%error, "the configuration is faulty; the old one stays in force");
                }
            }
            if order.is_none() && answer.is_ok() {
                control::audit::reload_by_signal();
            }
            self.status_line.reloaded(answer.as_ref().err());
            if let Some(order) = order {
                // The client may have left in the meantime.
                drop(order.reply.send(answer));
            }
        }
    }

    /// Reads the configuration again and applies it. `force` accepts a file that declares no jobs any more.
    async fn reload(&mut self, force: bool) -> ReloadResult {
        let running = self.rules.borrow().clone();
        let default_user = self.config.default_user.clone();
        let judge = move |config: Config| {
            let executors = config.resized(&running.executors);
            let privileges = Privileges::of_this_process();
            let rules = settings::rules(&config, Arc::clone(&running.builtins), privileges)?;
            let rules = Rules { executors, ..rules }.running_as(default_user);
            let jobs = FileJobs::judge(&config, &rules, SystemClock.now())?;
            Ok((config, rules, jobs))
        };
        let judged = self.loader.load(judge).await;
        let (config, rules, jobs) = judged.map_err(|error| error.to_string())?;
        jobs.refuse_faults()?;
        if jobs.valid.is_empty() && self.declared_jobs > 0 && !force {
            return Err(format!(
                "the file declares no jobs, which would remove the {} that it declared before; \
                 if that is intended, use punctual reload --force",
                self.declared_jobs
            ));
        }
        // What a running daemon cannot change stays as it is, and is listed in the answer.
        let mut restart_needed = self.config.restart_needed(&config);
        if rules.executors != config.executors {
            restart_needed.push("executors".to_owned());
        }
        let jobs = self.declare(rules.clone(), jobs, Occasion::Reload).await;
        let jobs = jobs.map_err(|error| error.to_string())?;
        self.rules.send_replace(Arc::new(rules));
        self.retention.send_replace(config.retention);
        self.mailer.set(config.mail);
        Ok(Reloaded { jobs, restart_needed })
    }

    /// Makes the scheduler use these rules and these jobs of the file. Returns how the jobs have changed.
    async fn declare(
        &mut self,
        rules: Rules,
        jobs: FileJobs,
        occasion: Occasion,
    ) -> Result<control::Difference, DeclareError> {
        for (job, why) in jobs.finished(SystemClock.now()) {
            tracing::warn!(%job, "the job is finished: {why}");
        }
        let (count, source) = (jobs.count(), rules.source.to_string());
        let declaration = jobs.declaration();
        let faults = declaration.faults.clone();
        let (handle, archive) = (&self.handle, self.archive.as_ref());
        let done = declare(handle, archive, rules, declaration, occasion).await?;
        self.declared_jobs = count + done.kept;
        file_jobs::log_declared(&done, &faults);
        let DeclareReport { difference, refused, .. } = done;
        self.status_line.declared(&difference.conflicts);
        let faults = faults.into_iter().chain(refused);
        let faults = file_jobs::status_faults(faults, &difference.conflicts);
        let path = self.loader.path();
        self.declared.send_replace(DeclaredFile { path, source, jobs: count, faults });
        Ok(difference)
    }
}
