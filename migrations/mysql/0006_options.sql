-- Policies that few jobs have: timeout, retry, priority, tasks to run on success and failure, heartbeat.
alter table jobs add column options longtext;
