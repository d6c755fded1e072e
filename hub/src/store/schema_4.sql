-- Step 4. What came in by `scc-hub import` rather than from its agent.
CREATE TABLE import (
  id INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER NOT NULL, who TEXT NOT NULL,
  agent TEXT NOT NULL, file TEXT NOT NULL, sum BLOB NOT NULL,   -- name of the file, checksum of its records
  made_ms INTEGER NOT NULL,                    -- when it was exported, by that machine's clock
  ended_ms INTEGER,                            -- none: it was killed; what is marked with it is stored
  stored INTEGER, known INTEGER, conflicts INTEGER, lost INTEGER
) STRICT;
ALTER TABLE record ADD COLUMN imported INTEGER REFERENCES import;  -- none: the agent sent it
