-- Records the order in which codebases were first uploaded.
INSERT INTO runner_codebase (name)
SELECT name FROM unnest($1::text[]) WITH ORDINALITY AS uploaded (name, place)
ORDER BY place
ON CONFLICT DO NOTHING
