-- The candidates of the codebase $2, by id, $1 of them.
SELECT json_build_object(
        'id', candidate.id, 'codebase', candidate.codebase, 'campaign', candidate.suite,
        'change_set', candidate.change_set, 'command', candidate.command,
        'context', candidate.context, 'value', candidate.value,
        'success_chance', candidate.success_chance,
        'publish_policy', candidate.publish_policy)::text
FROM candidate
WHERE candidate.codebase::text = $2
ORDER BY (candidate.id)
LIMIT $1
