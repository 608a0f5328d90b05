-- Puts a late result in the place of the run of its id, whose branches and builds are deleted by
-- then. The CTEs that `store_runs.sql` has too are the same there.

-- The run as the caller describes it.
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
-- All of it: whether it may be stored was checked before.
new AS MATERIALIZED (SELECT * FROM given),
-- What says who ran it and why stays, and so does the publish status.
replaced AS (
    UPDATE run
    SET command = new.command, description = new.description, start_time = new.start_time,
        finish_time = new.finish_time, result_code = new.result_code, context = new.context,
        main_branch_revision = new.main_branch_revision, revision = new.revision,
        result = new.result, vcs_type = new.vcs_type, branch_url = new.branch_url,
        logfilenames = new.logfilenames, value = new.value,
        result_tags = (
            SELECT coalesce(array_agg(ROW(actual_name, tag.revision)::result_tag), '{}')
            FROM json_to_recordset(tags) AS tag (actual_name text, revision text)
        ),
        subpath = new.subpath, failure_stage = new.failure_stage,
        failure_details = new.failure_details, target_branch_url = new.target_branch_url,
        failure_transient = new.failure_transient, resume_from = new.resume_from
    FROM new
    WHERE run.id = new.id AND run.id = ANY (ARRAY(SELECT id FROM new))
),
-- A new sequence number makes it the latest of the stored runs.
runner_runs AS (
    UPDATE runner_run
    SET facts = new.facts, stored = new.stored,
        sequence = nextval(pg_get_serial_sequence('runner_run', 'sequence'))
    FROM new
    WHERE runner_run.run_id = new.id
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
-- The schedules that are to be made because the run ended.
follow_ups AS (
    INSERT INTO runner_follow_up (run_id, codebase, campaign, change_set, context)
    SELECT id, codebase, suite, own_change_set, context FROM new WHERE requeue_state IS NULL
),
-- The events that are to be published.
outbox_entries AS (INSERT INTO runner_outbox (run_id) SELECT id FROM new)
SELECT id FROM new
