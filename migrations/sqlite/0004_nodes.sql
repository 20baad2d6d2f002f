-- On a store that nodes share, a job is held by the node that will fire it.
alter table jobs add column owner text;

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
    result            text
);

insert into runs_new (id, job_id, anchor, cause, state, reason, scheduled_at, last_scheduled_at, occurrences, due_at,
    attempt, executor, node, created_at, started_at, finished_at, exit_code, error, result)
select id, job_id, anchor, cause, state, reason, scheduled_at, last_scheduled_at, occurrences, due_at,
    attempt, executor, node, created_at, started_at, finished_at, exit_code, error, result
from runs;

drop table runs;
alter table runs_new rename to runs;

create unique index runs_occurrence on runs (job_id, anchor, scheduled_at);
create index runs_in_flight on runs (id) where state in ('pending', 'running');
