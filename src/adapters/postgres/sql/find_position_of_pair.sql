-- The position of the first item of a pair. The order is written as a row, which no index has: else
-- the planner might walk the whole queue in its order.
SELECT bucket::text, priority, id::bigint
FROM queue
WHERE codebase = $1 AND suite || '' = $2
ORDER BY (bucket, priority, id)
LIMIT 1
