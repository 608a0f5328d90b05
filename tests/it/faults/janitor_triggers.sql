-- What the Janitor's own functions and triggers do, under their names and with their signatures: `last_run` and the states of
-- change sets follow each row of `run` when it is inserted, before its branches are, and each branch that is absorbed.
CREATE FUNCTION refresh_last_run(_codebase text, _campaign text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    newest run;
    effective run;
    unabsorbed text;
BEGIN
    SELECT * INTO newest FROM run WHERE codebase = _codebase AND suite = _campaign ORDER BY start_time DESC LIMIT 1;
    IF NOT FOUND THEN
        DELETE FROM last_run WHERE codebase = _codebase AND campaign = _campaign;
        RETURN;
    END IF;
    IF newest.result_code = 'nothing-new-to-do' THEN
        SELECT * INTO effective FROM run WHERE id = newest.resume_from;
    ELSIF newest.failure_transient THEN
        SELECT * INTO effective FROM run WHERE codebase = _codebase AND suite = _campaign
            AND failure_transient IS NOT TRUE AND result_code <> 'nothing-new-to-do' ORDER BY start_time DESC LIMIT 1;
    ELSE
        effective := newest;
    END IF;
    IF effective.result_code = 'success' THEN
        SELECT run_id INTO unabsorbed FROM new_result_branch WHERE run_id = effective.id AND NOT absorbed LIMIT 1;
    ELSIF effective.result_code <> 'nothing-to-do' THEN
        unabsorbed := effective.id;
    END IF;
    INSERT INTO last_run VALUES (_codebase, _campaign, newest.id, effective.id, unabsorbed)
    ON CONFLICT (codebase, campaign) DO UPDATE SET last_run_id = excluded.last_run_id,
        last_effective_run_id = excluded.last_effective_run_id, last_unabsorbed_run_id = excluded.last_unabsorbed_run_id;
END $$;
CREATE FUNCTION refresh_change_set_state(change_set_id text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    _state change_set_state;
BEGIN
    SELECT state INTO STRICT _state FROM change_set WHERE id = change_set_id;
    IF _state = 'created' AND EXISTS (SELECT FROM run WHERE change_set = change_set_id) THEN
        _state := 'working';
    END IF;
    IF _state = 'working' AND EXISTS (SELECT FROM run WHERE change_set = change_set_id AND result_code = 'success')
        AND NOT EXISTS (SELECT FROM candidate WHERE change_set = change_set_id AND NOT EXISTS (
            SELECT FROM last_effective_runs AS effective WHERE effective.change_set = change_set_id
                AND effective.codebase = candidate.codebase AND effective.suite = candidate.suite))
    THEN
        _state := 'ready';
    END IF;
    UPDATE change_set SET state = _state WHERE id = change_set_id AND state <> _state;
    RETURN _state;
END $$;
CREATE FUNCTION run_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- In this order: the state is that of before the run, since it looks at the last effective runs.
    PERFORM refresh_change_set_state(NEW.change_set);
    PERFORM refresh_last_run(NEW.codebase, NEW.suite);
    RETURN NEW;
END $$;
CREATE TRIGGER run_changed AFTER INSERT OR UPDATE ON run FOR EACH ROW EXECUTE FUNCTION run_changed();
CREATE FUNCTION branch_absorbed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM refresh_last_run(codebase, suite) FROM run WHERE id = NEW.run_id;
    RETURN NEW;
END $$;
CREATE TRIGGER branch_absorbed AFTER UPDATE ON new_result_branch FOR EACH ROW
    WHEN (NEW.absorbed AND NOT OLD.absorbed) EXECUTE FUNCTION branch_absorbed();
