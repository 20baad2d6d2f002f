-- The embedded counters: sorted sets with whole scores, one row for each member.

create table counter (
    zset varchar(255) not null,
    member blob not null,
    score bigint not null,
    primary key (zset, member)
) without rowid;
