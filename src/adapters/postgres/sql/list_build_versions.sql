-- The versions of a codebase that were built for a distribution, without an order: the column is
-- text where the type for versions is not installed.
SELECT DISTINCT build.version
FROM run
CROSS JOIN LATERAL (
    SELECT version::text, distribution FROM debian_build WHERE run_id = run.id OFFSET 0
) AS build
WHERE run.codebase = $1 AND build.distribution = $2
