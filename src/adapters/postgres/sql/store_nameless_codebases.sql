-- Stores codebases without a name, by branch URL and subpath.
WITH new AS MATERIALIZED (SELECT * FROM json_to_recordset($1::json) AS row (
    name text, branch_url text, url text, branch text, subpath text, vcs_type vcs_type,
    vcs_last_revision text, value int, web_url text)
),
-- Updates those that are there already.
changed AS (
    UPDATE codebase AS known
    SET url = new.url, branch = new.branch, vcs_type = new.vcs_type,
        vcs_last_revision = new.vcs_last_revision, value = new.value, web_url = new.web_url
    FROM new
    WHERE known.name IS NULL
        AND known.branch_url = new.branch_url
        AND known.subpath IS NOT DISTINCT FROM new.subpath
    RETURNING known.branch_url, known.subpath
)
INSERT INTO codebase (
    name, branch_url, url, branch, subpath, vcs_type, vcs_last_revision, value, web_url)
SELECT new.* FROM new
WHERE NOT EXISTS (
    SELECT FROM changed
    WHERE changed.branch_url = new.branch_url AND changed.subpath IS NOT DISTINCT FROM new.subpath)
