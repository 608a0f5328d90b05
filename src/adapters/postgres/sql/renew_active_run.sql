-- Records a heartbeat by the rule of `ActiveRun::renew`: $1 run, $2 token, $3 now, $4 end of the
-- lease. A heartbeat that arrives late moves nothing back.
UPDATE runner_active_run
SET keepalive = greatest(keepalive, $3),
    failures = CASE WHEN $3 >= keepalive THEN 0 ELSE failures END,
    lease_until = CASE WHEN lease_until IS NOT NULL THEN greatest(lease_until, $4) END
WHERE run_id = $1 AND token = $2
RETURNING run_id, token, item::text AS item, claimant::text AS claimant, start_time, keepalive,
    vcs::text AS vcs, resume_from, host, lease_until, cancel, failures
