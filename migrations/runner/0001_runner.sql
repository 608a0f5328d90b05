-- The runner's own tables, in any database that has the Janitor's. They change nothing of the others' but add indexes.

-- Queue items that a worker holds. The row is made while the item's row in `queue` is locked.
CREATE TABLE runner_claim (
    run_id text PRIMARY KEY,
    queue_id bigint NOT NULL UNIQUE,
    token text NOT NULL,
    claimant jsonb NOT NULL,
    item jsonb NOT NULL,
    start_time timestamp NOT NULL,
    keepalive timestamp NOT NULL,
    vcs jsonb NOT NULL,
    resume_from text,
    -- What was queued for the same key while it was held.
    wish jsonb
);

-- What is known of a run beside the columns of `run`.
CREATE TABLE runner_run (
    run_id text PRIMARY KEY REFERENCES run (id) ON DELETE CASCADE,
    sequence bigserial NOT NULL,
    stored timestamp NOT NULL,
    queue_id bigint NOT NULL,
    facts jsonb NOT NULL
);
CREATE INDEX runner_run_stored ON runner_run (stored, sequence);

-- Schedules that are to be made because a run ended.
CREATE TABLE runner_follow_up (
    id bigserial PRIMARY KEY,
    run_id text NOT NULL,
    codebase text NOT NULL,
    campaign text NOT NULL,
    change_set text,
    context text
);

-- News that others have not been told yet. Without a publish status it is the run's result.
CREATE TABLE runner_outbox (
    id bigserial PRIMARY KEY,
    run_id text NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    publish_status text
);

-- The order in which codebases were first uploaded, which `codebase` does not tell.
CREATE TABLE runner_codebase (
    name text PRIMARY KEY,
    sequence bigserial NOT NULL
);

CREATE TABLE runner_host_limit (
    host text PRIMARY KEY,
    until timestamp NOT NULL
);

CREATE TABLE runner_worker (
    name text PRIMARY KEY,
    last_seen timestamp NOT NULL
);

-- Which process does what only one may do, and until when.
CREATE TABLE runner_lease (
    role text PRIMARY KEY,
    holder text NOT NULL,
    until timestamptz NOT NULL
);

-- The first id that the queue gave out in a minute: tells how old an item is, which `queue` does not.
CREATE TABLE runner_queue_clock (
    minute timestamp PRIMARY KEY,
    first_id bigint NOT NULL
);

-- With the duration, so that places in the queue and waits are told from the index alone.
CREATE INDEX runner_queue_order ON queue (bucket, priority, id) INCLUDE (estimated_duration);
CREATE INDEX runner_queue_id ON queue (id);
CREATE INDEX runner_queue_priority ON queue (priority);
CREATE INDEX runner_run_pair ON run (codebase, suite, start_time);
CREATE INDEX runner_run_finished ON run (finish_time);
CREATE INDEX runner_debian_build_run ON debian_build (run_id);
CREATE INDEX runner_codebase_value ON codebase (value);
CREATE INDEX runner_merge_proposal_revision ON merge_proposal (revision);

-- Brings last_run up to date for some pairs. The last effective run: the last by start time; when that is
-- nothing-new-to-do, the run it resumed from; when it failed transiently, the latest that is neither.
CREATE FUNCTION runner_refresh_last_run(codebases text[], campaigns text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    WITH pair AS (SELECT DISTINCT codebase, campaign FROM unnest(codebases, campaigns) AS t (codebase, campaign)),
    effective AS (
        SELECT pair.codebase, pair.campaign, last.id AS last_run_id,
            CASE
                WHEN last.result_code = 'nothing-new-to-do' THEN last.resume_from
                WHEN last.failure_transient AND last.result_code NOT IN ('success', 'nothing-to-do') THEN
                    (SELECT id FROM run
                     WHERE codebase = pair.codebase AND suite = pair.campaign
                         AND failure_transient IS NOT TRUE AND start_time IS NOT NULL AND result_code <> 'nothing-new-to-do'
                     ORDER BY start_time DESC, id DESC LIMIT 1)
                ELSE last.id
            END AS run_id
        FROM pair CROSS JOIN LATERAL (
            SELECT id, result_code, resume_from, failure_transient FROM run
            WHERE codebase = pair.codebase AND suite = pair.campaign AND start_time IS NOT NULL
            ORDER BY start_time DESC, id DESC LIMIT 1) AS last
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
