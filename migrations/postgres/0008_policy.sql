-- The options of a job stand in one column, "policy": the JSON object of those that differ from their defaults, or null if
-- none does. Six options had columns of their own until now, and those counted. They come last in the object, because the
-- last value counts where a key stands twice. A value that is not understood is kept, and breaks the job, as before.
alter table jobs add column policy text;

update jobs set policy = '{"misfire_grace_time":'
    || coalesce(case
        when misfire_grace_time > 0 then (misfire_grace_time * 0.000001)::text else misfire_grace_time::text
    end, 'null')
    || ',"coalesce":' || to_json(coalesce_rule)::text || ',"max_instances":' || max_instances
    || ',"overlap":' || to_json(overlap)::text || ',"on_crash":' || to_json(on_crash)::text
    || ',"max_runs":' || coalesce(max_runs::text, 'null') || '}'
where options is not null or misfire_grace_time is not null or coalesce_rule <> 'latest' or max_instances <> 1
    or overlap <> 'skip' or on_crash <> 'rerun' or max_runs is not null;

-- Options that are no object are kept, as a text that is not JSON.
update jobs set policy = case
    when options ~ '^\s*\{\s*\}\s*$' then policy
    when options ~ '^\s*\{.*\}\s*$' then regexp_replace(options, '\}\s*$', '') || ',' || substr(policy, 2)
    else 'not an object: ' || options || ' ' || policy
end
where options is not null;

alter table jobs
    drop column options,
    drop column misfire_grace_time,
    drop column coalesce_rule,
    drop column max_instances,
    drop column overlap,
    drop column on_crash,
    drop column max_runs;
