-- The runs after the id $1 in the order of ids, $2 of them, with what they resumed from.
SELECT id, codebase, suite, coalesce(result_code, ''), start_time, resume_from
FROM run
WHERE id > $1
ORDER BY id
LIMIT $2
