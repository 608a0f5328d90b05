INSERT INTO runner_limit (kind, name, max_running)
VALUES ($1, $2, $3)
ON CONFLICT (kind, name) DO UPDATE SET max_running = excluded.max_running
