-- A trigger that is not JSON has no type.
update jobs set trigger_type = if(json_valid(trigger_spec), left(json_unquote(json_extract(trigger_spec, '$.type')), 255), null);
