UPDATE runner_active_run
SET pending_enqueue = pending.request::jsonb
FROM unnest($1::bigint[], $2::text[]) AS pending (id, request)
WHERE queue_id = pending.id
