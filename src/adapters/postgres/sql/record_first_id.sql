-- Records the first id that the queue assigned in a minute.
INSERT INTO runner_queue_clock (minute, first_id)
VALUES (date_trunc('minute', $1::timestamp), $2)
ON CONFLICT DO NOTHING
