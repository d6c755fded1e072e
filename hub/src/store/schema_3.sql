-- Step 3. A receipt says since when its queue is known: told_next alone does not tell whether it is of
-- today or of last week.
ALTER TABLE lane ADD COLUMN told_ms INTEGER;   -- when hello or health last told told_next, by the hub's clock; null: not yet
