SELECT id, run_id, codebase, campaign, change_set, context
FROM runner_follow_up
ORDER BY id
LIMIT $1
