-- Stores runs with all that belongs to them, and returns which: those that are held with the right
-- token, and for whose items no request is pending. Locks the items first and then the claims.

-- The runs as the caller describes them, one row each.
WITH given AS MATERIALIZED (
    SELECT * FROM json_to_recordset($1::json) AS row (
        token text, id text, queue_id bigint, codebase text, suite text, change_set text,
        command text, result_code text, description text, start_time timestamp,
        finish_time timestamp, instigated_context text, context text, main_branch_revision text,
        revision text, result json, value int, vcs_type vcs_type, branch_url text, subpath text,
        target_branch_url text, worker text, worker_link text, failure_stage text,
        failure_details json, failure_transient bool, resume_from text,
        publish_status publish_status, logfilenames text[], facts jsonb, branches json, tags json,
        build json, own_change_set text, stored timestamp, requeue_state jsonb,
        requeue_not_before timestamp, requeue_parked bool, last_heartbeat timestamp,
        worker_at_fault bool, counted_name text)
),
-- Locks the items in the order of their ids, as all transactions do.
locked AS MATERIALIZED (
    SELECT id FROM queue
    WHERE id = ANY (ARRAY(SELECT queue_id FROM given))
    ORDER BY id
    FOR UPDATE
),
-- Locks the claims after the items: counting `locked` makes it run first.
held AS MATERIALIZED (
    SELECT run_id, token, keepalive FROM runner_active_run
    WHERE run_id = ANY (ARRAY(SELECT id FROM given))
        AND pending_enqueue IS NULL
        AND (SELECT count(*) FROM locked) >= 0
    ORDER BY queue_id
    FOR UPDATE
),
-- The runs that can be stored: with the right token, and no heartbeat later than the one given.
new AS MATERIALIZED (
    SELECT * FROM given
    WHERE EXISTS (
        SELECT FROM held
        WHERE held.run_id = given.id
            AND held.token = given.token
            AND (given.last_heartbeat IS NULL OR held.keepalive <= given.last_heartbeat))
),
-- The change sets that the runs are the first of.
change_sets AS (
    INSERT INTO change_set (id, campaign)
    SELECT DISTINCT ON (change_set) change_set, suite FROM new ORDER BY change_set
    ON CONFLICT DO NOTHING
),
-- The rows that the Janitor's other services read.
runs AS (
    INSERT INTO run (
        id, command, description, start_time, finish_time, result_code, instigated_context, context,
        main_branch_revision, revision, result, suite, vcs_type, branch_url, logfilenames,
        publish_status, value, worker, worker_link, result_tags, subpath, failure_stage,
        failure_details, target_branch_url, failure_transient, resume_from, change_set, codebase)
    SELECT id, command, description, start_time, finish_time, result_code, instigated_context,
        context, main_branch_revision, revision, result, suite, vcs_type, branch_url, logfilenames,
        publish_status, value, worker, worker_link,
        (
            SELECT coalesce(array_agg(ROW(actual_name, tag.revision)::result_tag), '{}')
            FROM json_to_recordset(tags) AS tag (actual_name text, revision text)
        ),
        subpath, failure_stage, failure_details, target_branch_url, failure_transient, resume_from,
        change_set, codebase
    FROM new
),
-- What `run` has no columns for.
runner_runs AS (
    INSERT INTO runner_run (run_id, stored, queue_id, facts)
    SELECT id, stored, queue_id, facts FROM new
),
-- The branches that the run changed.
branches AS (
    INSERT INTO new_result_branch (run_id, role, remote_name, base_revision, revision)
    SELECT new.id, branch.*
    FROM new, json_to_recordset(new.branches)
        AS branch (role text, remote_name text, base_revision text, revision text)
),
-- The packages that it built.
builds AS (
    INSERT INTO debian_build (
        run_id, version, distribution, source, binary_packages, lintian_result)
    SELECT new.id, build.*
    FROM new, json_to_recordset(new.build) AS build (
        version text, distribution text, source text, binary_packages text[], lintian_result json)
),
-- Items that are done leave the queue. An id that now belongs to another pair is left alone.
items AS (
    DELETE FROM queue
    WHERE id = ANY (ARRAY(SELECT queue_id FROM new WHERE requeue_state IS NULL))
        AND (id, codebase::text, suite::text) IN (SELECT queue_id, codebase, suite FROM new)
),
-- Their state of earlier runs goes with them.
item_states AS (
    DELETE FROM runner_item
    WHERE queue_id = ANY (ARRAY(SELECT queue_id FROM new WHERE requeue_state IS NULL))
),
-- The schedules that are to be made because the run ended, also where another service has deleted
-- the item that was to go back to the queue.
follow_ups AS (
    INSERT INTO runner_follow_up (run_id, codebase, campaign, change_set, context)
    SELECT id, codebase, suite, own_change_set, context FROM new
    WHERE requeue_state IS NULL OR queue_id NOT IN (SELECT id FROM locked)
),
-- The events that are to be published.
outbox_entries AS (INSERT INTO runner_outbox (run_id) SELECT id FROM new),
-- Items that go back to the queue are snoozed or parked there.
requeued AS (
    INSERT INTO runner_item (queue_id, state, not_before, parked)
    SELECT queue_id, requeue_state, requeue_not_before, requeue_parked
    FROM new WHERE requeue_state IS NOT NULL AND queue_id IN (SELECT id FROM locked)
    ON CONFLICT (queue_id) DO UPDATE
    SET state = excluded.state, not_before = excluded.not_before, parked = excluded.parked
),
-- The claims end.
released AS (
    DELETE FROM runner_active_run WHERE run_id = ANY (ARRAY(SELECT id FROM new))
),
-- Workers that did well start to count from zero.
cleared AS (
    UPDATE runner_worker SET failures = 0
    WHERE failures > 0
        AND name = ANY (ARRAY(SELECT counted_name FROM new WHERE worker_at_fault IS FALSE))
),
-- Failures of workers that were at fault are counted.
counted AS (
    INSERT INTO runner_worker AS known (name, failures)
    SELECT counted_name, count(*) FROM new
    WHERE worker_at_fault AND counted_name IS NOT NULL
    GROUP BY counted_name ORDER BY counted_name
    ON CONFLICT (name) DO UPDATE SET failures = known.failures + excluded.failures
)
SELECT id FROM new
