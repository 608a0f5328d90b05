-- Deletes the items that nobody holds.
WITH removed AS (
    DELETE FROM queue
    WHERE id = ANY ($1)
        AND (SELECT run_id FROM runner_active_run WHERE queue_id = queue.id) IS NULL
    RETURNING id::bigint
),
-- Deletes the state that was stored beside them.
forgotten AS (
    DELETE FROM runner_item WHERE queue_id = ANY (ARRAY(SELECT id FROM removed))
)
SELECT id FROM removed
