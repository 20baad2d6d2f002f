-- Since when a job is paused, until when, who asked for it and why: a JSON object, or null if nobody has said so. The
-- "next_run_time" of a paused job is the end of its pause.
alter table jobs add column pause text;
