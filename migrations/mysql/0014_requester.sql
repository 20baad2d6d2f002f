-- The number of the user whose client defined a job; null for a job of a file, and for one that was stored before.
alter table jobs add column requester bigint;
