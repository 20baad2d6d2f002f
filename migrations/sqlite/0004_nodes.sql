-- On a store that nodes share, a job is held by the node that will fire it. And a job is found by its id alone: without
-- a number of its own beside it, its row is written once and not twice.
create table jobs_new (
    id                 text primary key not null,
    name               text   not null,
    state              text   not null check (state in ('active', 'paused', 'finished', 'broken')),
    reason             text,
    trigger_spec       text   not null,
    task               text   not null,
    executor           text   not null,
    misfire_grace_time bigint,
    coalesce_rule      text   not null,
    max_instances      bigint not null,
    overlap            text   not null,
    on_crash           text   not null,
    max_runs           bigint,
    run_count          bigint not null,
    tags               text   not null,
    description        text   not null,
    origin             text   not null,
    anchor             bigint not null,
    scheduled_at       bigint,
    next_run_time      bigint,
    owner              text,
    revision           bigint not null,
    created_at         bigint not null,
    updated_at         bigint not null
) without rowid;

insert into jobs_new (id, name, state, reason, trigger_spec, task, executor, misfire_grace_time, coalesce_rule,
    max_instances, overlap, on_crash, max_runs, run_count, tags, description, origin, anchor, scheduled_at, next_run_time,
    revision, created_at, updated_at)
select id, name, state, reason, trigger_spec, task, executor, misfire_grace_time, coalesce_rule,
    max_instances, overlap, on_crash, max_runs, run_count, tags, description, origin, anchor, scheduled_at, next_run_time,
    revision, created_at, updated_at
from jobs;

drop table jobs;
alter table jobs_new rename to jobs;

create index jobs_due on jobs (next_run_time) where next_run_time is not null;

create table nodes (
    name       text primary key not null,
    beat       bigint not null,
    started_at bigint not null,
    seen_at    bigint not null
);

-- The states of a run have grown, and a check can only be changed with its table.
create table runs_new (
    id                text primary key not null,
    job_id            text   not null,
    anchor            bigint not null,
    cause             text   not null check (cause in ('schedule', 'manual')),
    state             text   not null check (state in ('pending', 'running', 'succeeded', 'failed', 'timed_out', 'cancelled', 'lost', 'skipped')),
    reason            text,
    scheduled_at      bigint,
    last_scheduled_at bigint,
    occurrences       bigint not null,
    due_at            bigint not null,
    attempt           bigint not null,
    executor          text   not null,
    node              text   not null,
    created_at        bigint not null,
    started_at        bigint,
    finished_at       bigint,
    exit_code         bigint,
    error             text,
    result            text,
    end_reason        text
) without rowid;

insert into runs_new (id, job_id, anchor, cause, state, reason, scheduled_at, last_scheduled_at, occurrences, due_at,
    attempt, executor, node, created_at, started_at, finished_at, exit_code, error, result)
select id, job_id, anchor, cause, state, reason, scheduled_at, last_scheduled_at, occurrences, due_at,
    attempt, executor, node, created_at, started_at, finished_at, exit_code, error, result
from runs;

drop table runs;
alter table runs_new rename to runs;

create unique index runs_occurrence on runs (job_id, anchor, scheduled_at);
create index runs_in_flight on runs (id) where state in ('pending', 'running');
