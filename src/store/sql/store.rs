//! What the scheduler needs of the store: loading and claiming jobs, runs in flight, leases of nodes, and commits.
//!
//! These reads use the connection that writes, so they see what was committed last. Jobs and runs that no change can find
//! are left out (see [`DecodedRow::writable`](super::table::DecodedRow::writable)).

use std::sync::Arc;

use super::changes::{PAUSE, RECORDED_TIME, Statement};
use super::commit::{commit_to_file, writes};
use super::query::{Query, Write};
use super::tables::jobs::{self, JOBS};
use super::tables::nodes::{self, NODES};
use super::tables::runs::{self, RUNS};
use super::value::SqlRow;
use super::{Backend, SqlStore};
use crate::clock::Timestamp;
use crate::job::{Job, JobId, Pause, PauseTerms};
use crate::output::Output;
use crate::run::{Run, RunId, SkipReason};
use crate::store::{
    Archive, CLAIM_BYTES, Change, Claim, ClusterView, Holder, InFlightCount, Node, ScheduledJob,
    Store, StoreError,
};

/// Ids in one `in (…)` list: far below the number of parameters that any of the databases takes.
const IDS_PER_STATEMENT: usize = 500;
/// Jobs in a statement that has a part of its own for each job.
const JOBS_PER_STATEMENT: usize = 50;

fn read_jobs(rows: Vec<SqlRow>) -> Vec<Job> {
    rows.into_iter().filter_map(|row| jobs::job(row).writable()).collect()
}

fn read_runs(rows: Vec<SqlRow>) -> Vec<Run> {
    rows.into_iter().filter_map(|row| runs::run(row).writable()).collect()
}

/// An instant as a setting holds it: in microseconds.
fn instant(value: &str) -> Option<Timestamp> {
    value.parse().ok().and_then(Timestamp::from_timestamp_micros)
}

/// The pause of the scheduler that a setting holds. A pause stays a pause, also if it cannot be read.
fn stored_pause(value: &str) -> Pause {
    if let Some(pause) = Pause::from_stored(value) {
        // An end is written back as it was read, so it counts only if that gives the same text.
        let until = pause.until.filter(|_| pause.to_stored() == value);
        return Pause { until, ..pause };
    }
    let since = instant(value).unwrap_or_else(|| {
        tracing::warn!(%value, "the setting {PAUSE} is no pause; the scheduler stays paused");
        Timestamp::UNIX_EPOCH
    });
    Pause::new(since, PauseTerms::default())
}

/// Reads a job with its last occurrence. If that cannot be read, the job counts as unreadable, so nothing changes it.
fn scheduled_job(mut row: SqlRow) -> Option<ScheduledJob> {
    let last = row.instant_option();
    let mut job = jobs::job(row).writable()?;
    let last = last.unwrap_or_else(|error| {
        tracing::error!(job = %job.id, %error, "the last occurrence of a job cannot be read; its schedule is left alone");
        job.unreadable = Some(error.to_string());
        None
    });
    Some(ScheduledJob { job, last })
}

/// Finds a node only if its count has not changed since it was read: a node that has renewed its lease meanwhile is alive.
fn push_same_count(query: &mut Query, node: &Node) {
    query.push("name = ").bind(node.name.as_str()).push(" and beat = ").bind(node.beat);
}

impl Store for SqlStore {
    fn is_shared(&self) -> bool {
        matches!(self.backend.as_ref(), Backend::Server(_))
    }

    async fn load_jobs(&self, ids: &[JobId]) -> Result<Vec<Job>, StoreError> {
        let mut found = Vec::with_capacity(ids.len());
        for chunk in ids.chunks(IDS_PER_STATEMENT) {
            let mut query = self.select_all(&JOBS);
            query.push(" and id in ").list(chunk.iter().map(JobId::as_str));
            found.extend(read_jobs(self.read_newest(query).await?));
        }
        Ok(found)
    }

    async fn claim_jobs(&self, claim: Claim<'_>) -> Result<Vec<Job>, StoreError> {
        let table = self.texts.dialect.claimed_jobs();
        let mut query = self.select(JOBS.select_list(), table);
        query.bytes_max(CLAIM_BYTES);
        query.push(" and next_run_time <= ").bind(claim.until);
        query.push(" and executor in ").list(claim.executors.iter().map(String::as_str));
        let order = " order by next_run_time";
        let server = match self.backend.as_ref() {
            // A file has no other nodes.
            Backend::Sqlite(file) => {
                query.push(order).limit(claim.limit);
                return Ok(read_jobs(file.read_newest(&query)?));
            }
            Backend::Server(server) => server,
        };
        let others = claim.live.iter().map(String::as_str).filter(|name| *name != claim.node);
        query.push(" and (owner is null or ").none_of("owner", others).push(")");
        query.push(order).limit(claim.limit).push(" for update skip locked");
        let take = |rows| {
            let jobs = read_jobs(rows);
            let writes = self.take_jobs(claim.node, &jobs);
            (jobs, writes)
        };
        let taken = server.claim(query, &take).await?;
        let owner: Arc<str> = claim.node.into();
        let held = |job| Job { owner: Some(Arc::clone(&owner)), ..job };
        Ok(taken.into_iter().map(held).collect())
    }

    async fn release_jobs(
        &self,
        node: &str,
        executor: &str,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        let mut query = self.query("update jobs set owner = null where owner = ");
        query.bind(node).push(" and executor = ").bind(executor);
        query.push(" and next_run_time <= ").bind(until);
        self.write(vec![Write::any(query)]).await
    }

    async fn runs_in_flight(&self, holder: Holder<'_>) -> Result<Vec<Run>, StoreError> {
        let mut query = self.select_all(&RUNS);
        query.push(" and state in ('pending', 'running')");
        match holder {
            Holder::Node(name) => {
                query.push(" and node = ").bind(name);
            }
            Holder::Gone { but } => {
                query.push(" and node <> ").bind(but);
                // A file has one node, whatever name an earlier daemon has left in it.
                if self.is_shared() {
                    query.push(" and node not in (select name from nodes)");
                }
            }
        }
        query.push(" order by id");
        Ok(read_runs(self.read_newest(query).await?))
    }

    async fn load_runs(&self, ids: &[RunId]) -> Result<Vec<Run>, StoreError> {
        let mut found = Vec::with_capacity(ids.len());
        for chunk in ids.chunks(IDS_PER_STATEMENT) {
            let mut query = self.select_all(&RUNS);
            query.push(" and id in ").list(chunk.iter().map(|id| &*id.0));
            found.extend(read_runs(self.read_newest(query).await?));
        }
        Ok(found)
    }

    async fn latest_skips(
        &self,
        jobs: &[Arc<Job>],
        reason: SkipReason,
    ) -> Result<Vec<Run>, StoreError> {
        let mut found = Vec::new();
        for chunk in jobs.chunks(JOBS_PER_STATEMENT) {
            let mut query = self.query("");
            let mut select = "select ";
            for job in chunk {
                query.push(select).push(RUNS.select_list()).push(" from runs where ");
                query.push("state = 'skipped' and reason = ").bind(reason.word());
                query.push(" and job_id = ").bind(job.id.as_str());
                query.push(" and anchor = ").bind(job.anchor).push(" and scheduled_at = ");
                query.push("(select max(scheduled_at) from runs where job_id = ");
                query.bind(job.id.as_str()).push(" and anchor = ").bind(job.anchor).push(")");
                select = " union all select ";
            }
            found.extend(read_runs(self.read_newest(query).await?));
        }
        Ok(found)
    }

    async fn load_output(
        &self,
        run_id: &RunId,
        attempt: u32,
    ) -> Result<Option<Output>, StoreError> {
        Archive::output(self, &run_id.0, attempt).await
    }

    async fn count_in_flight_elsewhere(
        &self,
        node: &str,
    ) -> Result<Vec<(JobId, InFlightCount)>, StoreError> {
        let mut query = self.query(
            "select job_id, count(case when state = 'running' then 1 end), count(*) from runs \
             where state in ('pending', 'running') and event is null and node <> ",
        );
        query.bind(node).push(" group by job_id");
        let in_flight = |mut row: SqlRow| {
            let id = JobId::stored(row.text()?);
            let (running, all) = (row.count()?, row.count()?);
            let narrow = |count| u32::try_from(count).unwrap_or(u32::MAX);
            let waiting = narrow(all.saturating_sub(running));
            Ok((id, InFlightCount { running: narrow(running), waiting }))
        };
        self.read_newest(query).await?.into_iter().map(in_flight).collect()
    }

    async fn renew_lease(
        &self,
        node: &str,
        started_at: Timestamp,
        now: Timestamp,
    ) -> Result<ClusterView, StoreError> {
        let query = self.query(format!("select {} from nodes order by name", NODES.select_list()));
        let rows = self.read_newest(query).await?;
        let mut nodes: Vec<Node> =
            rows.into_iter().filter_map(|row| nodes::node(row).writable()).collect();
        let known = nodes.iter_mut().find(|known| known.name == node);
        let is_new = known.is_none();
        let query = if let Some(known) = known {
            let mut query = self.query("update nodes set beat = beat + 1, seen_at = ");
            query.bind(now).push(" where ");
            push_same_count(&mut query, known);
            (known.beat, known.seen_at) = (known.beat + 1, now);
            query
        } else {
            let me = Node { name: node.to_owned(), beat: 1, started_at, seen_at: now };
            let mut query = self.query(self.texts.dialect.insert(NODES.name, &NODES.names(0), 1));
            NODES.bind(0, &me, &mut query.values);
            nodes.push(me);
            query
        };
        let conflict = format!("node {node}");
        self.write(vec![Write { query, rows: Some(1), conflict }]).await?;
        Ok(ClusterView {
            is_new,
            nodes,
            pause: self.pause().await?,
            recorded_time: self.recorded_time().await?,
            cancel_requests: self.cancel_requests(node).await?,
        })
    }

    async fn remove_nodes(&self, dead: &[Node]) -> Result<(), StoreError> {
        let remove = |node: &Node| {
            let mut query = self.query("delete from nodes where ");
            push_same_count(&mut query, node);
            Write { query, rows: Some(1), conflict: format!("node {}", node.name) }
        };
        self.write(dead.iter().map(remove).collect()).await
    }

    async fn pause(&self) -> Result<Option<Pause>, StoreError> {
        let value = self.setting(PAUSE).await?;
        Ok(value.as_deref().map(stored_pause))
    }

    async fn recorded_time(&self) -> Result<Option<Timestamp>, StoreError> {
        let Some(value) = self.setting(RECORDED_TIME).await? else { return Ok(None) };
        let recorded = instant(&value);
        if recorded.is_none() {
            // Each renewal of a lease reads it, and the next step that writes replaces it.
            tracing::debug!(%value, "the setting {RECORDED_TIME} is no instant; the next step that writes records it again");
        }
        Ok(recorded)
    }

    async fn newest_run(&self) -> Result<Option<Run>, StoreError> {
        let mut query = self.select_all(&RUNS);
        query.push(" order by id desc").limit(1);
        Ok(read_runs(self.read_newest(query).await?).pop())
    }

    async fn scheduled_jobs(
        &self,
        after: Option<&JobId>,
        limit: usize,
    ) -> Result<Vec<ScheduledJob>, StoreError> {
        // Spans do not overlap, so the row that begins last also ends last.
        let last = "(select coalesce(runs.last_scheduled_at, runs.scheduled_at) from runs \
            where runs.job_id = jobs.id and runs.anchor = jobs.anchor and runs.scheduled_at is not null \
            order by runs.scheduled_at desc limit 1)";
        let mut query = self.select(&format!("{last}, {}", JOBS.select_list()), JOBS.name);
        if let Some(after) = after {
            query.push(" and id > ").bind(after.as_str());
        }
        query.push(" order by id").limit(limit);
        let rows = self.read_newest(query).await?;
        Ok(rows.into_iter().filter_map(scheduled_job).collect())
    }

    async fn wait_for_hint(&self) -> Result<(), StoreError> {
        match self.backend.as_ref() {
            // A file has no other nodes, but it may be taken away.
            Backend::Sqlite(file) => {
                file.lost().await;
                Ok(())
            }
            Backend::Server(server) => server.wait_for_hint().await,
        }
    }

    async fn commit(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        match self.backend.as_ref() {
            Backend::Sqlite(file) => {
                file.on_writer(|connection| commit_to_file(connection, &self.texts, &changes))
            }
            Backend::Server(server) => {
                let mut writes = writes(&self.texts, &changes);
                if changes.iter().any(|change| Statement::of(change).sends_hint) {
                    writes.extend(server.hint());
                }
                server.write(writes).await
            }
        }
    }
}

impl SqlStore {
    /// Makes the node the owner of those of the jobs that it does not own yet.
    fn take_jobs(&self, node: &str, jobs: &[Job]) -> Vec<Write> {
        let others = jobs.iter().filter(|job| job.owner.as_deref() != Some(node));
        let ids: Vec<&str> = others.map(|job| job.id.as_str()).collect();
        if ids.is_empty() {
            return Vec::new();
        }
        let mut query = self.query("update jobs set owner = ");
        query.bind(node).push(" where id in ").list(ids);
        vec![Write::any(query)]
    }

    /// Runs on this node that another node wants to be cancelled, with the reasons.
    async fn cancel_requests(&self, node: &str) -> Result<Vec<(RunId, String)>, StoreError> {
        let mut query = self.select("id, end_reason", RUNS.name);
        query.push(" and state in ('pending', 'running') and end_reason is not null and node = ");
        query.bind(node);
        let rows = self.read_newest(query).await?;
        rows.into_iter().map(|mut row| Ok((RunId(row.text()?.into()), row.text()?))).collect()
    }

    /// A setting as it is stored.
    async fn setting(&self, name: &str) -> Result<Option<String>, StoreError> {
        let mut query = self.select("value", "settings");
        query.push(" and name = ").bind(name);
        self.read_newest(query).await?.pop().map(|mut found| found.text()).transpose()
    }

    /// Writes all or nothing.
    async fn write(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        match self.backend.as_ref() {
            Backend::Sqlite(file) => file.write(writes),
            Backend::Server(server) => server.write(writes).await,
        }
    }
}
