-- The options of a job stand in one column: the JSON object of those that differ from their defaults, or null if none does.
alter table jobs add column policy longtext;
