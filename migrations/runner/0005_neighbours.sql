-- What other services write has the effect that the same wish has through the runner's API, and
-- `last_run` says what the Janitor's own function says.

-- Brings `last_run` up to date for some pairs, by the Janitor's own function where there is one, so
-- that nobody overwrites what it computes. Otherwise by the same rule. The last effective run: the
-- last by start time; when that is `nothing-new-to-do`, the run it resumed from; when it says that
-- it is transient, the latest that is neither. The last unabsorbed run: none when that is
-- `nothing-to-do`; itself when it failed otherwise, or when one of its branches is not absorbed.
-- The conditions and orders that no index fits are for the plans, as in `0002_watching.sql`.
CREATE OR REPLACE FUNCTION runner_refresh_last_run(codebases text[], campaigns text[])
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF to_regprocedure('refresh_last_run(text,text)') IS NOT NULL THEN
        EXECUTE 'SELECT refresh_last_run(codebase, campaign) FROM (
                SELECT DISTINCT codebase, campaign FROM unnest($1, $2) AS t (codebase, campaign)
                ORDER BY codebase, campaign) AS pair'
            USING codebases, campaigns;
        RETURN;
    END IF;
    WITH pair AS (
        SELECT DISTINCT codebase, campaign FROM unnest(codebases, campaigns) AS t (codebase, campaign)
    ),
    effective AS (
        SELECT pair.codebase, pair.campaign, last.id AS last_run_id,
            CASE
                WHEN last.result_code = 'nothing-new-to-do' THEN last.resume_from
                WHEN last.failure_transient THEN (
                    SELECT id FROM run
                    WHERE codebase = pair.codebase AND suite || '' = pair.campaign
                        AND failure_transient IS NOT TRUE AND start_time IS NOT NULL
                        AND result_code <> 'nothing-new-to-do'
                    ORDER BY (start_time, id) DESC LIMIT 1)
                ELSE last.id
            END AS run_id
        FROM pair CROSS JOIN LATERAL (
            SELECT id, result_code, resume_from, failure_transient FROM run
            WHERE codebase = pair.codebase AND suite || '' = pair.campaign
                AND start_time IS NOT NULL
            ORDER BY (start_time, id) DESC LIMIT 1) AS last
    )
    INSERT INTO last_run AS known (
        codebase, campaign, last_run_id, last_effective_run_id, last_unabsorbed_run_id)
    SELECT codebase, campaign, last_run_id, run_id,
        (
            SELECT run.id FROM run
            WHERE run.id = effective.run_id
                AND CASE
                    WHEN run.result_code = 'nothing-to-do' THEN false
                    WHEN run.result_code = 'success' THEN EXISTS (
                        SELECT FROM new_result_branch AS branch
                        WHERE branch.run_id = effective.run_id AND branch.absorbed IS NOT TRUE)
                    ELSE true
                END
        )
    FROM effective
    ORDER BY codebase, campaign
    ON CONFLICT (codebase, campaign) DO UPDATE
    SET last_run_id = excluded.last_run_id,
        last_effective_run_id = excluded.last_effective_run_id,
        last_unabsorbed_run_id = excluded.last_unabsorbed_run_id
    WHERE (known.last_run_id, known.last_effective_run_id, known.last_unabsorbed_run_id)
        IS DISTINCT FROM (
            excluded.last_run_id, excluded.last_effective_run_id, excluded.last_unabsorbed_run_id);
END $$;

-- What earlier versions of this function wrote for runs of this runner.
SELECT runner_refresh_last_run(array_agg(codebase::text), array_agg(campaign::text))
FROM last_run
WHERE last_unabsorbed_run_id IS NULL
    AND EXISTS (SELECT FROM runner_run WHERE runner_run.run_id = last_run.last_run_id)
HAVING count(*) > 0;

-- Has the state of change sets follow their runs, by the Janitor's own function where there is one.
-- Its failure is no reason not to store a run.
CREATE FUNCTION runner_refresh_change_sets(change_sets text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF to_regprocedure('refresh_change_set_state(text)') IS NULL THEN
        RETURN;
    END IF;
    EXECUTE 'SELECT refresh_change_set_state(id) FROM (
            SELECT id FROM change_set WHERE id = ANY ($1) ORDER BY id) AS known'
        USING change_sets;
EXCEPTION WHEN OTHERS THEN
    RAISE LOG 'runner: the state of change sets % stays: %', change_sets, SQLERRM;
END $$;

-- The triggers on the Janitor's tables. None of them can make a statement fail, none waits for a
-- lock of the queue, and none does anything for the runner's own connections, which set
-- `runner.own`. They run as the owner of these tables: other services may have no right to them.

-- Queued again: neither parked nor snoozed any more; or, while a worker holds the item, a request
-- that is merged when its run ends. The row of the queue is locked by the update, so that the active
-- run is locked after it, as everywhere.
CREATE FUNCTION runner_queue_updated() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    held record;
BEGIN
    SELECT run_id, pending_enqueue AS pending INTO held
    FROM runner_active_run WHERE queue_id = NEW.id FOR UPDATE;
    IF NOT FOUND THEN
        IF NEW.bucket < OLD.bucket OR NEW.bucket = 'manual' OR NEW.priority < OLD.priority
            OR (NEW.command, NEW.context, NEW.refresh)
                IS DISTINCT FROM (OLD.command, OLD.context, OLD.refresh)
        THEN
            DELETE FROM runner_item WHERE queue_id = NEW.id;
        END IF;
        PERFORM pg_notify('runner_queue', '0 ?');
    -- As `EnqueueRequest::coalesce` has it: a later bucket changes nothing, and in the same bucket
    -- the smaller priority stays.
    ELSIF held.pending IS NULL OR (held.pending ->> 'bucket')::queue_bucket >= NEW.bucket THEN
        UPDATE runner_active_run
        SET pending_enqueue = jsonb_build_object(
            'codebase', NEW.codebase, 'campaign', NEW.suite, 'change_set', NEW.change_set,
            'bucket', NEW.bucket,
            'offset', least(
                (NEW.priority - coalesce((SELECT min(priority) FROM queue), 0))::float8,
                CASE WHEN held.pending ->> 'bucket' = NEW.bucket::text
                    THEN (held.pending ->> 'offset')::float8
                END),
            'command', coalesce(NEW.command, ''), 'context', NEW.context,
            'estimated_duration', extract(epoch from NEW.estimated_duration)::float8,
            'refresh', coalesce(NEW.refresh, false), 'requester', NEW.requester)
        WHERE run_id = held.run_id;
    END IF;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    RAISE LOG 'runner: the update of item % has no effect on it: %', NEW.id, SQLERRM;
    RETURN NULL;
END $$;
CREATE TRIGGER runner_queue_updated AFTER UPDATE ON queue FOR EACH ROW
    WHEN (current_setting('runner.own', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION runner_queue_updated();

-- New items: workers that wait are to look.
CREATE FUNCTION runner_queue_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('runner_queue', '0 ?');
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;
END $$;
CREATE TRIGGER runner_queue_inserted AFTER INSERT ON queue FOR EACH STATEMENT
    WHEN (current_setting('runner.own', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION runner_queue_inserted();

-- Removed items: what was known of them goes too. A run of one goes on, and is stored when it ends.
CREATE FUNCTION runner_queue_deleted() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM runner_item WHERE queue_id = OLD.id;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    RAISE LOG 'runner: the state of the deleted item % stays: %', OLD.id, SQLERRM;
    RETURN NULL;
END $$;
CREATE TRIGGER runner_queue_deleted AFTER DELETE ON queue FOR EACH ROW
    WHEN (current_setting('runner.own', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION runner_queue_deleted();

-- Deleted candidates: their items leave the queue unless a worker holds them. At the end of the
-- transaction, since one that replaces candidates deletes them and inserts them again.
CREATE FUNCTION runner_candidate_deleted() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    found_id bigint;
BEGIN
    PERFORM FROM candidate
    WHERE codebase = OLD.codebase AND suite = OLD.suite
        AND coalesce(change_set, '') = coalesce(OLD.change_set, '');
    IF FOUND THEN
        RETURN NULL;
    END IF;
    -- A claim that is under way has the row locked, and then the item is held.
    SELECT id INTO found_id FROM queue
    WHERE codebase = OLD.codebase AND suite = OLD.suite
        AND coalesce(change_set, '') = coalesce(OLD.change_set, '')
    FOR UPDATE SKIP LOCKED;
    IF FOUND THEN
        DELETE FROM queue
        WHERE id = found_id AND NOT EXISTS (SELECT FROM runner_active_run WHERE queue_id = found_id);
    END IF;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    RAISE LOG 'runner: the item of the deleted candidate % stays: %', OLD.id, SQLERRM;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER runner_candidate_deleted AFTER DELETE ON candidate
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (current_setting('runner.own', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION runner_candidate_deleted();

-- Another publish status: an event for it.
CREATE FUNCTION runner_publish_status_updated() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO runner_outbox (run_id, publish_status) VALUES (NEW.id, NEW.publish_status);
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    RAISE LOG 'runner: no event for the publish status of run %: %', NEW.id, SQLERRM;
    RETURN NULL;
END $$;
CREATE TRIGGER runner_publish_status_updated AFTER UPDATE OF publish_status ON run FOR EACH ROW
    WHEN (OLD.publish_status IS DISTINCT FROM NEW.publish_status
        AND current_setting('runner.own', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION runner_publish_status_updated();

-- Branches that are absorbed, or not any more: `last_run` follows, where no trigger of the first
-- migration sees to it.
CREATE FUNCTION runner_branch_absorbed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM runner_refresh_last_run(ARRAY[codebase::text], ARRAY[suite::text])
    FROM run WHERE id = NEW.run_id;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    RAISE LOG 'runner: last_run does not follow the branches of run %: %', NEW.run_id, SQLERRM;
    RETURN NULL;
END $$;
DO $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_trigger
        WHERE tgname = 'last_run_update' AND tgrelid = 'new_result_branch'::regclass)
    THEN
        -- Its name has it run after the Janitor's own triggers, which go by name.
        CREATE TRIGGER runner_branch_absorbed AFTER UPDATE OF absorbed ON new_result_branch
            FOR EACH ROW WHEN (OLD.absorbed IS DISTINCT FROM NEW.absorbed)
            EXECUTE FUNCTION runner_branch_absorbed();
    END IF;
END $$;
