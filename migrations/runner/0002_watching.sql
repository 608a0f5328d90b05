-- Leases, parked items, pauses and limits, logs of active runs, and workers that fail again and again.

ALTER TABLE runner_claim
    -- The host of the codebase, which limits count by.
    ADD COLUMN host text,
    ADD COLUMN lease_until timestamp,
    -- Why the worker is to stop.
    ADD COLUMN cancel text,
    -- Pings in a row that said the run is lost.
    ADD COLUMN failures integer NOT NULL DEFAULT 0;
UPDATE runner_claim SET host =
    (SELECT substring(branch_url from '://(?:[^/@]*@)?([^/]+)') FROM codebase WHERE codebase.name = runner_claim.item ->> 'codebase');
CREATE INDEX runner_claim_campaign ON runner_claim ((item ->> 'campaign'));
CREATE INDEX runner_claim_host ON runner_claim (host);

ALTER TABLE runner_worker
    ALTER COLUMN last_seen DROP NOT NULL,
    -- Runs in a row that failed because of the worker.
    ADD COLUMN failures integer NOT NULL DEFAULT 0;

-- What is known of a queue item because of its earlier runs.
CREATE TABLE runner_item (
    queue_id bigint PRIMARY KEY,
    state jsonb NOT NULL,
    not_before timestamp,
    parked boolean NOT NULL
);
CREATE INDEX runner_item_parked ON runner_item (queue_id) WHERE parked;

CREATE TABLE runner_pause (
    kind text NOT NULL,
    name text NOT NULL,
    reason text NOT NULL,
    since timestamp NOT NULL,
    until timestamp,
    PRIMARY KEY (kind, name)
);

-- How many runs of a campaign, or on a host, there may be at the same time.
CREATE TABLE runner_limit (
    kind text NOT NULL,
    name text NOT NULL,
    most bigint NOT NULL,
    PRIMARY KEY (kind, name)
);

-- Logs of active runs, as their workers send them.
CREATE TABLE runner_live_log (
    run_id text NOT NULL,
    name text NOT NULL,
    size bigint NOT NULL,
    PRIMARY KEY (run_id, name)
);
CREATE TABLE runner_live_block (
    run_id text NOT NULL,
    name text NOT NULL,
    start bigint NOT NULL,
    content bytea NOT NULL,
    PRIMARY KEY (run_id, name, start),
    FOREIGN KEY (run_id, name) REFERENCES runner_live_log ON DELETE CASCADE
);
