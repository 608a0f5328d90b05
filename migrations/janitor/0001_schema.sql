-- The tables of a Janitor deployment, for a database that has none of them. Others share them: the publisher, the site,
-- the archive. What is the runner's own is in ../runner.
CREATE EXTENSION IF NOT EXISTS pgcrypto;

CREATE TYPE vcs_type AS ENUM ('bzr', 'git', 'svn', 'mtn', 'hg', 'arch', 'cvs', 'darcs');
CREATE TYPE publish_status AS ENUM ('unknown', 'blocked', 'needs-manual-review', 'rejected', 'approved', 'ignored');
CREATE TYPE publish_mode AS ENUM ('push', 'attempt-push', 'propose', 'build-only', 'push-derived', 'skip', 'bts');
CREATE TYPE queue_bucket AS ENUM
    ('update-existing-mp', 'manual', 'control', 'hook', 'reschedule', 'update-new-mp', 'missing-deps', 'default');
CREATE TYPE change_set_state AS ENUM ('created', 'working', 'ready', 'publishing', 'done');
CREATE TYPE merge_proposal_status AS ENUM ('open', 'closed', 'merged', 'applied', 'abandoned', 'rejected');
CREATE DOMAIN codebase_name AS text CHECK (VALUE ~ '^[a-z0-9][a-z0-9+,.-]+$');
CREATE DOMAIN campaign_name AS text CHECK (VALUE ~ '^[a-z0-9][a-z0-9+,.-]+$');
CREATE DOMAIN suite_name AS text CHECK (VALUE ~ '^[a-z0-9][a-z0-9+,.-]+$');
CREATE TYPE result_tag AS (actual_name text, revision text);
-- A table rather than a type, since only columns can have defaults.
CREATE TABLE branch_publish_policy (role text, mode publish_mode DEFAULT 'build-only', frequency_days int);

CREATE TABLE codebase (
    name codebase_name UNIQUE,
    branch_url text,
    url text,
    branch text,
    subpath text,
    vcs_last_revision text,
    last_scanned timestamp,
    web_url text,
    vcs_type vcs_type,
    value int,
    inactive boolean NOT NULL DEFAULT false,
    hostname text GENERATED ALWAYS AS (substring(branch_url from '://(?:[^/@]*@)?([^/]+)')) STORED,
    UNIQUE (branch_url, subpath),
    CHECK (name IS NOT NULL OR branch_url IS NOT NULL),
    CHECK ((branch_url IS NULL) = (url IS NULL))
);
CREATE INDEX ON codebase (hostname);

CREATE TABLE worker (
    name text NOT NULL UNIQUE,
    password text NOT NULL,
    link text
);

CREATE TABLE change_set (
    id text PRIMARY KEY,
    campaign campaign_name NOT NULL,
    state change_set_state NOT NULL DEFAULT 'created'
);

CREATE TABLE run (
    id text PRIMARY KEY,
    command text,
    description text,
    start_time timestamp,
    finish_time timestamp,
    duration interval GENERATED ALWAYS AS (finish_time - start_time) STORED,
    result_code text NOT NULL,
    instigated_context text,
    context text,
    main_branch_revision text,
    revision text,
    result json,
    suite suite_name NOT NULL,
    vcs_type vcs_type,
    branch_url text,
    logfilenames text[] NOT NULL,
    publish_status publish_status NOT NULL DEFAULT 'unknown',
    value int,
    worker text REFERENCES worker (name),
    worker_link text,
    result_tags result_tag[],
    subpath text,
    failure_stage text,
    failure_details json,
    target_branch_url text,
    failure_transient boolean,
    resume_from text REFERENCES run (id) ON DELETE SET NULL,
    change_set text NOT NULL REFERENCES change_set (id),
    codebase codebase_name NOT NULL REFERENCES codebase (name),
    CHECK (finish_time >= start_time),
    CHECK (result_code <> 'nothing-new-to-do' OR resume_from IS NOT NULL),
    CHECK (publish_status <> 'approved' OR revision IS NOT NULL)
);
CREATE INDEX ON run (change_set);
CREATE INDEX ON run (revision);
CREATE INDEX ON run (suite, start_time);
CREATE INDEX ON run (resume_from) WHERE resume_from IS NOT NULL;

CREATE TABLE new_result_branch (
    run_id text NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    role text NOT NULL,
    remote_name text,
    base_revision text,
    revision text,
    absorbed boolean DEFAULT false,
    UNIQUE (run_id, role)
);
CREATE INDEX ON new_result_branch (revision);

CREATE TABLE named_publish_policy (
    name text PRIMARY KEY,
    per_branch_policy branch_publish_policy[],
    rate_limit_bucket text
);

CREATE TABLE queue (
    id serial NOT NULL,
    bucket queue_bucket NOT NULL DEFAULT 'default',
    codebase codebase_name NOT NULL REFERENCES codebase (name) ON DELETE CASCADE,
    branch_url text,
    suite suite_name NOT NULL,
    command text CHECK (command <> ''),
    priority bigint NOT NULL DEFAULT 0,
    context text,
    estimated_duration interval,
    refresh boolean DEFAULT false,
    requester text,
    change_set text REFERENCES change_set (id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX queue_codebase_suite_set ON queue (codebase, suite, coalesce(change_set, ''));

CREATE TABLE candidate (
    id serial PRIMARY KEY,
    suite suite_name NOT NULL,
    codebase codebase_name NOT NULL,
    context text,
    value int CHECK (value > 0),
    success_chance double precision,
    command text NOT NULL CHECK (command <> ''),
    publish_policy text,
    change_set text REFERENCES change_set (id) ON DELETE CASCADE,
    CONSTRAINT candidate_codebase_fkey FOREIGN KEY (codebase) REFERENCES codebase (name) ON DELETE CASCADE,
    CONSTRAINT candidate_publish_policy_fkey FOREIGN KEY (publish_policy) REFERENCES named_publish_policy (name)
);
CREATE UNIQUE INDEX candidate_codebase_suite_set ON candidate (codebase, suite, coalesce(change_set, ''));

CREATE TABLE followup (
    origin text NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    candidate int NOT NULL REFERENCES candidate (id) ON DELETE CASCADE,
    UNIQUE (origin, candidate)
);
CREATE INDEX ON followup (candidate);

CREATE TABLE last_run (
    codebase codebase_name NOT NULL REFERENCES codebase (name) ON DELETE CASCADE,
    campaign campaign_name NOT NULL,
    last_run_id text REFERENCES run (id) ON DELETE SET NULL,
    last_effective_run_id text REFERENCES run (id) ON DELETE SET NULL,
    last_unabsorbed_run_id text REFERENCES run (id) ON DELETE SET NULL,
    UNIQUE (codebase, campaign)
);
CREATE INDEX ON last_run (last_run_id);
CREATE INDEX ON last_run (last_effective_run_id);
CREATE INDEX ON last_run (last_unabsorbed_run_id);

CREATE TABLE merge_proposal (
    url text PRIMARY KEY,
    codebase codebase_name REFERENCES codebase (name) ON DELETE SET NULL,
    target_branch_url text,
    status merge_proposal_status,
    revision text,
    merged_by text,
    merged_at timestamp,
    last_scanned timestamp,
    can_be_merged boolean,
    rate_limit_bucket text
);

-- The type that orders Debian versions, where it can be had; text otherwise.
DO $$
DECLARE
    version_type text := 'text';
BEGIN
    IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'debversion') THEN
        BEGIN
            CREATE EXTENSION IF NOT EXISTS debversion;
            version_type := 'debversion';
        -- Its user may not, or its script is refused by this Postgres (15.19 and later refuse that of 1.1.2).
        EXCEPTION WHEN OTHERS THEN
            RAISE NOTICE 'debversion cannot be installed (%): versions are text', SQLERRM;
        END;
    END IF;
    EXECUTE format('CREATE TABLE debian_build (
        run_id text NOT NULL REFERENCES run (id) ON DELETE CASCADE,
        version %s NOT NULL,
        distribution text NOT NULL,
        source text NOT NULL,
        binary_packages text[],
        lintian_result json)', version_type);
END $$;

CREATE VIEW queue_positions AS
    SELECT id, codebase, suite,
        row_number() OVER (ORDER BY bucket, priority, id) AS position,
        coalesce(sum(estimated_duration) OVER (ORDER BY bucket, priority, id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING),
            interval '0') AS wait_time
    FROM queue;

CREATE VIEW last_effective_runs AS
    SELECT run.* FROM last_run JOIN run ON run.id = last_run.last_effective_run_id;

-- last_run follows run and new_result_branch, whoever changes them. One function for all; each trigger names the rows
-- that it saw `changed`.
CREATE FUNCTION last_run_of_changed_runs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        DELETE FROM last_run USING changed WHERE last_run.codebase = changed.codebase AND last_run.campaign = changed.suite
            AND NOT EXISTS (SELECT FROM run WHERE run.codebase = changed.codebase AND run.suite = changed.suite);
    END IF;
    PERFORM runner_refresh_last_run(array_agg(codebase::text), array_agg(suite::text)) FROM changed HAVING count(*) > 0;
    RETURN NULL;
END $$;

CREATE FUNCTION last_run_of_changed_branches() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM runner_refresh_last_run(array_agg(run.codebase::text), array_agg(run.suite::text))
        FROM changed CROSS JOIN LATERAL (SELECT * FROM run WHERE run.id = changed.run_id OFFSET 0) AS run HAVING count(*) > 0;
    RETURN NULL;
END $$;

CREATE TRIGGER last_run_insert AFTER INSERT ON run REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION last_run_of_changed_runs();
CREATE TRIGGER last_run_update AFTER UPDATE ON run REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION last_run_of_changed_runs();
CREATE TRIGGER last_run_delete AFTER DELETE ON run REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION last_run_of_changed_runs();
CREATE TRIGGER last_run_insert AFTER INSERT ON new_result_branch REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION last_run_of_changed_branches();
CREATE TRIGGER last_run_update AFTER UPDATE ON new_result_branch REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION last_run_of_changed_branches();
CREATE TRIGGER last_run_delete AFTER DELETE ON new_result_branch REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION last_run_of_changed_branches();
