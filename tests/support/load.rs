//! Load for tests of crashes: callers that add, change, pause, run and remove jobs of their own, and a book of the state
//! that follows from the answers alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::TimeDelta;
use punctual::client::{Client, ClientError};
use punctual::clock::{Clock, SystemClock, Timestamp, rfc3339};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Jobs that are due soon are due within this.
pub const SOON_MILLIS: u64 = 400;
/// From one occurrence to the next, of jobs that have many.
pub const EVERY_MILLIS: i64 = 250;

/// Another seed is another order of calls and crashes: `PUNCTUAL_TEST_SEED`, or one that is always the same.
pub fn seed() -> u64 {
    std::env::var("PUNCTUAL_TEST_SEED").map_or(20_261_106, |seed| seed.parse().unwrap())
}

/// Numbers that look random, and are the same every time.
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next one, from `low` to `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        low + (mixed ^ (mixed >> 31)) % (high - low + 1)
    }

    /// One of this many.
    pub fn below(&mut self, count: usize) -> usize {
        let last = u64::try_from(count).unwrap() - 1;
        usize::try_from(self.between(0, last)).unwrap()
    }

    /// A length of time up to this many milliseconds.
    pub fn millis(&mut self, most: u64) -> Duration {
        Duration::from_micros(self.between(0, most * 1000))
    }
}

/// What a caller asks of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// That it is there, under this name.
    Define(String),
    /// The same as a part of a batch.
    DefineInBatch(String),
    /// That a run of it ends.
    Cancel(String),
    Pause,
    Resume,
    Remove,
    Run,
}

/// What became of a call.
#[derive(Debug)]
pub struct Told {
    id: String,
    asked: Asked,
    /// Whether the daemon said that it is done; else it may have been done, or not.
    is_sure: bool,
    /// The run that was made.
    run: Option<String>,
}

/// How a job may stand, as far as it can be known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stand {
    pub name: String,
    pub is_paused: bool,
}

impl Stand {
    fn after(stand: Option<&Self>, asked: &Asked) -> Option<Self> {
        let paused = |is_paused| stand.map(|stand| Self { is_paused, ..stand.clone() });
        match asked {
            Asked::Define(name) | Asked::DefineInBatch(name) => {
                let is_paused = stand.is_some_and(|stand| stand.is_paused);
                Some(Self { name: name.clone(), is_paused })
            }
            Asked::Pause => paused(true),
            Asked::Resume => paused(false),
            Asked::Remove => None,
            Asked::Run | Asked::Cancel(_) => stand.cloned(),
        }
    }

    fn of(job: &Value) -> Self {
        let name = job["name"].as_str().unwrap().to_owned();
        Self { name, is_paused: job["state"] == "paused" }
    }
}

/// How each job may stand by the answers alone: in one way, or in several if a call was not answered.
#[derive(Debug, Default)]
pub struct Book {
    jobs: BTreeMap<String, BTreeSet<Option<Stand>>>,
    /// Jobs with an answer since they were last checked.
    fresh: BTreeSet<String>,
    /// Manual runs that were acknowledged.
    pub runs: BTreeSet<String>,
    /// Runs that were asked to end, whether that was answered or not.
    pub cancels: BTreeSet<String>,
    /// Calls that were answered, and that were not.
    pub calls: (usize, usize),
}

impl Book {
    pub fn note(&mut self, told: Told) {
        let stands = self.jobs.entry(told.id.clone()).or_insert_with(|| BTreeSet::from([None]));
        let after: BTreeSet<_> =
            stands.iter().map(|stand| Stand::after(stand.as_ref(), &told.asked)).collect();
        if told.is_sure {
            *stands = after;
            self.calls.0 += 1;
        } else {
            stands.extend(after);
            self.calls.1 += 1;
        }
        if let Asked::Cancel(run) = told.asked {
            self.cancels.insert(run);
        }
        self.runs.extend(told.run);
        self.fresh.insert(told.id);
    }

    /// Jobs that are certainly there, and how they stand.
    pub fn kept(&self) -> BTreeMap<&str, &Stand> {
        let sure = |stands: &'_ BTreeSet<_>| stands.len() == 1;
        let sure = self.jobs.iter().filter(|(_, stands)| sure(stands));
        sure.filter_map(|(id, stands)| Some((id.as_str(), stands.first()?.as_ref()?))).collect()
    }

    /// Whether a job is not certainly gone.
    pub fn may_be_there(&self, id: &str) -> bool {
        self.jobs.get(id).is_none_or(|stands| stands.iter().any(Option::is_some))
    }

    /// How many jobs are certainly gone.
    pub fn gone(&self) -> usize {
        self.jobs.values().filter(|stands| **stands == BTreeSet::from([None])).count()
    }

    /// Checks the jobs that have had an answer since the last check.
    pub async fn check_fresh(&mut self, client: &Client) {
        for id in std::mem::take(&mut self.fresh) {
            let job = match client.job(&id).await {
                Ok(job) => Some(job),
                Err(error) if error.is_not_found() => None,
                Err(error) => unreachable!("{id}: {error}"),
            };
            self.check_job(&id, job.as_ref());
        }
    }

    /// All jobs stand as they may.
    pub fn check(&self, jobs: &[Value]) {
        let jobs: BTreeMap<&str, &Value> =
            jobs.iter().map(|job| (job["id"].as_str().unwrap(), job)).collect();
        for id in self.jobs.keys() {
            self.check_job(id, jobs.get(id.as_str()).copied());
        }
    }

    fn check_job(&self, id: &str, job: Option<&Value>) {
        let (stand, may) = (job.map(Stand::of), &self.jobs[id]);
        assert!(may.contains(&stand), "{id} was acknowledged as {may:?} and is {job:?}");
    }
}

/// A job of a caller.
#[derive(Debug)]
struct Own {
    definition: Value,
    changes: u32,
    /// Its latest manual run.
    run: Option<String>,
}

/// A client that calls one daemon after the other, always about jobs of its own.
#[derive(Debug)]
pub struct Caller {
    name: String,
    random: Random,
    /// Where commands say that they ran.
    file: PathBuf,
    own: Vec<Own>,
    number: u64,
}

impl Caller {
    pub fn new(name: String, random: Random, file: PathBuf) -> Self {
        Self { name, random, file, own: Vec::new(), number: 0 }
    }

    /// Calls until it is enough, or until no answer comes.
    async fn call(
        mut self,
        client: Client,
        tell: mpsc::Sender<Told>,
        (enough, cut): (CancellationToken, CancellationToken),
    ) -> Self {
        while !enough.is_cancelled() {
            let (mut own, asked) = self.choose();
            let id = own.definition["id"].as_str().unwrap().to_owned();
            let answer = tokio::select! {
                answer = ask(&client, &own.definition, &asked) => Some(answer),
                () = cut.cancelled() => None,
            };
            let (is_sure, is_over, run) = match answer {
                Some(Ok(answer)) => {
                    let run =
                        (asked == Asked::Run).then(|| answer["id"].as_str().unwrap().to_owned());
                    (true, false, run)
                }
                // It has ended, or as many runs as may be wait already: then it stays as it is.
                Some(Err(ClientError::Refused { status: 409 | 429, .. }))
                    if !matches!(
                        asked,
                        Asked::Define(_) | Asked::DefineInBatch(_) | Asked::Remove
                    ) =>
                {
                    self.own.push(own);
                    continue;
                }
                Some(Err(ClientError::Refused { status: 503, .. })) => (false, false, None),
                Some(Err(error @ ClientError::Refused { .. })) => unreachable!("{id}: {error}"),
                // A call that was cut off may be unreadable instead of unanswered.
                None
                | Some(Err(
                    ClientError::Unreachable { .. }
                    | ClientError::Denied { .. }
                    | ClientError::Unreadable(_),
                )) => (false, true, None),
            };
            own.run = run.clone().or(own.run);
            // Of a job that stands in one way or the other, nothing more is asked.
            if is_sure && asked != Asked::Remove {
                self.own.push(own);
            }
            if tell.send(Told { id, asked, is_sure, run }).await.is_err() || is_over {
                break;
            }
        }
        self
    }

    /// What to ask next, of which job.
    fn choose(&mut self) -> (Own, Asked) {
        let what = self.random.between(0, 9);
        if self.own.is_empty() || what < 5 {
            self.number += 1;
            let id = format!("{}-{}", self.name, self.number);
            let own = Own { definition: self.definition(&id), changes: 0, run: None };
            let in_batch = self.random.between(0, 2) == 0;
            return (own, if in_batch { Asked::DefineInBatch(id) } else { Asked::Define(id) });
        }
        let at = self.random.below(self.own.len());
        let mut own = self.own.swap_remove(at);
        let asked = match what {
            5 | 6 => {
                own.changes += 1;
                let name = format!("changed {} times", own.changes);
                own.definition["name"] = name.as_str().into();
                own.definition["replace_existing"] = true.into();
                Asked::Define(name)
            }
            7 if self.random.between(0, 1) == 0 => Asked::Pause,
            7 => Asked::Resume,
            8 => match own.run.take() {
                Some(run) => Asked::Cancel(run),
                None => Asked::Run,
            },
            _ => Asked::Remove,
        };
        (own, asked)
    }

    /// A new job: long overdue, due soon, due a few times, or not due in this test's life.
    fn definition(&mut self, id: &str) -> Value {
        let now = SystemClock.now();
        let at = match self.random.between(0, 5) {
            0 => now - TimeDelta::days(1),
            1 => now + TimeDelta::days(1000),
            2 => return every(id, &self.file),
            _ => now + TimeDelta::from_std(self.random.millis(SOON_MILLIS)).unwrap(),
        };
        once(id, at, &self.file)
    }
}

async fn ask(client: &Client, definition: &Value, asked: &Asked) -> Result<Value, ClientError> {
    let id = definition["id"].as_str().unwrap();
    match asked {
        Asked::Define(_) => client.add(definition).await,
        Asked::DefineInBatch(_) => {
            let answer = client.add_all(std::slice::from_ref(definition)).await?;
            let result = &answer["results"][0];
            // What was not added because the daemon stops is as good as not answered.
            if result["error"]["code"] == "unavailable" {
                let message = result["error"]["message"].to_string();
                return Err(ClientError::Unreadable(message));
            }
            assert!(matches!(result["status"].as_str(), Some("added" | "replaced")), "{answer}");
            Ok(result.clone())
        }
        Asked::Cancel(run) => client.cancel(run, None).await,
        Asked::Pause => client.pause(id).await,
        Asked::Resume => client.resume(id).await,
        Asked::Remove => client.remove(id).await,
        Asked::Run => client.run(id).await,
    }
}

/// A one-shot that says in a file that it ran.
pub fn once(id: &str, at: Timestamp, file: &Path) -> Value {
    let trigger = json!({"type": "date", "run_date": rfc3339(at), "timezone": "UTC"});
    json!({"id": id, "trigger": trigger, "task": noted(file)})
}

/// A job that is due a few times, one after the other.
fn every(id: &str, file: &Path) -> Value {
    let seconds = json!(TimeDelta::milliseconds(EVERY_MILLIS).as_seconds_f64());
    let trigger = json!({"type": "interval", "seconds": seconds, "timezone": "UTC"});
    json!({"id": id, "trigger": trigger, "task": noted(file), "max_runs": 3})
}

/// A command that says in a file which attempt of which run it is, and of which daemon.
pub fn noted(file: &Path) -> Value {
    let script = format!(
        "echo \"$PUNCTUAL_RUN_ID $PUNCTUAL_ATTEMPT $RUNTIME_DIRECTORY\" >> {}",
        file.display()
    );
    json!({"type": "command", "argv": ["/bin/sh", "-c", script]})
}

/// Callers at work.
#[derive(Debug)]
pub struct Shift {
    told: mpsc::Receiver<Told>,
    callers: JoinSet<Caller>,
    enough: CancellationToken,
    /// By socket: once it is cancelled, no caller waits for that daemon.
    cut: BTreeMap<PathBuf, CancellationToken>,
}

impl Shift {
    /// Callers begin to call, in turn one of these daemons each.
    pub fn begin(callers: Vec<Caller>, clients: &[Client]) -> Self {
        let (tell, told) = mpsc::channel(1);
        let enough = CancellationToken::new();
        let cut: BTreeMap<PathBuf, CancellationToken> = clients
            .iter()
            .map(|client| (client.socket().to_owned(), CancellationToken::new()))
            .collect();
        let mut working = JoinSet::new();
        for (caller, client) in callers.into_iter().zip(clients.iter().cycle()) {
            let ends = (enough.clone(), cut[client.socket()].clone());
            working.spawn(caller.call(client.clone(), tell.clone(), ends));
        }
        Self { told, callers: working, enough, cut }
    }

    /// Waits for an answer of a daemon, and notes it. False when all callers have ended.
    pub async fn next(&mut self, book: &mut Book) -> bool {
        let Some(told) = self.told.recv().await else { return false };
        book.note(told);
        true
    }

    /// Notes answers until a moment that no answer decides: where in its work a crash meets the daemon is chance.
    pub async fn go_on_for(&mut self, time: Duration, book: &mut Book) {
        let moment = tokio::time::Instant::now() + time;
        while let Ok(true) = tokio::time::timeout_at(moment, self.next(book)).await {}
    }

    /// Nobody waits for this daemon's answers any more.
    pub fn cut(&self, socket: &Path) {
        self.cut[socket].cancel();
    }

    /// Lets the callers end, and gives them back.
    pub async fn end(mut self, book: &mut Book) -> Vec<Caller> {
        self.enough.cancel();
        while self.next(book).await {}
        self.callers.join_all().await
    }
}
