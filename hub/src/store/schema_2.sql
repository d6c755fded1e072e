-- Step 2. The key of a punch gets its agent: a serial number is what a box says it read, and no box may
-- move another site's punches to itself. See docs/design/decisions.md, "A punch belongs to the site".
CREATE TABLE punch_2 (
  agent TEXT NOT NULL, device TEXT NOT NULL, serial TEXT NOT NULL, user TEXT NOT NULL,
  local_s INTEGER NOT NULL,                    -- the terminal's own clock, seconds since 2000-01-01 in its zone
  state INTEGER NOT NULL, verify INTEGER NOT NULL, ordinal INTEGER NOT NULL,
  day TEXT NOT NULL,                           -- yyyy-mm-dd of local_s
  way TEXT NOT NULL,                           -- pull beats live
  raw BLOB NOT NULL, record INTEGER NOT NULL REFERENCES record,
  received_ms INTEGER NOT NULL,
  PRIMARY KEY (agent, serial, user, local_s, ordinal)
) STRICT, WITHOUT ROWID;
INSERT INTO punch_2 SELECT agent, device, serial, user, local_s, state, verify, ordinal, day, way, raw, record,
  received_ms FROM punch;
DROP TABLE punch;
ALTER TABLE punch_2 RENAME TO punch;
CREATE INDEX punch_day ON punch (agent, device, day);
