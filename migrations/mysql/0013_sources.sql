-- Which file declares a job: its `[scheduler] source`, or its path; null for one that was declared before, and for others.
-- And what a broken job was before: "paused" or "finished", null if it fired.
alter table jobs
    add column source text,
    add column former_state varchar(16);
