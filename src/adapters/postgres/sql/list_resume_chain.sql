-- The runs that the run $1 resumed from, the nearest first, $2 of them. In a circle they come
-- again.
WITH RECURSIVE chain AS (
    SELECT 0 AS place, id, codebase, suite, result_code, start_time, resume_from
    FROM run
    WHERE id = $1
    UNION ALL
    SELECT
        chain.place + 1, run.id, run.codebase, run.suite, run.result_code, run.start_time,
        run.resume_from
    FROM chain
    -- By its index, whatever the planner thinks of the number of rows.
    CROSS JOIN LATERAL (SELECT * FROM run WHERE run.id = chain.resume_from OFFSET 0) AS run
    WHERE chain.place < $2
)
SELECT id, codebase, suite, coalesce(result_code, ''), start_time, resume_from
FROM chain
WHERE place > 0
ORDER BY place
