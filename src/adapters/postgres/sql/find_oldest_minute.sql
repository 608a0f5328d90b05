-- The minute in which the oldest item was inserted.
SELECT minute
FROM runner_queue_clock
WHERE first_id <= (SELECT min(id) FROM queue)
ORDER BY first_id DESC
LIMIT 1
