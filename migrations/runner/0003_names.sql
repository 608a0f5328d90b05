-- Names that say what the tables and columns hold. Nothing but names changes.

-- Queue items that a worker holds: an active run for each.
ALTER TABLE runner_claim RENAME TO runner_active_run;
-- What was queued for the same key while the item was held.
ALTER TABLE runner_active_run RENAME COLUMN wish TO pending_enqueue;
ALTER INDEX runner_claim_pkey RENAME TO runner_active_run_pkey;
ALTER INDEX runner_claim_queue_id_key RENAME TO runner_active_run_queue_id_key;
ALTER INDEX runner_claim_campaign RENAME TO runner_active_run_campaign;
ALTER INDEX runner_claim_host RENAME TO runner_active_run_host;

-- Hosts that asked to be left alone, and until when.
ALTER TABLE runner_host_limit RENAME TO runner_host_backoff;
ALTER INDEX runner_host_limit_pkey RENAME TO runner_host_backoff_pkey;

-- Which process holds a role that only one may hold, and until when.
ALTER TABLE runner_lease RENAME TO runner_leadership;
ALTER INDEX runner_lease_pkey RENAME TO runner_leadership_pkey;

-- How many runs of a campaign, or on a host, there may be at the same time.
ALTER TABLE runner_limit RENAME COLUMN most TO max_running;
