-- How often the daemon has died while the run was executed.
alter table runs add column crashes bigint not null default 0;
