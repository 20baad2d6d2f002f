-- Instants are bigint microseconds UTC; what has a structure is JSON text. Ids are bytes: they are equal and sorted as
-- everywhere, whatever the collation of the database.
create table jobs (
    id                 varbinary(255) not null primary key,
    name               text           not null,
    state              varchar(16)    not null check (state in ('active', 'paused', 'finished', 'broken')),
    reason             text,
    trigger_spec       longtext       not null,
    task               longtext       not null,
    executor           varbinary(1024) not null,
    misfire_grace_time bigint,
    coalesce_rule      varchar(16)    not null,
    max_instances      bigint         not null,
    overlap            varchar(16)    not null,
    on_crash           varchar(16)    not null,
    max_runs           bigint,
    run_count          bigint         not null,
    tags               longtext       not null,
    description        longtext       not null,
    origin             varchar(16)    not null,
    anchor             bigint         not null,
    scheduled_at       bigint,
    next_run_time      bigint,
    owner              varbinary(255),
    revision           bigint         not null,
    created_at         bigint         not null,
    updated_at         bigint         not null,
    index jobs_due (next_run_time)
) engine = InnoDB default charset = utf8mb4;
