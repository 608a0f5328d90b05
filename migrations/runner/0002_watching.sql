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

-- The same as before, but for plans made while `run` was empty: then reading all runs of a campaign seems as good as looking up
-- those of a codebase. No index fits the condition on the campaign, or the order, any more. The last effective run: the last by start time; when that is
-- nothing-new-to-do, the run it resumed from; when it failed transiently, the latest that is neither.
CREATE OR REPLACE FUNCTION runner_refresh_last_run(codebases text[], campaigns text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    WITH pair AS (SELECT DISTINCT codebase, campaign FROM unnest(codebases, campaigns) AS t (codebase, campaign)),
    effective AS (
        SELECT pair.codebase, pair.campaign, last.id AS last_run_id,
            CASE
                WHEN last.result_code = 'nothing-new-to-do' THEN last.resume_from
                WHEN last.failure_transient AND last.result_code NOT IN ('success', 'nothing-to-do') THEN
                    (SELECT id FROM run
                     WHERE codebase = pair.codebase AND suite || '' = pair.campaign
                         AND failure_transient IS NOT TRUE AND start_time IS NOT NULL AND result_code <> 'nothing-new-to-do'
                     ORDER BY (start_time, id) DESC LIMIT 1)
                ELSE last.id
            END AS run_id
        FROM pair CROSS JOIN LATERAL (
            SELECT id, result_code, resume_from, failure_transient FROM run
            WHERE codebase = pair.codebase AND suite || '' = pair.campaign AND start_time IS NOT NULL
            ORDER BY (start_time, id) DESC LIMIT 1) AS last
    )
    INSERT INTO last_run AS known (codebase, campaign, last_run_id, last_effective_run_id, last_unabsorbed_run_id)
    SELECT codebase, campaign, last_run_id, run_id,
        (SELECT effective.run_id WHERE EXISTS
            (SELECT FROM new_result_branch AS branch WHERE branch.run_id = effective.run_id AND branch.absorbed IS NOT TRUE))
    FROM effective
    ORDER BY codebase, campaign
    ON CONFLICT (codebase, campaign) DO UPDATE SET
        last_run_id = excluded.last_run_id,
        last_effective_run_id = excluded.last_effective_run_id,
        last_unabsorbed_run_id = excluded.last_unabsorbed_run_id
    WHERE (known.last_run_id, known.last_effective_run_id, known.last_unabsorbed_run_id) IS DISTINCT FROM
        (excluded.last_run_id, excluded.last_effective_run_id, excluded.last_unabsorbed_run_id);
END $$;
