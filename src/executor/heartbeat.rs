//! Heartbeats: HTTP requests to a job's heartbeat URL when a run starts, succeeds or fails, in the form that
//! Healthchecks.io understands. The service there raises an alarm when they stop coming.
//!
//! Runs never wait for heartbeats: [`Heartbeats::send`] queues one, and one task sends them, [`AT_ONCE`] at a time. The
//! heartbeats of a job are sent in their order, and of all jobs whose heartbeats fail only one is tried at a time, so that
//! they do not hold up the others. A bounded `mpsc` channel would not do: it drops the newest heartbeat when it is full,
//! and here the oldest has to go.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::Url;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::deliveries::Deliveries;
use super::http::client::{ClientOptions, Clients, SendError, TargetName, words};
use super::http::url;
use crate::job::JobId;
use crate::run::RunId;
use crate::secret::Text;

/// Heartbeats that wait to be sent. Beyond that the oldest is dropped: the newest says how things stand.
const QUEUE_MAX: usize = 1000;
/// Heartbeats that are sent at the same time.
const AT_ONCE: usize = 4;
/// How long one request may take.
const LIMIT: Duration = Duration::from_secs(10);
/// Pauses before a heartbeat is tried again.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];
/// Bytes of a body that are sent.
const BODY_BYTES: usize = 10_000;
/// How long a stop waits for heartbeats that have not been sent.
const STOP_LIMIT: Duration = Duration::from_secs(2);
/// Jobs that are remembered because their heartbeats fail. Beyond that all are forgotten, and logged again.
const OUTAGES_MAX: usize = 1000;

/// What a heartbeat reports about a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeartbeatEvent {
    Start,
    Success,
    Failure,
}

impl HeartbeatEvent {
    /// What is appended to the path of the URL.
    fn suffix(self) -> &'static str {
        match self {
            Self::Start => "/start",
            Self::Success => "",
            Self::Failure => "/fail",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    pub job_id: JobId,
    /// The job's heartbeat URL.
    pub url: Text,
    pub event: HeartbeatEvent,
    /// Lets the service match the start of a run and its end.
    pub run_id: RunId,
    /// The body of the request, of which the first 10 kB are sent.
    pub body: String,
}

#[derive(Debug, Default)]
struct HeartbeatQueue {
    waiting: VecDeque<Heartbeat>,
    /// Heartbeats that were dropped since the queue was full.
    dropped: u64,
    is_closed: bool,
}

#[derive(Debug, Default)]
struct SharedQueue {
    queue: Mutex<HeartbeatQueue>,
    changed: Notify,
}

impl SharedQueue {
    fn lock(&self) -> MutexGuard<'_, HeartbeatQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends heartbeats until it is stopped or dropped.
#[derive(Debug)]
pub struct Heartbeats {
    queue: Arc<SharedQueue>,
    deliveries: Deliveries,
    sender: Option<AbortOnDropHandle<()>>,
}

impl Heartbeats {
    /// Starts the task that sends.
    pub(super) fn start(clients: Clients, deliveries: Deliveries, runtime: &Handle) -> Self {
        let queue = Arc::<SharedQueue>::default();
        let sender = HeartbeatSender {
            queue: Arc::clone(&queue),
            clients,
            deliveries: deliveries.clone(),
            runtime: runtime.clone(),
            sending: JoinSet::new(),
            busy: BTreeSet::new(),
            outages: BTreeMap::new(),
        };
        let sender = AbortOnDropHandle::new(runtime.spawn(sender.run()));
        Self { queue, deliveries, sender: Some(sender) }
    }

    /// Sends a heartbeat soon. Those of one job are sent in their order.
    pub fn send(&self, mut heartbeat: Heartbeat) {
        heartbeat.body.truncate(heartbeat.body.floor_char_boundary(BODY_BYTES));
        let mut queue = self.queue.lock();
        if queue.waiting.len() >= QUEUE_MAX {
            queue.waiting.pop_front();
            if queue.dropped == 0 {
                tracing::warn!(
                    waiting = QUEUE_MAX,
                    "too many heartbeats wait; the oldest ones are dropped"
                );
            }
            queue.dropped += 1;
            self.deliveries.heartbeat_dropped();
        }
        queue.waiting.push_back(heartbeat);
        drop(queue);
        self.queue.changed.notify_one();
    }

    /// Sends what waits, but for [`STOP_LIMIT`] only.
    pub(super) async fn stop(&mut self) {
        self.queue.lock().is_closed = true;
        self.queue.changed.notify_one();
        let Some(sender) = self.sender.take() else { return };
        if tokio::time::timeout(STOP_LIMIT, sender).await.is_err() {
            let waiting = self.queue.lock().waiting.len();
            tracing::warn!(waiting, "some heartbeats could not be sent before the stop");
        }
    }
}

/// The task that sends.
struct HeartbeatSender {
    queue: Arc<SharedQueue>,
    clients: Clients,
    deliveries: Deliveries,
    runtime: Handle,
    sending: JoinSet<(JobId, Result<(), String>)>,
    /// The jobs whose heartbeats are being sent.
    busy: BTreeSet<JobId>,
    /// Jobs whose last heartbeat could not be delivered, and how many could not be since the last success.
    outages: BTreeMap<JobId, u64>,
}

impl HeartbeatSender {
    async fn run(mut self) {
        let queue = Arc::clone(&self.queue);
        loop {
            while self.sending.len() < AT_ONCE
                && let Some(heartbeat) = self.take()
            {
                self.send(heartbeat);
            }
            if self.sending.is_empty() && queue.lock().is_closed {
                return;
            }
            tokio::select! {
                () = queue.changed.notified() => {}
                Some(sent) = self.sending.join_next() => match sent {
                    Ok((job_id, result)) => self.log_result(&job_id, result),
                    Err(error) => {
                        tracing::error!(%error, "a heartbeat was not sent");
                        self.busy.clear();
                    }
                },
            }
        }
    }

    /// Takes the next heartbeat that may be sent: no other one of its job is being sent, and no other job with an outage
    /// is being tried if this job has one.
    fn take(&mut self) -> Option<Heartbeat> {
        let is_trying = self.busy.iter().any(|job_id| self.outages.contains_key(job_id));
        let can_go = |heartbeat: &Heartbeat| {
            let is_held_up = is_trying && self.outages.contains_key(&heartbeat.job_id);
            !is_held_up && !self.busy.contains(&heartbeat.job_id)
        };
        let mut queue = self.queue.lock();
        let position = queue.waiting.iter().position(can_go);
        let heartbeat = position.and_then(|position| queue.waiting.remove(position));
        let dropped = if queue.waiting.is_empty() { std::mem::take(&mut queue.dropped) } else { 0 };
        drop(queue);
        if dropped > 0 {
            tracing::warn!(dropped, "heartbeats were dropped because too many waited");
        }
        heartbeat
    }

    fn send(&mut self, heartbeat: Heartbeat) {
        self.busy.insert(heartbeat.job_id.clone());
        // During an outage one try is enough.
        let has_outage = self.outages.contains_key(&heartbeat.job_id);
        let pauses = if has_outage { &[][..] } else { &PAUSES[..] };
        let clients = self.clients.clone();
        let sending = async move {
            let result = deliver(&clients, &heartbeat, pauses).await;
            (heartbeat.job_id, result)
        };
        self.sending.spawn_on(sending, &self.runtime);
    }

    /// Logs the begin and the end of an outage.
    fn log_result(&mut self, job: &JobId, result: Result<(), String>) {
        self.busy.remove(job);
        self.deliveries.heartbeat(result.is_ok());
        match (result, self.outages.get_mut(job)) {
            (Ok(()), None) => {}
            (Ok(()), Some(undelivered)) => {
                tracing::info!(%job, undelivered, "heartbeats are delivered again");
                self.outages.remove(job);
            }
            (Err(_), Some(undelivered)) => *undelivered += 1,
            (Err(error), None) => {
                tracing::warn!(%job, %error, "a heartbeat could not be delivered; more failures of this job are not logged until one is delivered");
                if self.outages.len() >= OUTAGES_MAX {
                    self.outages.clear();
                }
                self.outages.insert(job.clone(), 1);
            }
        }
    }
}

/// Why a heartbeat was not delivered.
struct HeartbeatError {
    error: String,
    can_retry: bool,
}

async fn deliver(
    clients: &Clients,
    heartbeat: &Heartbeat,
    pauses: &[Duration],
) -> Result<(), String> {
    let mut pauses = pauses.iter();
    loop {
        let Err(failure) = try_deliver(clients, heartbeat).await else { return Ok(()) };
        match pauses.next() {
            Some(pause) if failure.can_retry => tokio::time::sleep(*pause).await,
            Some(_) | None => return Err(failure.error),
        }
    }
}

async fn try_deliver(clients: &Clients, heartbeat: &Heartbeat) -> Result<(), HeartbeatError> {
    let options = ClientOptions { connect_timeout: LIMIT, redirects: 0, same_server: true };
    let (cache, text) = (clients.clone(), heartbeat.url.clone());
    // Reading a secret or the machine's certificates may block.
    let preparing = clients.blocking.run(move || {
        let url = url(&text, &mut Vec::new())?;
        Ok::<_, SendError>((cache.get(options)?, url))
    });
    let prepared = tokio::time::timeout(LIMIT, preparing)
        .await
        .unwrap_or_else(|_| Err(format!("the URL could not be read within {}", words(LIMIT))));
    let prepared = prepared.unwrap_or_else(|error| Err(SendError::Failed(error)));
    let (client, url) = prepared.map_err(|error| {
        let can_retry = matches!(error, SendError::Shortage(_));
        HeartbeatError { error: error.into_text(), can_retry }
    })?;
    let target = TargetName::of(&url, heartbeat.url.plain().is_none());
    let sending = client.post(address(url, heartbeat)).body(heartbeat.body.clone()).send();
    let response = match tokio::time::timeout(LIMIT, sending).await {
        Ok(response) => response.map_err(|error| target.failure(&error, options)),
        Err(_) => Err(format!("{} did not answer within {}", target.name(), words(LIMIT))),
    };
    let status = response.map_err(|error| HeartbeatError { error, can_retry: true })?.status();
    if status.is_success() {
        return Ok(());
    }
    let error = format!("{} answered {status}", target.name());
    Err(HeartbeatError { error, can_retry: status.is_server_error() })
}

/// The URL of a heartbeat. The query of the job's URL is kept.
fn address(mut url: Url, heartbeat: &Heartbeat) -> Url {
    let path = format!("{}{}", url.path().trim_end_matches('/'), heartbeat.event.suffix());
    if heartbeat.event != HeartbeatEvent::Success {
        url.set_path(&path);
    }
    url.query_pairs_mut().append_pair("rid", &heartbeat.run_id.0);
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_goes_to_its_jobs_url_with_the_event_and_the_run() {
        let cases = [
            (
                "https://hc-ping.com/some-uuid",
                HeartbeatEvent::Start,
                "https://hc-ping.com/some-uuid/start?rid=r",
            ),
            (
                "https://hc-ping.com/some-uuid",
                HeartbeatEvent::Success,
                "https://hc-ping.com/some-uuid?rid=r",
            ),
            (
                "https://x/key/slug/?create=1",
                HeartbeatEvent::Failure,
                "https://x/key/slug/fail?create=1&rid=r",
            ),
            (
                "https://x/key/slug/?create=1",
                HeartbeatEvent::Success,
                "https://x/key/slug/?create=1&rid=r",
            ),
            ("http://x:8000", HeartbeatEvent::Failure, "http://x:8000/fail?rid=r"),
        ];
        for (url, event, expected) in cases {
            let heartbeat = Heartbeat {
                job_id: JobId::parse("job").unwrap(),
                url: url.into(),
                event,
                run_id: RunId("r".into()),
                body: String::new(),
            };
            assert_eq!(address(url.parse().unwrap(), &heartbeat).as_str(), expected);
        }
    }
}
