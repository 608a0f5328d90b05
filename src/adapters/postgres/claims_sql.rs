//! The statements that pick items from the queue, and claim them.

/// An item as the domain's own JSON.
macro_rules! item_json {
    ($row:literal) => {
        concat!(
            "jsonb_build_object('id', ",
            $row,
            ".id, 'codebase', ",
            $row,
            ".codebase, 'campaign', ",
            $row,
            ".suite, 'change_set', ",
            $row,
            ".change_set, 'bucket', ",
            $row,
            ".bucket, 'priority', ",
            $row,
            ".priority, 'command', coalesce(",
            $row,
            ".command, ''), 'context', ",
            $row,
            ".context, 'estimated_duration', extract(epoch from ",
            $row,
            ".estimated_duration)::float8, 'refresh', coalesce(",
            $row,
            ".refresh, false), 'requester', ",
            $row,
            ".requester)"
        )
    };
}

/// A codebase as the domain's own JSON.
macro_rules! codebase_json {
    ($row:literal) => {
        concat!(
            "json_build_object('name', ",
            $row,
            ".name, 'branch_url', ",
            $row,
            ".branch_url, 'url', ",
            $row,
            ".url, 'branch', ",
            $row,
            ".branch, 'subpath', ",
            $row,
            ".subpath, 'vcs_type', ",
            $row,
            ".vcs_type, 'vcs_last_revision', ",
            $row,
            ".vcs_last_revision, 'value', ",
            $row,
            ".value, 'web_url', ",
            $row,
            ".web_url)"
        )
    };
}
pub(super) use {codebase_json, item_json};

/// What nothing more may be handed out of: $2 now, $12 whether limits can be kept, the statement being alone.
macro_rules! stopped {
    () => {
        "room AS MATERIALIZED (
            SELECT kind, name, most - CASE kind
                WHEN 'campaign' THEN (SELECT count(*) FROM runner_claim WHERE item ->> 'campaign' = runner_limit.name)
                ELSE (SELECT count(*) FROM runner_claim WHERE host = runner_limit.name) END AS room
            FROM runner_limit
        ),
        stopped AS MATERIALIZED (
            SELECT kind, name FROM runner_pause WHERE until IS NULL OR until > $2
            UNION ALL SELECT kind, name FROM room WHERE room <= 0
            UNION ALL SELECT 'all', '' WHERE NOT $12::bool AND EXISTS (SELECT FROM room)
        )"
    };
}

/// The items that a filter lets through and that nobody holds, in order. $1 how many, $2 now, $3 hosts to avoid,
/// $4 campaign, $5 to $7 keys to leave out, $8 codebase (only where the condition names it), $9 to $11 the place in the
/// order after which to look.
macro_rules! open_items {
    ($codebase:literal, $order:literal, $lock:literal) => {
        concat!(
            "WITH ",
            stopped!(),
            ",
            closed AS MATERIALIZED (
                SELECT
                    (SELECT array_agg(host) FROM (
                        SELECT host FROM runner_host_limit WHERE until > $2 UNION SELECT unnest($3::text[])
                        UNION SELECT name FROM stopped WHERE kind = 'host') AS limited (host)) AS hosts,
                    (SELECT array_agg(name) FROM stopped WHERE kind = 'campaign') AS campaigns,
                    (SELECT array_agg(name) FROM stopped WHERE kind = 'codebase') AS codebases,
                    (SELECT array_agg(name) FROM stopped WHERE kind = 'bucket') AS buckets,
                    EXISTS (SELECT FROM stopped WHERE kind = 'all') AS everything
            ),
            picked AS MATERIALIZED (
                SELECT item.* FROM queue AS item
                WHERE NOT (SELECT everything FROM closed)
                    AND (SELECT claim.run_id FROM runner_claim AS claim WHERE claim.queue_id = item.id) IS NULL
                    AND (SELECT true FROM runner_item AS state WHERE state.queue_id = item.id AND (state.parked OR state.not_before > $2)) IS NULL
                    AND ($4::text IS NULL OR item.suite::text = $4)",
            $codebase,
            "
                    AND (cardinality($5::text[]) = 0 OR (item.codebase::text, item.suite::text, coalesce(item.change_set, '')) NOT IN
                        (SELECT * FROM unnest($5::text[], $6::text[], $7::text[])))
                    AND ((SELECT campaigns FROM closed) IS NULL OR item.suite::text <> ALL ((SELECT campaigns FROM closed)::text[]))
                    AND ((SELECT codebases FROM closed) IS NULL OR item.codebase::text <> ALL ((SELECT codebases FROM closed)::text[]))
                    AND ((SELECT buckets FROM closed) IS NULL OR item.bucket::text <> ALL ((SELECT buckets FROM closed)::text[]))
                    AND ((SELECT hosts FROM closed) IS NULL OR NOT coalesce(
                        (SELECT substring(place.branch_url from '://(?:[^/@]*@)?([^/]+)') FROM codebase AS place WHERE place.name = item.codebase)
                            = ANY ((SELECT hosts FROM closed)::text[]), false))
                ORDER BY ",
            $order,
            " LIMIT $1",
            $lock,
            ")"
        )
    };
}

/// $13 to $18: who asks. Of the items picked, those go that their limits have room for, to those whose worker is not paused.
macro_rules! claim_sql {
    ($codebase:literal, $order:literal) => {
        concat!(
            open_items!($codebase, $order, " FOR UPDATE OF item SKIP LOCKED"),
            ", asking AS (
                SELECT wanted.*, row_number() OVER (ORDER BY place) AS seat
                FROM unnest($13::text[], $14::text[], $15::text[], $16::timestamp[], $17::text[], $18::timestamp[]) WITH ORDINALITY
                    AS wanted (run_id, token, claimant, now, worker, lease_until, place)
                WHERE NOT EXISTS (SELECT FROM stopped WHERE kind = 'worker' AND name = wanted.worker)
            ),
            placed AS (
                SELECT picked.*, (SELECT substring(place.branch_url from '://(?:[^/@]*@)?([^/]+)') FROM codebase AS place WHERE place.name = picked.codebase) AS host
                FROM picked
            ),
            ranked AS (
                SELECT placed.*, row_number() OVER (PARTITION BY suite ORDER BY bucket, priority, id) AS of_campaign,
                    row_number() OVER (PARTITION BY host ORDER BY bucket, priority, id) AS of_host
                FROM placed
            ),
            fitting AS (
                SELECT ranked.*, row_number() OVER (ORDER BY bucket, priority, id) AS seat FROM ranked
                WHERE coalesce(of_campaign <= (SELECT room FROM room WHERE kind = 'campaign' AND name = ranked.suite::text), true)
                    AND coalesce(of_host <= (SELECT room FROM room WHERE kind = 'host' AND name = ranked.host), true)
            ),
            claimed AS (
                INSERT INTO runner_claim (run_id, queue_id, token, claimant, item, start_time, keepalive, vcs, host, lease_until)
                SELECT asking.run_id, fitting.id, asking.token, asking.claimant::jsonb, ",
            item_json!("fitting"),
            ", asking.now, asking.now, '{}', fitting.host, asking.lease_until
                FROM fitting JOIN asking USING (seat)
                ON CONFLICT (queue_id) DO NOTHING
                RETURNING run_id, item
            )
            SELECT (SELECT count(*) FROM picked) AS picked, (SELECT count(*) FROM asking) AS asked, EXISTS (SELECT FROM room) AS limited,
                claimed.run_id, claimed.item::text AS item, ",
            codebase_json!("codebase"),
            "::text AS codebase
            FROM (VALUES (1)) AS always LEFT JOIN claimed ON true
            LEFT JOIN LATERAL (SELECT * FROM codebase WHERE codebase.name = claimed.item ->> 'codebase' OFFSET 0) AS codebase ON true"
        )
    };
}

macro_rules! peek_sql {
    ($codebase:literal, $order:literal) => {
        concat!(
            open_items!($codebase, $order, ""),
            "SELECT ",
            item_json!("picked"),
            "::text AS item, ",
            codebase_json!("codebase"),
            "::text AS codebase FROM picked CROSS JOIN LATERAL (SELECT * FROM codebase WHERE codebase.name = picked.codebase OFFSET 0) AS codebase"
        )
    };
}

/// The statements differ in the condition on the codebase, so that each has a plan of its own: one goes through the queue in its
/// order, the other sorts the few items of a codebase. Its order is one that no index has, or it might go through the queue too.
macro_rules! of_a_codebase_or_all {
    ($statement:ident, $one_codebase:expr) => {
        if $one_codebase {
            $statement!(
                " AND item.codebase::text = $8::text AND ($9::queue_bucket, $10::bigint, $11::bigint) IS NOT NULL",
                "(item.bucket, item.priority, item.id)"
            )
        } else {
            $statement!(
                " AND $8::text IS NULL AND (item.bucket, item.priority, item.id) > ($9::queue_bucket, $10::bigint, $11::bigint)",
                "item.bucket, item.priority, item.id"
            )
        }
    };
}

pub(super) fn claim_sql(one_codebase: bool) -> &'static str {
    of_a_codebase_or_all!(claim_sql, one_codebase)
}

pub(super) fn peek_sql(one_codebase: bool) -> &'static str {
    of_a_codebase_or_all!(peek_sql, one_codebase)
}
