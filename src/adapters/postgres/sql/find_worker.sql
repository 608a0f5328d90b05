SELECT worker.name, worker.link, seen.last_seen, seen.failures
FROM worker
LEFT JOIN runner_worker AS seen ON seen.name = worker.name
WHERE worker.password <> $1 AND worker.name = $2
