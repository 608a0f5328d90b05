-- Records when workers were last seen, in the order of their names, so that two runners that record
-- the same workers lock their rows in the same order.
INSERT INTO runner_worker AS known (name, last_seen)
SELECT * FROM unnest($1::text[], $2::timestamp[])
ORDER BY 1
ON CONFLICT (name) DO UPDATE SET last_seen = greatest(known.last_seen, excluded.last_seen)
