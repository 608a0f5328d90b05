-- Inserts an active run that another runner claimed, unless it has ended or its item is held.
INSERT INTO runner_active_run (
    run_id, queue_id, token, claimant, item, start_time, keepalive, vcs, resume_from, host,
    lease_until, cancel, failures)
SELECT $1, $2, $3, $4::jsonb, $5::jsonb, $6, $7, $8::jsonb, $9, $10, $11, $12, $13
WHERE NOT EXISTS (SELECT FROM run WHERE id = $1)
ON CONFLICT DO NOTHING
