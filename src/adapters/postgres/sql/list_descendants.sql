-- The runs of the codebase $1 and campaign $2 that resumed from the run $3, the oldest first, $4 of
-- them after the run that started at $5 and has the id $6, if there is one. The pair has an index;
-- what a run resumed from has none.
SELECT id
FROM run
WHERE codebase = $1 AND suite || '' = $2 AND resume_from = $3
    AND ($6::text IS NULL OR (start_time, id) > ($5, $6))
ORDER BY start_time, id
LIMIT $4
