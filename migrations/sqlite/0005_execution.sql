-- Policies that few jobs have: timeout, retry, priority, tasks to run on success and failure, heartbeat.
alter table jobs add column options text;

alter table runs add column by_signal bigint;
alter table runs add column cpu_micros bigint;
alter table runs add column peak_memory bigint;
-- A run that tells of another one: of what, and of which. Its cause says "manual", since it has no occurrence either.
alter table runs add column event text;
alter table runs add column subject text;

-- Attempts that were not the last of their run.
create table attempts (
    run_id      text   not null,
    attempt     bigint not null,
    node        text   not null,
    state       text   not null,
    reason      text,
    started_at  bigint not null,
    finished_at bigint not null,
    exit_code   bigint,
    by_signal bigint,
    error       text,
    cpu_micros  bigint,
    peak_memory bigint,
    primary key (run_id, attempt)
) without rowid;

-- The output of an attempt: JSON of its first lines, the number of those that were cut, and its last lines.
create table attempt_outputs (
    run_id  text   not null,
    attempt bigint not null,
    kept    text   not null,
    bytes   bigint not null,
    primary key (run_id, attempt)
) without rowid;

insert into attempt_outputs (run_id, attempt, kept, bytes)
select run_id, coalesce(attempt, 1),
    json_object('head', json_array(), 'cut', 0,
        'tail', json_array(json_array(coalesce(finished_at, created_at, 0), 'stdout', rtrim(tail, char(10))))),
    bytes
from outputs left join runs on runs.id = outputs.run_id;

drop table outputs;
