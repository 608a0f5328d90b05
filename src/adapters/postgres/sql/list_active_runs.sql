SELECT run_id, token, item::text AS item, claimant::text AS claimant, start_time, keepalive,
    vcs::text AS vcs, resume_from, host, lease_until, cancel, failures
FROM runner_active_run
ORDER BY start_time, run_id
