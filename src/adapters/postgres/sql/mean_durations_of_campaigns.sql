SELECT suite::text, extract(epoch from avg(finish_time - start_time))::float8
FROM run
WHERE suite = ANY ($1::text[]) AND failure_transient IS NOT TRUE
GROUP BY suite
HAVING avg(finish_time - start_time) IS NOT NULL
