-- Who changed what through the admin API or the command line. Entries are appended and, when they
-- are old, removed; never changed.
CREATE TABLE runner_audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamp NOT NULL,
    -- The name of the token or user, and the address of the request.
    who text NOT NULL,
    address text,
    -- What was done (`Action` in domain/audit.rs), and on what.
    action text NOT NULL,
    object text NOT NULL,
    -- The state before and after, without secrets.
    before jsonb,
    after jsonb,
    request_id text
);

CREATE FUNCTION runner_audit_is_append_only() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    RAISE EXCEPTION 'entries of runner_audit are never changed';
END
$$;

CREATE TRIGGER runner_audit_is_append_only BEFORE UPDATE ON runner_audit
FOR EACH STATEMENT EXECUTE FUNCTION runner_audit_is_append_only();
