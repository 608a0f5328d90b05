-- The candidates with these keys, looked up one by one.
SELECT DISTINCT ON (candidate.id) json_build_object(
        'id', candidate.id, 'codebase', candidate.codebase, 'campaign', candidate.suite,
        'change_set', candidate.change_set, 'command', candidate.command,
        'context', candidate.context, 'value', candidate.value,
        'success_chance', candidate.success_chance,
        'publish_policy', candidate.publish_policy)::text
FROM unnest($1::text[], $2::text[], $3::text[]) AS wanted (codebase, campaign, change_set)
CROSS JOIN LATERAL (
    SELECT * FROM candidate
    WHERE codebase = wanted.codebase
        AND suite || '' = wanted.campaign
        AND coalesce(change_set, '') = wanted.change_set
    OFFSET 0
) AS candidate
