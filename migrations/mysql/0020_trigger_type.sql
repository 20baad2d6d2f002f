-- Lists of jobs by the type of their trigger.
alter table jobs add column trigger_type varchar(255);
