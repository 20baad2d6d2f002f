-- Finished jobs are removed in the order in which they finished.
create index jobs_finished on jobs (updated_at, id) where state = 'finished';
