INSERT INTO candidate (
    codebase, suite, change_set, command, context, value, success_chance, publish_policy)
SELECT codebase, campaign, nullif(change_set, ''), command, context, value, chance, policy
FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::int[], $7::float8[], $8::text[]
) AS new (codebase, campaign, change_set, command, context, value, chance, policy)
ON CONFLICT (codebase, suite, coalesce(change_set, '')) DO UPDATE
SET command = excluded.command, context = excluded.context, value = excluded.value,
    success_chance = excluded.success_chance, publish_policy = excluded.publish_policy
