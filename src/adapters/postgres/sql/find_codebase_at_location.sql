-- A codebase that has the location of one of the list, and another name.
SELECT wanted.url, wanted.subpath, coalesce(known.name::text, 'without a name')
FROM unnest($1::text[], $2::text[], $3::text[]) AS wanted (url, subpath, name)
JOIN codebase AS known
    ON known.branch_url = wanted.url
    AND known.subpath = wanted.subpath
    AND known.name::text IS DISTINCT FROM wanted.name
LIMIT 1
