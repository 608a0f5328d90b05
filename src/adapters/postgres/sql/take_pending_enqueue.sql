-- Takes the pending request from a claim that is held with this token and had no heartbeat after
-- $3. The inner SELECT locks the claim and returns the request as it was before the update.
UPDATE runner_active_run AS claim
SET pending_enqueue = NULL
FROM (
    SELECT run_id, pending_enqueue FROM runner_active_run
    WHERE run_id = $1 AND token = $2 AND ($3::timestamp IS NULL OR keepalive <= $3)
    FOR UPDATE
) AS before
WHERE claim.run_id = before.run_id
RETURNING before.pending_enqueue::text
