-- Its rows are in attempt_outputs.
drop table outputs;
