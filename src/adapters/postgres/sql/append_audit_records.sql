-- Appends records, in the order of the list.
WITH appended AS (
    INSERT INTO runner_audit (at, who, address, action, object, before, after, request_id)
    SELECT (record ->> 'at')::timestamp, record ->> 'who', record ->> 'address',
        record ->> 'action', record ->> 'object',
        nullif(record -> 'before', 'null'), nullif(record -> 'after', 'null'),
        record ->> 'request_id'
    FROM jsonb_array_elements($1::jsonb) WITH ORDINALITY AS list (record, number)
    ORDER BY number
    RETURNING id
)
SELECT coalesce(max(id), 0) FROM appended
