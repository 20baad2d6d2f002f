-- The output of an attempt: JSON of its first lines, the number of those that were cut, and its last lines.
create table attempt_outputs (
    run_id  varbinary(64) not null,
    attempt bigint        not null,
    kept longtext      not null,
    bytes   bigint        not null,
    primary key (run_id, attempt)
) engine = InnoDB default charset = utf8mb4
select run_id, coalesce(attempt, 1) as attempt,
    json_object('head', json_array(), 'cut', 0,
        'tail', json_array(json_array(coalesce(finished_at, created_at, 0), 'stdout', trim(trailing '\n' from tail)))) as kept,
    bytes
from outputs left join runs on runs.id = outputs.run_id;
