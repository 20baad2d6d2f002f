-- Instants are bigint microseconds UTC; what has a structure is JSON text. Ids sort by their bytes, as everywhere.

create table jobs (
    id                 text collate "C" primary key,
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
);

-- Only active jobs have a next run time: what is due is found without looking at the rest.
create index jobs_due on jobs (next_run_time) where next_run_time is not null;

create table runs (
    id                text collate "C" primary key,
    job_id            text collate "C" not null,
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
);

-- An occurrence is one row: this index is the promise.
create unique index runs_occurrence on runs (job_id, anchor, scheduled_at);

-- What a crash may have left in flight.
create index runs_in_flight on runs (id) where state in ('pending', 'running');

create table outputs (
    run_id text collate "C" primary key,
    tail   text   not null,
    bytes  bigint not null
);

-- What holds for the scheduler as a whole, such as since when it is paused.
create table settings (
    name  text primary key,
    value text not null
);

-- The daemons on this store. A beat that no longer changes is a node that is dead.
create table nodes (
    name       text collate "C" primary key,
    beat       bigint not null,
    started_at bigint not null,
    seen_at    bigint not null
);
