-- The runs of pairs that count for estimates: ended, and not failed transiently. Those that lacked
-- dependencies come with them.
SELECT wanted.codebase, wanted.campaign, run.result_code, run.start_time,
    extract(epoch from run.finish_time - run.start_time)::float8, run.instigated_context,
    run.context,
    CASE run.result_code WHEN 'install-deps-unsatisfied-dependencies'
        THEN run.failure_details -> 'relations'
    END::text
FROM unnest($1::text[], $2::text[]) AS wanted (codebase, campaign)
CROSS JOIN LATERAL (
    SELECT * FROM run
    WHERE codebase = wanted.codebase AND suite || '' = wanted.campaign
    OFFSET 0
) AS run
WHERE run.failure_transient IS NOT TRUE
    AND run.start_time IS NOT NULL
    AND run.finish_time IS NOT NULL
