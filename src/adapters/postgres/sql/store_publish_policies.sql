INSERT INTO named_publish_policy (name, per_branch_policy, rate_limit_bucket)
SELECT policy.name,
    (
        SELECT array_agg(ROW(rule.role, rule.mode, rule.frequency_days)::branch_publish_policy)
        FROM json_to_recordset(policy.per_branch)
            AS rule (role text, mode publish_mode, frequency_days int)
    ),
    policy.rate_limit_bucket
FROM json_to_recordset($1::json)
    AS policy (name text, per_branch json, rate_limit_bucket text)
ON CONFLICT (name) DO UPDATE
SET per_branch_policy = excluded.per_branch_policy, rate_limit_bucket = excluded.rate_limit_bucket
