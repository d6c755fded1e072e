-- Step 6. The agent's own count of what it has accepted, hour by hour, and what came of comparing each
-- day of it with what is stored.
CREATE TABLE tally (
  agent TEXT NOT NULL, epoch INTEGER NOT NULL, stream INTEGER NOT NULL,
  next INTEGER NOT NULL,                       -- every number below it had been given when the period ended
  from_ms INTEGER NOT NULL,                    -- when the period began, by the agent's clock, never after its arrival
  received_ms INTEGER NOT NULL,
  PRIMARY KEY (agent, epoch, stream, next)
) STRICT, WITHOUT ROWID;
CREATE INDEX tally_begun ON tally (agent, from_ms);
CREATE TABLE compared (
  agent TEXT NOT NULL, day TEXT NOT NULL, at_ms INTEGER NOT NULL,  -- yyyy-mm-dd in the register's zone; when it was compared
  taken INTEGER NOT NULL, stored INTEGER NOT NULL, lost INTEGER NOT NULL, queued INTEGER NOT NULL,
  missing INTEGER NOT NULL,                    -- acknowledged, and neither stored nor a gap: must be 0
  since_ms INTEGER,                            -- when some were first found missing; null: none are
  PRIMARY KEY (agent, day)
) STRICT, WITHOUT ROWID;
CREATE INDEX compared_missing ON compared (agent, day) WHERE missing > 0;
