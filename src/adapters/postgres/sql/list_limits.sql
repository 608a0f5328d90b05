SELECT kind, name, max_running
FROM runner_limit
ORDER BY kind COLLATE "C", name COLLATE "C"
