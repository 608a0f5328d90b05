-- Locks a log; returns its size and that of the run's other logs.
SELECT size, (
    SELECT coalesce(sum(size), 0)::bigint FROM runner_live_log WHERE run_id = $1 AND name <> $2)
FROM runner_live_log
WHERE run_id = $1 AND name = $2
FOR UPDATE
