-- Lists of jobs by the type of their trigger. A trigger that is not JSON has no type.
alter table jobs add column trigger_type text;
update jobs set trigger_type = json_extract(trigger_spec, '$.type')
where json_valid(trigger_spec) and json_type(trigger_spec, '$.type') = 'text';

-- Few jobs and few runs are in these states, and they are what people look for.
create index jobs_held on jobs (id) where state in ('paused', 'broken');
create index runs_failed on runs (id) where state in ('failed', 'timed_out', 'cancelled', 'lost');
