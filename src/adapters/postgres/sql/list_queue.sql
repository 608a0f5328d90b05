SELECT jsonb_build_object(
        'id', item.id, 'codebase', item.codebase, 'campaign', item.suite,
        'change_set', item.change_set, 'bucket', item.bucket, 'priority', item.priority,
        'command', coalesce(item.command, ''), 'context', item.context,
        'estimated_duration', extract(epoch from item.estimated_duration)::float8,
        'refresh', coalesce(item.refresh, false), 'requester', item.requester)::text
FROM queue AS item
ORDER BY item.bucket, item.priority, item.id
LIMIT $1
