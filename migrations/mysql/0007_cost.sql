-- What a run cost. One that tells of another one says of what and of which; its cause says "manual", since it has no
-- occurrence either.
alter table runs
    add column by_signal bigint,
    add column cpu_micros bigint,
    add column peak_memory bigint,
    add column event varchar(16),
    add column subject varbinary(64);
