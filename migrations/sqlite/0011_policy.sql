-- The options of a job stand in one column, "policy": the JSON object of those that differ from their defaults, or null if
-- none does. Six options had columns of their own until now, and those counted. They come last in the object, because the
-- last value counts where a key stands twice. A value that is not understood is kept, and breaks the job, as before.
alter table jobs add column policy text;

update jobs set policy = '{"misfire_grace_time":'
    || case
        when typeof(misfire_grace_time) = 'integer' and misfire_grace_time > 0
            then printf('%d.%06d', misfire_grace_time / 1000000, misfire_grace_time % 1000000)
        else json_quote(iif(typeof(misfire_grace_time) = 'blob', quote(misfire_grace_time), misfire_grace_time))
    end
    || ',"coalesce":' || json_quote(iif(typeof(coalesce_rule) = 'blob', quote(coalesce_rule), coalesce_rule))
    || ',"max_instances":' || json_quote(iif(typeof(max_instances) = 'blob', quote(max_instances), max_instances))
    || ',"overlap":' || json_quote(iif(typeof(overlap) = 'blob', quote(overlap), overlap))
    || ',"on_crash":' || json_quote(iif(typeof(on_crash) = 'blob', quote(on_crash), on_crash))
    || ',"max_runs":' || json_quote(iif(typeof(max_runs) = 'blob', quote(max_runs), max_runs)) || '}'
where options is not null or misfire_grace_time is not null or coalesce_rule is not 'latest' or max_instances is not 1
    or overlap is not 'skip' or on_crash is not 'rerun' or max_runs is not null;

-- Options that are no object are kept, as a text that is not JSON.
update jobs set policy = case
    when not json_valid(options) then 'not an object: ' || options || ' ' || policy
    when json_type(options) <> 'object' then 'not an object: ' || options || ' ' || policy
    when json(options) = '{}' then policy
    else substr(json(options), 1, length(json(options)) - 1) || ',' || substr(policy, 2)
end
where options is not null;

alter table jobs drop column options;
alter table jobs drop column misfire_grace_time;
alter table jobs drop column coalesce_rule;
alter table jobs drop column max_instances;
alter table jobs drop column overlap;
alter table jobs drop column on_crash;
alter table jobs drop column max_runs;
