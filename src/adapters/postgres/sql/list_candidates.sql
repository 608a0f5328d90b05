-- The candidates, by id, $1 of them; $2 is null.
SELECT json_build_object(
        'id', candidate.id, 'codebase', candidate.codebase, 'campaign', candidate.suite,
        'change_set', candidate.change_set, 'command', candidate.command,
        'context', candidate.context, 'value', candidate.value,
        'success_chance', candidate.success_chance,
        'publish_policy', candidate.publish_policy)::text
FROM candidate
WHERE $2::text IS NULL
ORDER BY candidate.id
LIMIT $1
