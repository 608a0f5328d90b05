-- The run of the id $1, with what it resumed from.
SELECT id, codebase, suite, coalesce(result_code, ''), start_time, resume_from
FROM run
WHERE id = $1
