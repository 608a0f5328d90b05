SELECT wanted
FROM unnest($1::text[]) AS wanted
WHERE (SELECT true FROM run WHERE id = wanted) IS NULL
LIMIT 1
