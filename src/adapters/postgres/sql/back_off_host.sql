-- Stores the end of a host's backoff. A later end that is stored already stays.
INSERT INTO runner_host_backoff AS known (host, until)
VALUES ($1, $2)
ON CONFLICT (host) DO UPDATE SET until = greatest(known.until, excluded.until)
