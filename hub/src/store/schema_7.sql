-- Step 7. The key of a state gets its record: a box without a clock counts from 1970 in each of its boots, so two
-- of them may tell a state of the same millisecond, and to date the one again must not take the other away.
CREATE TABLE device_state_2 (                  -- every change; the newest by (changed_ms, record) is the state
  agent TEXT NOT NULL, device TEXT NOT NULL, changed_ms INTEGER NOT NULL,
  record INTEGER NOT NULL DEFAULT 0,           -- 0: written before this step
  kind TEXT NOT NULL, state TEXT NOT NULL, cause TEXT, detail TEXT, last_good_ms INTEGER,
  PRIMARY KEY (agent, device, changed_ms, record)
) STRICT, WITHOUT ROWID;
INSERT INTO device_state_2 (agent, device, changed_ms, kind, state, cause, detail, last_good_ms)
  SELECT agent, device, changed_ms, kind, state, cause, detail, last_good_ms FROM device_state;
DROP TABLE device_state;
ALTER TABLE device_state_2 RENAME TO device_state;
