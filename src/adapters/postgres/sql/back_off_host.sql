-- Stores the end of a host's backoff. A later end that is stored already stays; those that ended a
-- day before this one are removed.
WITH ended AS (DELETE FROM runner_host_backoff WHERE until < $2 - interval '1 day' AND host <> $1)
INSERT INTO runner_host_backoff AS known (host, until)
VALUES ($1, $2)
ON CONFLICT (host) DO UPDATE SET until = greatest(known.until, excluded.until)
