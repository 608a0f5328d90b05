-- Of a stored run: whether it was abandoned, and whether its item is held now or was run again
-- after it.
SELECT coalesce((own.facts ->> 'given_up')::bool, false),
    (SELECT run_id FROM runner_active_run WHERE queue_id = own.queue_id) IS NOT NULL
    OR EXISTS (
        SELECT FROM run AS other
        CROSS JOIN LATERAL (
            SELECT queue_id, sequence FROM runner_run WHERE run_id = other.id OFFSET 0
        ) AS later
        WHERE other.codebase = $2
            AND other.suite || '' = $3
            AND other.id <> own.run_id
            AND later.queue_id = own.queue_id
            AND later.sequence > own.sequence)
FROM runner_run AS own
WHERE own.run_id = $1
FOR UPDATE
