-- Claims the first items of the queue that a filter lets through and that nobody holds.
--
-- $1 number of items, $2 now, $3 hosts to avoid, $4 campaign, $5 to $7 keys to leave out
-- (codebases, campaigns, change sets), $8 codebase, $9 to $11 the queue position to start after,
-- $12 whether limits can be kept because the statement runs alone, $13 to $19 the requests.
--
-- For one codebase there is `claim_next_of_codebase.sql`, so that each has a plan of its own: this
-- one walks the index of the queue's order, the other sorts the few items of a codebase.

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
-- The first items in queue order that may be claimed. Rows that another claim has locked are
-- skipped.
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
        AND $8::text IS NULL
        AND (item.bucket, item.priority, item.id) > ($9::queue_bucket, $10::bigint, $11::bigint)
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
    ORDER BY item.bucket, item.priority, item.id
    LIMIT $1
    FOR UPDATE OF item SKIP LOCKED
),
-- The requests of workers that are not paused, numbered in their order.
requests AS (
    SELECT request.*, row_number() OVER (ORDER BY place) AS slot
    FROM unnest(
        $13::text[], $14::text[], $15::text[], $16::timestamp[], $17::text[], $18::timestamp[],
        $19::text[]
    ) WITH ORDINALITY AS request (
        run_id, token, claimant, now, worker, lease_until, counted_name, place)
    WHERE NOT EXISTS (
        SELECT FROM blocked_scopes
        WHERE kind = 'worker' AND name IN (request.worker, request.counted_name))
),
-- The candidates with the hosts of their codebases.
with_host AS (
    SELECT candidates.*, (
            SELECT runner_host(codebase.branch_url)
            FROM codebase WHERE codebase.name = candidates.codebase
        ) AS host
    FROM candidates
),
-- The rank of each candidate among those that count towards the same limit.
ranked AS (
    SELECT with_host.*,
        row_number() OVER (PARTITION BY suite ORDER BY bucket, priority, id) AS of_campaign,
        row_number() OVER (PARTITION BY host ORDER BY bucket, priority, id) AS of_host
    FROM with_host
),
-- The candidates that the limits leave capacity for, numbered in queue order.
within_limits AS (
    SELECT ranked.*, row_number() OVER (ORDER BY bucket, priority, id) AS slot
    FROM ranked
    WHERE coalesce(
            of_campaign <= (
                SELECT free FROM capacity WHERE kind = 'campaign' AND name = ranked.suite::text),
            true)
        AND coalesce(
            of_host <= (SELECT free FROM capacity WHERE kind = 'host' AND name = ranked.host),
            true)
),
-- The claims: each request gets the item of its slot. A claim that was committed after this
-- statement's snapshot was taken makes the insert of that item do nothing.
claimed AS (
    INSERT INTO runner_active_run (
        run_id, queue_id, token, claimant, item, start_time, keepalive, vcs, host, lease_until)
    SELECT requests.run_id, item.id, requests.token, requests.claimant::jsonb,
        jsonb_build_object(
            'id', item.id, 'codebase', item.codebase, 'campaign', item.suite,
            'change_set', item.change_set, 'bucket', item.bucket, 'priority', item.priority,
            'command', coalesce(item.command, ''), 'context', item.context,
            'estimated_duration', extract(epoch from item.estimated_duration)::float8,
            'refresh', coalesce(item.refresh, false), 'requester', item.requester),
        requests.now, requests.now, '{}', item.host, requests.lease_until
    FROM within_limits AS item JOIN requests USING (slot)
    ON CONFLICT (queue_id) DO NOTHING
    RETURNING run_id, item
)
-- One row for each claim, or one without a claim: the counts are returned in any case.
SELECT (SELECT count(*) FROM candidates) AS candidates,
    (SELECT count(*) FROM requests) AS requests,
    EXISTS (SELECT FROM capacity) AS limited,
    claimed.run_id,
    claimed.item::text AS item,
    json_build_object(
        'name', codebase.name, 'branch_url', codebase.branch_url, 'url', codebase.url,
        'branch', codebase.branch, 'subpath', codebase.subpath, 'vcs_type', codebase.vcs_type,
        'vcs_last_revision', codebase.vcs_last_revision, 'value', codebase.value,
        'web_url', codebase.web_url)::text AS codebase
FROM (VALUES (1)) AS always
LEFT JOIN claimed ON true
LEFT JOIN LATERAL (
    SELECT * FROM codebase WHERE codebase.name = claimed.item ->> 'codebase' OFFSET 0
) AS codebase ON true
