-- The entries before an id that match, latest first. Only so many are looked at; when there are
-- more, each row has the id of the last of them, and without a match there is a row for that alone.
WITH scanned AS (
    SELECT * FROM runner_audit WHERE id < $1 ORDER BY id DESC LIMIT $2
),
-- The id to go on from, when the scan has ended before the log does.
resume AS (
    SELECT min(id) AS id FROM scanned HAVING count(*) = $2
),
-- Those of them that match.
matching AS (
    SELECT * FROM scanned
    WHERE ($3::text IS NULL OR who = $3)
        AND ($4::text IS NULL OR action = $4)
        AND ($5::text IS NULL OR object = $5)
        AND ($6::timestamp IS NULL OR at >= $6)
        AND ($7::timestamp IS NULL OR at < $7)
    ORDER BY id DESC LIMIT $8
)
SELECT CASE WHEN matching.id IS NULL THEN NULL ELSE jsonb_build_object(
        'id', matching.id, 'at', to_char(matching.at, 'YYYY-MM-DD"T"HH24:MI:SS.US'),
        'who', matching.who, 'address', matching.address, 'action', matching.action,
        'object', matching.object, 'before', matching.before, 'after', matching.after,
        'request_id', matching.request_id)::text END,
    (SELECT id FROM resume)
FROM (SELECT) AS one
LEFT JOIN matching ON true
ORDER BY matching.id DESC
