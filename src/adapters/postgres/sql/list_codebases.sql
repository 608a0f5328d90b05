-- The codebases in the order in which they were first uploaded, $1 of them. Those that other
-- services inserted have no sequence and come first; those without a name come last.
SELECT json_build_object(
        'name', codebase.name, 'branch_url', codebase.branch_url, 'url', codebase.url,
        'branch', codebase.branch, 'subpath', codebase.subpath, 'vcs_type', codebase.vcs_type,
        'vcs_last_revision', codebase.vcs_last_revision, 'value', codebase.value,
        'web_url', codebase.web_url)::text
FROM codebase
LEFT JOIN LATERAL (
    SELECT sequence FROM runner_codebase WHERE name = codebase.name OFFSET 0
) AS known ON true
ORDER BY codebase.name IS NULL, known.sequence NULLS FIRST, codebase.name::text COLLATE "C",
    codebase.branch_url, codebase.subpath
LIMIT $1
