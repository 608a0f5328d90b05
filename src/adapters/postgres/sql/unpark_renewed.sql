-- Unparks and wakes items: $1 ids, $2 whether each is renewed. The others are woken only when they
-- are in an interval.
DELETE FROM runner_item
USING unnest($1::bigint[], $2::bool[]) AS merged (id, renewed)
WHERE queue_id = ANY ($1) AND queue_id = merged.id
    AND (merged.renewed OR state -> 'repeats' IS NOT NULL)
