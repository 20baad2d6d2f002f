-- The ledger: an occurrence is one row, and its unique index is the promise. What a crash may have left in flight is
-- found by its state.
create table runs (
    id                varbinary(64)   not null primary key,
    job_id            varbinary(255)  not null,
    anchor            bigint          not null,
    cause             varchar(16)     not null check (cause in ('schedule', 'manual')),
    state             varchar(16)     not null check (state in ('pending', 'running', 'succeeded', 'failed', 'timed_out', 'cancelled', 'lost', 'skipped')),
    reason            text,
    scheduled_at      bigint,
    last_scheduled_at bigint,
    occurrences       bigint          not null,
    due_at            bigint          not null,
    attempt           bigint          not null,
    executor          varbinary(1024) not null,
    node              varbinary(255)  not null,
    created_at        bigint          not null,
    started_at        bigint,
    finished_at       bigint,
    exit_code         bigint,
    error             longtext,
    result            longtext,
    end_reason        text,
    unique index runs_occurrence (job_id, anchor, scheduled_at),
    index runs_in_flight (state, id)
) engine = InnoDB default charset = utf8mb4;
