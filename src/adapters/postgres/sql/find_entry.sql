SELECT jsonb_build_object(
        'id', item.id, 'codebase', item.codebase, 'campaign', item.suite,
        'change_set', item.change_set, 'bucket', item.bucket, 'priority', item.priority,
        'command', coalesce(item.command, ''), 'context', item.context,
        'estimated_duration', extract(epoch from item.estimated_duration)::float8,
        'refresh', coalesce(item.refresh, false), 'requester', item.requester)::text,
    (SELECT state::text FROM runner_item WHERE queue_id = item.id)
FROM queue AS item
WHERE item.id = $1
