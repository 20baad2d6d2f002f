-- Six options had columns of their own until now, and those counted. They come last in the object, because the last value
-- counts where a key stands twice. A value that is not understood is kept, and breaks the job, as before; options that are
-- no object become a text that is not JSON.
update jobs
join (
    select id as six_of, concat(
        '"misfire_grace_time":', coalesce(
            if(misfire_grace_time > 0, cast(misfire_grace_time * 0.000001 as char), misfire_grace_time), 'null'),
        ',"coalesce":', json_quote(coalesce_rule), ',"max_instances":', max_instances,
        ',"overlap":', json_quote(overlap), ',"on_crash":', json_quote(on_crash),
        ',"max_runs":', coalesce(max_runs, 'null'), '}') as six
    from jobs
) as named on six_of = id
set policy = case
    when options is null or options regexp '^[[:space:]]*[{][[:space:]]*[}][[:space:]]*$' then concat('{', six)
    when trim(options) like '{%}' then concat(left(trim(options), char_length(trim(options)) - 1), ',', six)
    else concat('not an object: ', options, ' {', six)
end
where options is not null or misfire_grace_time is not null or binary coalesce_rule <> 'latest' or max_instances <> 1
    or binary overlap <> 'skip' or binary on_crash <> 'rerun' or max_runs is not null;
