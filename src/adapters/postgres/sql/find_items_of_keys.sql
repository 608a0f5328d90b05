-- The ids of the items with these keys, looked up one by one.
SELECT item.id::bigint
FROM unnest($1::text[], $2::text[], $3::text[]) AS wanted (codebase, campaign, change_set)
CROSS JOIN LATERAL (
    SELECT id FROM queue
    WHERE codebase = wanted.codebase
        AND suite || '' = wanted.campaign
        AND coalesce(change_set, '') = wanted.change_set
    OFFSET 0
) AS item
