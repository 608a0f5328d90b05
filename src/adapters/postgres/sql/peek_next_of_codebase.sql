-- Returns the item that `claim_next_of_codebase.sql` would claim, with its codebase.
--
-- The parameters $1 to $12 are those of `claim_next.sql`.

-- The capacity that is free under each concurrency limit.
WITH capacity AS MATERIALIZED (
    SELECT kind, name, max_running - CASE kind
            WHEN 'campaign' THEN (
                SELECT count(*) FROM runner_active_run
                WHERE item ->> 'campaign' = runner_limit.name)
            ELSE (SELECT count(*) FROM runner_active_run WHERE host = runner_limit.name)
        END AS free
    FROM runner_limit
),
-- The scopes that nothing may be claimed of: paused, or at their limit. Everything is blocked while
-- there are limits and the statement does not run alone, since two could see the same capacity.
blocked_scopes AS MATERIALIZED (
    SELECT kind, name FROM runner_pause WHERE until IS NULL OR until > $2
    UNION ALL SELECT kind, name FROM capacity WHERE free <= 0
    UNION ALL SELECT 'all', '' WHERE NOT $12::bool AND EXISTS (SELECT FROM capacity)
),
-- The blocked scopes as one row of arrays, with the hosts that are backing off or to be avoided.
blocked AS MATERIALIZED (
    SELECT
        (SELECT array_agg(host) FROM (
            SELECT host FROM runner_host_backoff WHERE until > $2
            UNION SELECT unnest($3::text[])
            UNION SELECT name FROM blocked_scopes WHERE kind = 'host') AS of_host (host)) AS hosts,
        (SELECT array_agg(name) FROM blocked_scopes WHERE kind = 'campaign') AS campaigns,
        (SELECT array_agg(name) FROM blocked_scopes WHERE kind = 'codebase') AS codebases,
        (SELECT array_agg(name) FROM blocked_scopes WHERE kind = 'bucket') AS buckets,
        EXISTS (SELECT FROM blocked_scopes WHERE kind = 'all') AS everything
),
-- The first items in queue order that may be claimed.
candidates AS MATERIALIZED (
    SELECT item.* FROM queue AS item
    WHERE NOT (SELECT everything FROM blocked)
        AND (
            SELECT active.run_id FROM runner_active_run AS active WHERE active.queue_id = item.id
        ) IS NULL
        AND (
            SELECT true FROM runner_item AS state
            WHERE state.queue_id = item.id AND (state.parked OR state.not_before > $2)
        ) IS NULL
        AND ($4::text IS NULL OR item.suite::text = $4)
        AND item.codebase::text = $8::text
        AND ($9::queue_bucket, $10::bigint, $11::bigint) IS NOT NULL
        AND (
            cardinality($5::text[]) = 0
            OR (item.codebase::text, item.suite::text, coalesce(item.change_set, '')) NOT IN (
                SELECT * FROM unnest($5::text[], $6::text[], $7::text[])))
        AND (
            (SELECT campaigns FROM blocked) IS NULL
            OR item.suite::text <> ALL ((SELECT campaigns FROM blocked)::text[]))
        AND (
            (SELECT codebases FROM blocked) IS NULL
            OR item.codebase::text <> ALL ((SELECT codebases FROM blocked)::text[]))
        AND (
            (SELECT buckets FROM blocked) IS NULL
            OR item.bucket::text <> ALL ((SELECT buckets FROM blocked)::text[]))
        AND (
            (SELECT hosts FROM blocked) IS NULL
            OR NOT coalesce(
                (
                    SELECT runner_host(codebase.branch_url)
                    FROM codebase WHERE codebase.name = item.codebase
                ) = ANY ((SELECT hosts FROM blocked)::text[]),
                false))
    ORDER BY (item.bucket, item.priority, item.id)
    LIMIT $1
)
SELECT jsonb_build_object(
        'id', item.id, 'codebase', item.codebase, 'campaign', item.suite,
        'change_set', item.change_set, 'bucket', item.bucket, 'priority', item.priority,
        'command', coalesce(item.command, ''), 'context', item.context,
        'estimated_duration', extract(epoch from item.estimated_duration)::float8,
        'refresh', coalesce(item.refresh, false), 'requester', item.requester)::text AS item,
    json_build_object(
        'name', codebase.name, 'branch_url', codebase.branch_url, 'url', codebase.url,
        'branch', codebase.branch, 'subpath', codebase.subpath, 'vcs_type', codebase.vcs_type,
        'vcs_last_revision', codebase.vcs_last_revision, 'value', codebase.value,
        'web_url', codebase.web_url)::text AS codebase
FROM candidates AS item
CROSS JOIN LATERAL (
    SELECT * FROM codebase WHERE codebase.name = item.codebase OFFSET 0
) AS codebase
