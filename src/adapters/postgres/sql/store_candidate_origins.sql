-- Stores which runs candidates follow up on.
INSERT INTO followup (origin, candidate)
SELECT new.origin, candidate.id
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])
    AS new (codebase, campaign, change_set, origin)
CROSS JOIN LATERAL (
    SELECT id FROM candidate
    WHERE candidate.codebase = new.codebase
        AND candidate.suite || '' = new.campaign
        AND coalesce(candidate.change_set, '') = new.change_set
    OFFSET 0
) AS candidate
ON CONFLICT DO NOTHING
