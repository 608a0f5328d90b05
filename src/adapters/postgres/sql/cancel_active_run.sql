-- Asks the worker of an active run to stop. The first reason stays.
UPDATE runner_active_run
SET cancel = coalesce(cancel, $2)
WHERE run_id = $1
RETURNING run_id, token, item::text AS item, claimant::text AS claimant, start_time, keepalive,
    vcs::text AS vcs, resume_from, host, lease_until, cancel, failures
