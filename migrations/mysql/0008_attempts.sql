-- Attempts that were not the last of their run.
create table attempts (
    run_id      varbinary(64)  not null,
    attempt     bigint         not null,
    node        varbinary(255) not null,
    state       varchar(16)    not null,
    reason      text,
    started_at  bigint         not null,
    finished_at bigint         not null,
    exit_code   bigint,
    by_signal    bigint,
    error       longtext,
    cpu_micros  bigint,
    peak_memory bigint,
    primary key (run_id, attempt)
) engine = InnoDB default charset = utf8mb4;
