-- A codebase of the list that is not stored, if any, and the smallest priority in the queue.
SELECT
    (
        SELECT wanted FROM unnest($1::text[]) AS wanted
        WHERE (SELECT true FROM codebase WHERE name = wanted) IS NULL
        LIMIT 1
    ),
    (SELECT min(priority) FROM queue)
