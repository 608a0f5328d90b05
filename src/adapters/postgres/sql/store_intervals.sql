-- Stores until when new items are not assigned: $1 ids, $2 states, $3 the ends of their intervals.
INSERT INTO runner_item (queue_id, state, not_before, parked)
SELECT queue_id, state::jsonb, not_before, false
FROM unnest($1::bigint[], $2::text[], $3::timestamp[]) AS new (queue_id, state, not_before)
ON CONFLICT (queue_id) DO NOTHING
