-- The active runs of a worker with a backchannel: $1 worker, $2 backchannel.
SELECT run_id, token, item::text AS item, claimant::text AS claimant, start_time, keepalive,
    vcs::text AS vcs, resume_from, host, lease_until, cancel, failures
FROM runner_active_run
WHERE claimant ->> 'worker' IS NOT DISTINCT FROM $1
    AND claimant -> 'backchannel' = $2::jsonb
ORDER BY start_time, run_id
