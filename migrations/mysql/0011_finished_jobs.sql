-- Finished jobs are removed in the order in which they finished.
create index jobs_finished on jobs (state, updated_at, id);
