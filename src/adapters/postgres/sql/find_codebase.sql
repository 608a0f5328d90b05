SELECT json_build_object(
        'name', codebase.name, 'branch_url', codebase.branch_url, 'url', codebase.url,
        'branch', codebase.branch, 'subpath', codebase.subpath, 'vcs_type', codebase.vcs_type,
        'vcs_last_revision', codebase.vcs_last_revision, 'value', codebase.value,
        'web_url', codebase.web_url)::text
FROM codebase
WHERE name = $1
