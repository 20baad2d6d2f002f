//! Statements of a store that nodes share: who is there, and who holds which job.

use std::sync::Arc;

use super::dialect::{Dialect, Query, Write};
use super::read::jobs;
use super::row::{self, JOB_COLUMNS, NODE_COLUMNS};
use super::value::{SqlRow, SqlValue};
use super::{Backend, SqlStore};
use crate::clock::Timestamp;
use crate::job::{Job, JobId};
use crate::run::RunId;
use crate::store::{CLAIM_BYTES, Claim, ClusterView, InFlightCount, Node, StoreError};

impl SqlStore {
    pub(super) async fn claim_jobs(&self, claim: Claim<'_>) -> Result<Vec<Job>, StoreError> {
        let table = match self.statements.dialect {
            Dialect::Sqlite | Dialect::Postgres => "jobs",
            // Read in any other order, every row that is due would be locked, and not only the earliest.
            Dialect::MySql => "jobs force index (jobs_due)",
        };
        let mut query = self.select(JOB_COLUMNS, table);
        query.bytes_max(CLAIM_BYTES);
        query.push(" and next_run_time <= ").bind(claim.until);
        query.push(" and executor in ").list(claim.executors.iter().map(String::as_str));
        let order = " order by next_run_time";
        let server = match self.database.as_ref() {
            // There is nobody else.
            Backend::Sqlite(file) => {
                query.push(order).limit(claim.limit);
                return Ok(jobs(file.read_newest(&query)?));
            }
            Backend::Server(server) => server,
        };
        let others = claim.live.iter().map(String::as_str).filter(|name| *name != claim.node);
        query.push(" and (owner is null or ").none_of("owner", others).push(")");
        query.push(order).limit(claim.limit).push(" for update skip locked");
        let taken =
            server.read_and_write(query, |rows| Ok(jobs(rows)), |jobs| self.take(claim.node, jobs));
        let owner: Arc<str> = claim.node.into();
        let held = |job| Job { owner: Some(Arc::clone(&owner)), ..job };
        Ok(taken.await?.into_iter().map(held).collect())
    }

    /// Makes the node the owner of those of the jobs that it does not own yet.
    fn take(&self, node: &str, jobs: &[Job]) -> Vec<Write> {
        let others = jobs.iter().filter(|job| job.owner.as_deref() != Some(node));
        let ids: Vec<&str> = others.map(|job| job.id.as_str()).collect();
        if ids.is_empty() {
            return Vec::new();
        }
        let mut query = self.query("update jobs set owner = ");
        query.bind(node).push(" where id in ").list(ids);
        vec![Write { query, rows: None, conflict: String::new() }]
    }

    pub(super) async fn release_jobs(
        &self,
        node: &str,
        executor: &str,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        let mut query = self.query("update jobs set owner = null where owner = ");
        query.bind(node).push(" and executor = ").bind(executor);
        query.push(" and next_run_time <= ").bind(until);
        self.write(vec![Write { query, rows: None, conflict: String::new() }]).await
    }

    pub(super) async fn count_elsewhere(
        &self,
        node: &str,
    ) -> Result<Vec<(JobId, InFlightCount)>, StoreError> {
        let mut query = self.query(
            "select job_id, count(case when state = 'running' then 1 end), count(*) from runs \
             where state in ('pending', 'running') and event is null and node <> ",
        );
        query.bind(node).push(" group by job_id");
        let rows = self.read_newest(query).await?;
        let in_flight = |mut row: SqlRow| {
            let id = JobId::stored(row.text()?);
            let (running, all) = (row.count()?, row.count()?);
            let narrow = |count| u32::try_from(count).unwrap_or(u32::MAX);
            let waiting = narrow(all.saturating_sub(running));
            Ok((id, InFlightCount { running: narrow(running), waiting }))
        };
        rows.into_iter().map(in_flight).collect()
    }

    pub(super) async fn meet_nodes(
        &self,
        node: &str,
        started_at: Timestamp,
        now: Timestamp,
    ) -> Result<ClusterView, StoreError> {
        let query = self.query(format!("select {NODE_COLUMNS} from nodes order by name"));
        let rows = self.read_newest(query).await?;
        let mut nodes: Vec<Node> =
            rows.into_iter().filter_map(|row| row::node(row).writable()).collect();
        let known = nodes.iter_mut().find(|known| known.name == node);
        let is_new = known.is_none();
        let query = if let Some(known) = known {
            let mut query = self.query("update nodes set beat = beat + 1, seen_at = ");
            query.bind(now).push(" where ");
            same_beat(&mut query, known);
            (known.beat, known.seen_at) = (known.beat + 1, now);
            query
        } else {
            let me = Node { name: node.to_owned(), beat: 1, started_at, seen_at: now };
            let columns = ["name", "beat", "started_at", "seen_at"];
            let mut query = self.query(self.statements.dialect.insert("nodes", &columns, 1));
            let instants = [me.started_at, me.seen_at].map(SqlValue::from);
            query.values = vec![SqlValue::from(node), SqlValue::from(me.beat)];
            query.values.extend(instants);
            nodes.push(me);
            query
        };
        let conflict = format!("node {node}");
        self.write(vec![Write { query, rows: Some(1), conflict }]).await?;
        Ok(ClusterView {
            is_new,
            nodes,
            paused_since: self.paused_setting().await?,
            recorded_time: self.recorded_setting().await?,
            cancel_requests: self.runs_to_end(node).await?,
        })
    }

    async fn runs_to_end(&self, node: &str) -> Result<Vec<(RunId, String)>, StoreError> {
        let mut query = self.select("id, end_reason", "runs");
        query.push(" and state in ('pending', 'running') and end_reason is not null and node = ");
        query.bind(node);
        let rows = self.read_newest(query).await?;
        rows.into_iter().map(|mut row| Ok((RunId(row.text()?.into()), row.text()?))).collect()
    }

    pub(super) async fn bury_nodes(&self, dead: &[Node]) -> Result<(), StoreError> {
        let bury = |node: &Node| {
            let mut query = self.query("delete from nodes where ");
            same_beat(&mut query, node);
            Write { query, rows: Some(1), conflict: format!("node {}", node.name) }
        };
        self.write(dead.iter().map(bury).collect()).await
    }

    /// Writes all or nothing.
    async fn write(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        match self.database.as_ref() {
            Backend::Sqlite(file) => file.write(writes),
            Backend::Server(server) => server.write(writes).await,
        }
    }
}

/// Only the node as it was read: one that has given a sign of life meanwhile is not meant.
fn same_beat(query: &mut Query, node: &Node) {
    query.push("name = ").bind(node.name.as_str()).push(" and beat = ").bind(node.beat);
}
