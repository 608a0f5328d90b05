SELECT id::bigint
FROM queue
WHERE codebase = $1 AND suite || '' = $2 AND coalesce(change_set, '') = coalesce($3, '')
