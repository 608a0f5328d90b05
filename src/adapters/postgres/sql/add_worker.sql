-- Inserts a worker's account. One that was removed, with $4 in place of its password, is opened
-- again.
INSERT INTO worker (name, password, link)
VALUES ($1, $2, $3)
ON CONFLICT (name) DO UPDATE SET password = excluded.password, link = excluded.link
WHERE worker.password = $4
