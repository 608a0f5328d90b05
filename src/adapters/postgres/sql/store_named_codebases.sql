-- Stores codebases by name, in their order: one that moves away makes its place free for a later
-- one.
INSERT INTO codebase (
    name, branch_url, url, branch, subpath, vcs_type, vcs_last_revision, value, web_url)
SELECT * FROM json_to_recordset($1::json) AS row (
    name text, branch_url text, url text, branch text, subpath text, vcs_type vcs_type,
    vcs_last_revision text, value int, web_url text)
ON CONFLICT (name) DO UPDATE
SET branch_url = excluded.branch_url, url = excluded.url, branch = excluded.branch,
    subpath = excluded.subpath, vcs_type = excluded.vcs_type,
    vcs_last_revision = excluded.vcs_last_revision, value = excluded.value,
    web_url = excluded.web_url
