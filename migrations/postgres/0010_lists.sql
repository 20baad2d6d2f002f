-- Lists of jobs by the type of their trigger. A trigger that is not JSON has no type.
alter table jobs add column trigger_type text;
do $$
declare
    damaged record;
begin
    update jobs set trigger_type = trigger_spec::json ->> 'type';
exception when data_exception then
    -- One of the texts is not JSON, so each is read by itself.
    for damaged in select id, trigger_spec from jobs loop
        begin
            update jobs set trigger_type = damaged.trigger_spec::json ->> 'type' where id = damaged.id;
        exception when data_exception then
            null;
        end;
    end loop;
end $$;

-- Few jobs and few runs are in these states, and they are what people look for.
create index jobs_held on jobs (id) where state in ('paused', 'broken');
create index runs_failed on runs (id) where state in ('failed', 'timed_out', 'cancelled', 'lost');

-- Jobs that are due at the same instant are listed by id.
drop index jobs_due;
create index jobs_due on jobs (next_run_time, id) where next_run_time is not null;
