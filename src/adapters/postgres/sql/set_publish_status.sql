-- Sets the publish status of a run.
WITH changed AS (
    UPDATE run SET publish_status = $2::publish_status WHERE id = $1 RETURNING id
)
-- Inserts the event that is to be published.
INSERT INTO runner_outbox (run_id, publish_status) SELECT id, $2 FROM changed
