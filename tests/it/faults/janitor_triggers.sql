CREATE FUNCTION refresh_last(_codebase text, _campaign text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO last_run (codebase, campaign, last_run_id, last_effective_run_id, last_unabsorbed_run_id)
    SELECT _codebase, _campaign, id, id, (SELECT run.id WHERE EXISTS (SELECT FROM new_result_branch WHERE run_id = run.id AND NOT absorbed))
    FROM run WHERE codebase = _codebase AND suite = _campaign ORDER BY start_time DESC LIMIT 1
    ON CONFLICT (codebase, campaign) DO UPDATE SET last_run_id = excluded.last_run_id,
        last_effective_run_id = excluded.last_effective_run_id, last_unabsorbed_run_id = excluded.last_unabsorbed_run_id;
END $$;
CREATE FUNCTION refresh_last_of_run() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM refresh_last(NEW.codebase, NEW.suite); RETURN NEW; END $$;
CREATE TRIGGER refresh_last AFTER INSERT OR UPDATE ON run FOR EACH ROW EXECUTE FUNCTION refresh_last_of_run();
