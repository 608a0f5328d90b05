-- Writes items that were merged with requests.
UPDATE queue
SET bucket = merged.bucket::queue_bucket, command = merged.command, priority = merged.priority,
    context = merged.context, estimated_duration = make_interval(secs => merged.duration),
    refresh = merged.refresh, requester = merged.requester
FROM unnest(
    $1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::float8[], $7::bool[],
    $8::text[]
) AS merged (id, bucket, command, priority, context, duration, refresh, requester)
WHERE queue.id = merged.id AND queue.id = ANY ($1)
