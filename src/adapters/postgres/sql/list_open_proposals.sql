-- The commands of last effective runs that have an open merge proposal: one whose revision the run
-- or one of its branches has.
SELECT wanted.codebase, wanted.campaign, coalesce(run.command, '')
FROM unnest($1::text[], $2::text[]) AS wanted (codebase, campaign)
CROSS JOIN LATERAL (
    SELECT * FROM last_run
    WHERE codebase = wanted.codebase AND campaign = wanted.campaign
    OFFSET 0
) AS last
CROSS JOIN LATERAL (
    SELECT * FROM run WHERE id = last.last_effective_run_id OFFSET 0
) AS run
WHERE (
    SELECT count(*) FROM merge_proposal AS proposal
    WHERE proposal.status = 'open' AND proposal.revision = ANY (
        ARRAY(
            SELECT branch.revision FROM new_result_branch AS branch WHERE branch.run_id = run.id
        ) || run.revision)
) > 0
