-- The blocks of a log from the one that holds offset $3 on, at most $4. A log without such blocks
-- is one row without a block.
SELECT log.size, block.start, block.content
FROM runner_live_log AS log
LEFT JOIN LATERAL (
    SELECT start, content FROM runner_live_block
    WHERE run_id = $1 AND name = $2 AND start >= coalesce(
        (
            SELECT max(start) FROM runner_live_block
            WHERE run_id = $1 AND name = $2 AND start <= $3
        ), 0)
    ORDER BY start
    LIMIT $4
) AS block ON true
WHERE log.run_id = $1 AND log.name = $2
ORDER BY block.start
