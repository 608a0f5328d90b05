-- The columns of tables with the kinds of their types: the name of an enum or composite type, else
-- Postgres's category.
SELECT needed.name, a.attname::text,
    CASE WHEN y.typtype IN ('e', 'c') THEN y.typname::text ELSE y.typcategory::text END
FROM unnest($1::text[]) AS needed (name)
JOIN pg_attribute AS a
    ON a.attrelid = to_regclass(needed.name) AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type AS y ON y.oid = a.atttypid
