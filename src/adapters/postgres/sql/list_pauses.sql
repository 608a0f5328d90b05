SELECT kind, name, reason, since, until
FROM runner_pause
WHERE until IS NULL OR until > $1
ORDER BY kind COLLATE "C", name COLLATE "C"
