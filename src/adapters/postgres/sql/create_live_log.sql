-- Creates a log, or locks it; returns its size, that of the run's other logs, and their number.
INSERT INTO runner_live_log AS log (run_id, name, size)
VALUES ($1, $2, 0)
ON CONFLICT (run_id, name) DO UPDATE SET size = log.size
RETURNING size, (
    SELECT coalesce(sum(size), 0)::bigint FROM runner_live_log WHERE run_id = $1 AND name <> $2
) AS size_of_others, (
    SELECT count(*) FROM runner_live_log WHERE run_id = $1 AND name <> $2
) AS others
