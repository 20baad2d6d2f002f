alter table jobs
    drop column options,
    drop column misfire_grace_time,
    drop column coalesce_rule,
    drop column max_instances,
    drop column overlap,
    drop column on_crash,
    drop column max_runs;
