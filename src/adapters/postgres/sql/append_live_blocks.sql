INSERT INTO runner_live_block (run_id, name, start, content)
SELECT $1, $2, * FROM unnest($3::bigint[], $4::bytea[])
