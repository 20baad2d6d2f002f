//! Signs of life: where a job has a heartbeat URL, it is told that a run starts, has succeeded, or has failed, in the form
//! that Healthchecks.io understands. The service that listens there raises an alarm when they fail to come.
//!
//! They are sent beside the work, which never waits for them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::Url;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::http::client::{Clients, Target, Unsent, Way, words};
use super::http::url;
use crate::job::JobId;
use crate::run::RunId;
use crate::secret::Text;

/// Heartbeats that wait to be sent. Beyond that the oldest goes: the newest tells how things stand.
const QUEUE_MAX: usize = 1000;
/// Heartbeats on their way at the same time.
const AT_ONCE: usize = 4;
/// How long a try may take.
const LIMIT: Duration = Duration::from_secs(10);
/// Pauses before a heartbeat is tried again.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];
/// Bytes of what is told beside the sign.
const BODY_BYTES: usize = 10_000;
/// How long a stop waits for heartbeats that have not been sent.
const STOP_LIMIT: Duration = Duration::from_secs(2);
/// Jobs whose heartbeats are known to fail. Beyond that they are told of again.
const OUTAGES_MAX: usize = 1000;

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// A run has started.
    Start,
    /// It has succeeded.
    Success,
    /// It has failed.
    Failure,
}

impl Signal {
    /// What stands after the URL's path.
    fn suffix(self) -> &'static str {
        match self {
            Self::Start => "/start",
            Self::Success => "",
            Self::Failure => "/fail",
        }
    }
}

/// A sign of life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// Whose it is.
    pub job_id: JobId,
    /// The job's heartbeat URL.
    pub url: Text,
    /// What has happened.
    pub signal: Signal,
    /// To which run: it ties its start to its end.
    pub run_id: RunId,
    /// What is told beside it; the first 10 kB of it are sent.
    pub body: String,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Beat>,
    /// Those that had no place since it was full.
    dropped: u64,
    is_closed: bool,
}

#[derive(Debug, Default)]
struct Desk {
    queue: Mutex<Queue>,
    changed: Notify,
}

impl Desk {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends heartbeats until it is stopped or dropped.
#[derive(Debug)]
pub struct Heartbeats {
    desk: Arc<Desk>,
    sending: Option<AbortOnDropHandle<()>>,
}

impl Heartbeats {
    /// Sends from now on, as a task of this runtime.
    pub(super) fn start(clients: Clients, runtime: &Handle) -> Self {
        let desk = Arc::<Desk>::default();
        let sender = Sender {
            desk: Arc::clone(&desk),
            clients,
            runtime: runtime.clone(),
            under_way: JoinSet::new(),
            busy: BTreeSet::new(),
            outages: BTreeMap::new(),
        };
        let sending = AbortOnDropHandle::new(runtime.spawn(sender.run()));
        Self { desk, sending: Some(sending) }
    }

    /// Sends a heartbeat soon. Those of one job are sent in their order.
    pub fn tell(&self, mut beat: Beat) {
        beat.body.truncate(shortened(&beat.body).len());
        let mut queue = self.desk.queue();
        if queue.waiting.len() >= QUEUE_MAX {
            queue.waiting.pop_front();
            if queue.dropped == 0 {
                tracing::warn!(
                    waiting = QUEUE_MAX,
                    "too many heartbeats wait; the oldest are given up"
                );
            }
            queue.dropped += 1;
        }
        queue.waiting.push_back(beat);
        drop(queue);
        self.desk.changed.notify_one();
    }

    /// Sends what waits, but only for a moment.
    pub(super) async fn stop(&mut self) {
        self.desk.queue().is_closed = true;
        self.desk.changed.notify_one();
        let Some(sending) = self.sending.take() else { return };
        if tokio::time::timeout(STOP_LIMIT, sending).await.is_err() {
            let waiting = self.desk.queue().waiting.len();
            tracing::warn!(waiting, "some heartbeats could not be sent before the stop");
        }
    }
}

/// The task that sends.
struct Sender {
    desk: Arc<Desk>,
    clients: Clients,
    runtime: Handle,
    under_way: JoinSet<(JobId, Result<(), String>)>,
    /// The jobs of those under way.
    busy: BTreeSet<JobId>,
    /// Jobs whose last heartbeat could not be delivered, and how many could not since.
    outages: BTreeMap<JobId, u64>,
}

impl Sender {
    async fn run(mut self) {
        let desk = Arc::clone(&self.desk);
        loop {
            while self.under_way.len() < AT_ONCE
                && let Some(beat) = self.take()
            {
                self.send(beat);
            }
            if self.under_way.is_empty() && desk.queue().is_closed {
                return;
            }
            tokio::select! {
                () = desk.changed.notified() => {}
                Some(sent) = self.under_way.join_next() => match sent {
                    Ok((job_id, result)) => self.note(&job_id, result),
                    Err(error) => {
                        tracing::error!(%error, "a heartbeat was not sent");
                        self.busy.clear();
                    }
                },
            }
        }
    }

    /// The next heartbeat that can be sent: of its job none is under way, and of those jobs whose heartbeats fail only
    /// one is tried at a time, so that they do not hold up the others.
    fn take(&mut self) -> Option<Beat> {
        let is_trying = self.busy.iter().any(|job_id| self.outages.contains_key(job_id));
        let can_go = |beat: &Beat| {
            let is_held_up = is_trying && self.outages.contains_key(&beat.job_id);
            !is_held_up && !self.busy.contains(&beat.job_id)
        };
        let mut queue = self.desk.queue();
        let position = queue.waiting.iter().position(can_go);
        let beat = position.and_then(|position| queue.waiting.remove(position));
        let dropped = if queue.waiting.is_empty() { std::mem::take(&mut queue.dropped) } else { 0 };
        drop(queue);
        if dropped > 0 {
            tracing::warn!(dropped, "heartbeats were given up while too many waited");
        }
        beat
    }

    fn send(&mut self, beat: Beat) {
        self.busy.insert(beat.job_id.clone());
        // While nothing gets through, one try tells enough.
        let pauses = if self.outages.contains_key(&beat.job_id) { &[][..] } else { &PAUSES[..] };
        let delivery = Delivery { clients: self.clients.clone() };
        self.under_way.spawn_on(
            async move {
                let result = delivery.deliver(&beat, pauses).await;
                (beat.job_id, result)
            },
            &self.runtime,
        );
    }

    /// Tells of an outage when it begins and when it has ended.
    fn note(&mut self, job: &JobId, result: Result<(), String>) {
        self.busy.remove(job);
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

/// Why a heartbeat did not get through.
struct Undelivered {
    error: String,
    may_pass: bool,
}

/// What is needed to deliver one.
struct Delivery {
    clients: Clients,
}

impl Delivery {
    async fn deliver(&self, beat: &Beat, pauses: &[Duration]) -> Result<(), String> {
        let mut pauses = pauses.iter();
        loop {
            let Err(undelivered) = self.attempt(beat).await else { return Ok(()) };
            match pauses.next() {
                Some(pause) if undelivered.may_pass => tokio::time::sleep(*pause).await,
                Some(_) | None => return Err(undelivered.error),
            }
        }
    }

    async fn attempt(&self, beat: &Beat) -> Result<(), Undelivered> {
        let way = Way { connect_timeout: LIMIT, redirects: 0, stays: true };
        let (clients, text) = (self.clients.clone(), beat.url.clone());
        // Reading a secret or the machine's certificates may block.
        let preparing = self.clients.reading.run(move || {
            let url = url(&text, &mut Vec::new())?;
            Ok::<_, Unsent>((clients.get(way)?, url))
        });
        let prepared = tokio::time::timeout(LIMIT, preparing)
            .await
            .unwrap_or_else(|_| Err(format!("the URL could not be read within {}", words(LIMIT))));
        let prepared = prepared.unwrap_or_else(|error| Err(Unsent::Failed(error)));
        let (client, url) = prepared.map_err(|unsent| {
            let may_pass = matches!(unsent, Unsent::Shortage(_));
            Undelivered { error: unsent.into_text(), may_pass }
        })?;
        let target = Target::of(&url, beat.url.plain().is_none());
        let sending = client.post(address(url, beat)).body(beat.body.clone()).send();
        let answer = match tokio::time::timeout(LIMIT, sending).await {
            Ok(answer) => answer.map_err(|error| target.failure(&error, way)),
            Err(_) => Err(format!("{} did not answer within {}", target.name(), words(LIMIT))),
        };
        let status = answer.map_err(|error| Undelivered { error, may_pass: true })?.status();
        if status.is_success() {
            return Ok(());
        }
        let error = format!("{} answered {status}", target.name());
        Err(Undelivered { error, may_pass: status.is_server_error() })
    }
}

/// Where a heartbeat goes; what the URL has for a query stays.
fn address(mut url: Url, beat: &Beat) -> Url {
    let path = format!("{}{}", url.path().trim_end_matches('/'), beat.signal.suffix());
    if beat.signal != Signal::Success {
        url.set_path(&path);
    }
    url.query_pairs_mut().append_pair("rid", &beat.run_id.0);
    url
}

/// The beginning of a text that is too long to be sent.
fn shortened(text: &str) -> &str {
    text.get(..text.floor_char_boundary(BODY_BYTES)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_goes_to_its_jobs_url_with_the_signal_and_the_run() {
        let cases = [
            (
                "https://hc-ping.com/some-uuid",
                Signal::Start,
                "https://hc-ping.com/some-uuid/start?rid=r",
            ),
            (
                "https://hc-ping.com/some-uuid",
                Signal::Success,
                "https://hc-ping.com/some-uuid?rid=r",
            ),
            (
                "https://x/key/slug/?create=1",
                Signal::Failure,
                "https://x/key/slug/fail?create=1&rid=r",
            ),
            ("https://x/key/slug/?create=1", Signal::Success, "https://x/key/slug/?create=1&rid=r"),
            ("http://x:8000", Signal::Failure, "http://x:8000/fail?rid=r"),
        ];
        for (given, signal, expected) in cases {
            let beat = Beat {
                job_id: JobId::parse("job").unwrap(),
                url: given.into(),
                signal,
                run_id: RunId("r".into()),
                body: String::new(),
            };
            assert_eq!(address(given.parse().unwrap(), &beat).as_str(), expected);
        }
        let long = "é".repeat(BODY_BYTES);
        assert_eq!(shortened(&long).len(), BODY_BYTES);
        assert_eq!(shortened("short"), "short");
    }
}
