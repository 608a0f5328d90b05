-- Stores what a probe found: with the active run $1 that the token $2 holds, the branch $3 and the
-- run $4 that it resumes from.

-- The active run.
WITH active AS (
    SELECT item ->> 'codebase' AS codebase FROM runner_active_run
    WHERE run_id = $1 AND token = $2
),
-- Its codebase, which had no type so far.
learnt AS (
    UPDATE codebase SET vcs_type = ($3::jsonb ->> 'vcs_type')::vcs_type
    WHERE name = (SELECT codebase FROM active) AND vcs_type IS NULL AND branch_url IS NOT NULL
)
UPDATE runner_active_run SET vcs = $3::jsonb, resume_from = $4
WHERE run_id = $1 AND token = $2
