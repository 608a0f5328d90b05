-- The parked items after an id that nobody holds.
SELECT jsonb_build_object(
        'id', item.id, 'codebase', item.codebase, 'campaign', item.suite,
        'change_set', item.change_set, 'bucket', item.bucket, 'priority', item.priority,
        'command', coalesce(item.command, ''), 'context', item.context,
        'estimated_duration', extract(epoch from item.estimated_duration)::float8,
        'refresh', coalesce(item.refresh, false), 'requester', item.requester)::text,
    parked.state::text
FROM (
    SELECT * FROM runner_item
    WHERE parked AND queue_id > $1 AND (
        SELECT run_id FROM runner_active_run
        WHERE runner_active_run.queue_id = runner_item.queue_id
    ) IS NULL
) AS parked
CROSS JOIN LATERAL (SELECT * FROM queue WHERE id = parked.queue_id OFFSET 0) AS item
ORDER BY parked.queue_id
LIMIT $2
