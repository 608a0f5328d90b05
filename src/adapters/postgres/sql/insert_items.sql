-- Inserts items in the order given. A key that another transaction inserted meanwhile is missing
-- from the rows returned, so that the caller starts again.
INSERT INTO queue (
    bucket, codebase, suite, change_set, command, priority, context, estimated_duration, refresh,
    requester)
SELECT bucket::queue_bucket, codebase, campaign, change_set, command, priority, context,
    make_interval(secs => duration), refresh, requester
FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[],
    $8::float8[], $9::bool[], $10::text[]
) WITH ORDINALITY AS new (
    bucket, codebase, campaign, change_set, command, priority, context, duration, refresh,
    requester, place)
ORDER BY place
ON CONFLICT DO NOTHING
RETURNING id::bigint, codebase::text, suite::text, change_set
