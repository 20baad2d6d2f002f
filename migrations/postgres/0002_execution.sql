-- Policies that few jobs have: timeout, retry, priority, tasks to run on success and failure, heartbeat.
alter table jobs add column options text;

-- What a run cost. One that tells of another one says of what and of which; its cause says "manual", since it has no
-- occurrence either.
alter table runs
    add column by_signal bigint,
    add column cpu_micros bigint,
    add column peak_memory bigint,
    add column event text,
    add column subject text collate "C";

-- Attempts that were not the last of their run.
create table attempts (
    run_id      text collate "C" not null,
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
);

-- The output of an attempt: JSON of its first lines, the number of those that were cut, and its last lines.
create table attempt_outputs (
    run_id  text collate "C" not null,
    attempt bigint not null,
    kept    text   not null,
    bytes   bigint not null,
    primary key (run_id, attempt)
);

insert into attempt_outputs (run_id, attempt, kept, bytes)
select run_id, coalesce(attempt, 1),
    json_build_object('head', json_build_array(), 'cut', 0,
        'tail', json_build_array(json_build_array(coalesce(finished_at, created_at, 0), 'stdout', rtrim(tail, chr(10)))))::text,
    bytes
from outputs left join runs on runs.id = outputs.run_id;

drop table outputs;
