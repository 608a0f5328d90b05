INSERT INTO runner_pause (kind, name, reason, since, until)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (kind, name) DO UPDATE
SET reason = excluded.reason, since = excluded.since, until = excluded.until
