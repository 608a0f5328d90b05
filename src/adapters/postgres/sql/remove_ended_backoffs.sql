-- Removes some of the backoffs that ended a day before $1.
DELETE FROM runner_host_backoff
WHERE host = ANY(ARRAY(
    SELECT host FROM runner_host_backoff
    WHERE until < $1 - interval '1 day'
    ORDER BY host
    LIMIT 100
    FOR UPDATE SKIP LOCKED))
