-- What becomes of an occurrence while as many runs of its job as max_instances allows are in flight.
alter table jobs add column overlap text not null default 'skip';
