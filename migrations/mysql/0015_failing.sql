-- Whether the last run of the job has failed. It is kept up only for jobs with on_failure_once or on_recovery.
alter table jobs add column failing bigint not null default 0;
