create table outputs (
    run_id varbinary(64) not null primary key,
    tail   longtext      not null,
    bytes  bigint        not null
) engine = InnoDB default charset = utf8mb4;
