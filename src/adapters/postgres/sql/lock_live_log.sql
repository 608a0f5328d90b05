-- Locks a log; returns its size, that of the run's other logs, and their number.
SELECT size, (
    SELECT coalesce(sum(size), 0)::bigint FROM runner_live_log WHERE run_id = $1 AND name <> $2
) AS size_of_others, (
    SELECT count(*) FROM runner_live_log WHERE run_id = $1 AND name <> $2
) AS others
FROM runner_live_log
WHERE run_id = $1 AND name = $2
FOR UPDATE
