-- One rule for the host of a branch URL: the one of `domain/host.rs`, which a test compares with
-- this function. Two rules that this replaces missed `git@host:path`, upper case and ports.

-- The host in lower case, without a port or final dots; null where there is none. One expression of
-- which nothing is volatile or strict, so that Postgres puts it in the place of the call. The regular
-- expression, read from its start: not a file URL; then either a scheme and the user, up to the last
-- `@` of the authority, or, without a `://` anywhere, the user before a host that a colon follows;
-- and the host itself, an IPv6 literal in its brackets or a name. The collation keeps lower case and
-- character classes to ASCII, as the Rust function has them.
CREATE FUNCTION runner_host(url text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT nullif(lower(rtrim(substring(url COLLATE "C" from
        '(?i)^(?!(?:[^/]*[+])?file://)'
        '(?:[^/]+://(?:[^/?#]*@)?'
        '|(?!.*://)(?:[^/:,]*@)?(?=(?:\[[^]/?#@]*\]|[^][/?#:@,]+):))'
        '(\[[^]/?#@]*\]|[^][/?#:@,]*)'
    ), '.')), '')
$$;

UPDATE runner_active_run AS active
SET host = (
    SELECT runner_host(codebase.branch_url)
    FROM codebase WHERE codebase.name = active.item ->> 'codebase');

-- The names of hosts that people gave, as `host::normalize` writes them: a name is the authority of
-- a URL, and what cannot be a host is only put in lower case. Where two names become one, the later
-- end of the backoff, the longer pause and the smaller limit stay.
CREATE FUNCTION runner_host_name(name text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT coalesce(runner_host('name://' || name), lower(name COLLATE "C")) $$;

INSERT INTO runner_host_backoff AS known (host, until)
SELECT runner_host_name(host), max(until)
FROM runner_host_backoff WHERE host <> runner_host_name(host)
GROUP BY 1
ON CONFLICT (host) DO UPDATE SET until = greatest(known.until, excluded.until);
DELETE FROM runner_host_backoff WHERE host <> runner_host_name(host);

INSERT INTO runner_pause AS known (kind, name, reason, since, until)
SELECT DISTINCT ON (runner_host_name(name)) kind, runner_host_name(name), reason, since, until
FROM runner_pause WHERE kind = 'host' AND name <> runner_host_name(name)
ORDER BY runner_host_name(name), until DESC NULLS FIRST
ON CONFLICT (kind, name) DO UPDATE
SET reason = excluded.reason, since = excluded.since, until = excluded.until
WHERE excluded.until IS NULL OR excluded.until > known.until;
DELETE FROM runner_pause WHERE kind = 'host' AND name <> runner_host_name(name);

INSERT INTO runner_limit AS known (kind, name, max_running)
SELECT kind, runner_host_name(name), min(max_running)
FROM runner_limit WHERE kind = 'host' AND name <> runner_host_name(name)
GROUP BY kind, runner_host_name(name)
ON CONFLICT (kind, name) DO UPDATE
SET max_running = least(known.max_running, excluded.max_running);
DELETE FROM runner_limit WHERE kind = 'host' AND name <> runner_host_name(name);

DROP FUNCTION runner_host_name(text);
