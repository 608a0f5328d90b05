-- Runs by result code since the minute of $1: those that this runner stored, and those that another
-- runner stored.
SELECT result_code, count(*)
FROM (
    SELECT (SELECT result_code FROM run WHERE id = own.run_id)
    FROM runner_run AS own
    WHERE own.stored >= date_trunc('minute', $1::timestamp)
    UNION ALL
    SELECT result_code FROM run
    WHERE finish_time >= date_trunc('minute', $1::timestamp)
        AND (SELECT run_id FROM runner_run WHERE run_id = run.id) IS NULL
) AS finished
GROUP BY result_code
