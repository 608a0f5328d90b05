-- Removes some of the oldest entries: those from before a time, and those beyond the latest ones.
WITH oldest AS (
    SELECT id, at FROM runner_audit ORDER BY id LIMIT $3
)
DELETE FROM runner_audit
WHERE id = ANY (ARRAY(
    SELECT id FROM oldest
    WHERE at < $1
        OR id <= (SELECT id FROM runner_audit ORDER BY id DESC OFFSET $2 LIMIT 1)
))
