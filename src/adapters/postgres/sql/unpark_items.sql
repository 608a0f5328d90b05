-- Forgets the state of items that nobody holds; says of each whether it was parked or snoozed.
DELETE FROM runner_item
WHERE queue_id = ANY ($1)
    AND (SELECT true FROM queue WHERE id = queue_id) IS NOT NULL
    AND (
        SELECT run_id FROM runner_active_run
        WHERE runner_active_run.queue_id = runner_item.queue_id
    ) IS NULL
RETURNING queue_id, parked OR not_before IS NOT NULL
