-- How many items are before a position, and the seconds that they are estimated to take.
SELECT count(*), coalesce(extract(epoch from sum(estimated_duration)), 0)::float8
FROM queue
WHERE (bucket, priority, id) < ($1::queue_bucket, $2, $3)
