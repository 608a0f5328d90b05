-- The items of a campaign, and of one codebase if $2 is given, that nobody holds.
SELECT jsonb_build_object(
        'id', item.id, 'codebase', item.codebase, 'campaign', item.suite,
        'change_set', item.change_set, 'bucket', item.bucket, 'priority', item.priority,
        'command', coalesce(item.command, ''), 'context', item.context,
        'estimated_duration', extract(epoch from item.estimated_duration)::float8,
        'refresh', coalesce(item.refresh, false), 'requester', item.requester)::text
FROM queue AS item
WHERE suite = $1
    AND ($2::text IS NULL OR codebase::text = $2)
    AND (SELECT run_id FROM runner_active_run WHERE queue_id = item.id) IS NULL
ORDER BY item.bucket, item.priority, item.id
