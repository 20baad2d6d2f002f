-- The daemons on this store. A beat that no longer changes is a node that is dead.
create table nodes (
    name       varbinary(255) not null primary key,
    beat       bigint         not null,
    started_at bigint         not null,
    seen_at    bigint         not null
) engine = InnoDB default charset = utf8mb4;
