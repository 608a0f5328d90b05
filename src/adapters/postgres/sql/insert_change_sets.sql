INSERT INTO change_set (id, campaign)
SELECT DISTINCT ON (id) id, campaign
FROM unnest($1::text[], $2::text[]) AS new (id, campaign)
WHERE id IS NOT NULL
ORDER BY id
ON CONFLICT DO NOTHING
