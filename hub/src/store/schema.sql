-- Step 1 of the hub's database. Times are milliseconds since 1970-01-01 UTC unless named otherwise;
-- epoch, run and other random u64 are stored as the same 64 bits read as a signed integer.

-- the register as applied by `scc-hub fleet apply` ------------------------------------------------
CREATE TABLE fleet (
  only INTEGER PRIMARY KEY CHECK (only = 1),
  name TEXT NOT NULL, timezone TEXT NOT NULL, installed_cameras INTEGER NOT NULL, applied_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE agency (
  id TEXT PRIMARY KEY, name TEXT NOT NULL, external INTEGER NOT NULL, position INTEGER NOT NULL
) STRICT;
CREATE TABLE site (
  id TEXT PRIMARY KEY, name TEXT NOT NULL, kind TEXT NOT NULL, kecamatan TEXT, position INTEGER NOT NULL,
  since_ms INTEGER NOT NULL  -- first declared
) STRICT;
CREATE TABLE site_agency (
  site TEXT NOT NULL REFERENCES site ON DELETE CASCADE, agency TEXT NOT NULL REFERENCES agency, position INTEGER NOT NULL,
  PRIMARY KEY (site, agency)
) STRICT, WITHOUT ROWID;
CREATE TABLE device (
  site TEXT NOT NULL REFERENCES site ON DELETE CASCADE, id TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL,
  position INTEGER NOT NULL, since_ms INTEGER NOT NULL, PRIMARY KEY (site, id)
) STRICT, WITHOUT ROWID;

-- the ledger: one row per record, whatever can be made of it ----------------------------------------
CREATE TABLE record (
  id INTEGER PRIMARY KEY AUTOINCREMENT,       -- order of commit
  agent TEXT NOT NULL, epoch INTEGER NOT NULL, stream INTEGER NOT NULL, seq INTEGER NOT NULL,
  sum BLOB NOT NULL, size INTEGER NOT NULL,
  readable INTEGER NOT NULL,                  -- 0: stored as bytes, decoded again after an upgrade
  device TEXT, declared INTEGER NOT NULL,     -- declared = 0: the register did not know the device then
  boot BLOB, mono_ms INTEGER, wall_ms INTEGER, quality TEXT,
  received_ms INTEGER NOT NULL,
  -- body alone: the whole body. media alone: the path of a file with the whole body (`.bin`).
  -- Both: the body with its picture or video left out, and the path of the file that holds that;
  -- put together they give the body back byte for byte (checked against sum before the row is written).
  body BLOB, media TEXT,
  UNIQUE (agent, epoch, stream, seq), CHECK (body IS NOT NULL OR media IS NOT NULL)
) STRICT;
CREATE INDEX record_device ON record (agent, device, stream, wall_ms);
CREATE INDEX record_received ON record (agent, received_ms);
CREATE INDEX record_unreadable ON record (id) WHERE readable = 0;

CREATE TABLE lane (
  agent TEXT NOT NULL, epoch INTEGER NOT NULL, stream INTEGER NOT NULL,
  watermark INTEGER NOT NULL,                 -- each of 1 … watermark is stored or covered by a gap
  told_next INTEGER NOT NULL,                 -- highest next number that hello or health has told
  begun_ms INTEGER NOT NULL, closed INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (agent, epoch, stream)
) STRICT, WITHOUT ROWID;

-- stored beats gap: a range here never holds a number that is stored, and no two ranges of a lane
-- overlap, so sum(last - first + 1) is what is lost. A record that turns up later shrinks its gap.
CREATE TABLE gap (
  agent TEXT NOT NULL, epoch INTEGER NOT NULL, stream INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
  reason TEXT NOT NULL, at_ms INTEGER NOT NULL, received_ms INTEGER NOT NULL,
  PRIMARY KEY (agent, epoch, stream, first)
) STRICT, WITHOUT ROWID;

CREATE TABLE conflict (                        -- the same key with another checksum: both are kept
  agent TEXT NOT NULL, epoch INTEGER NOT NULL, stream INTEGER NOT NULL, seq INTEGER NOT NULL, sum BLOB NOT NULL,
  body BLOB, media TEXT,                       -- as in record
  received_ms INTEGER NOT NULL, PRIMARY KEY (agent, epoch, stream, seq, sum), CHECK (body IS NOT NULL OR media IS NOT NULL)
) STRICT, WITHOUT ROWID;

CREATE TABLE duplicate (                       -- counted per agent, stream and local day of arrival
  agent TEXT NOT NULL, stream INTEGER NOT NULL, day TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (agent, stream, day)
) STRICT, WITHOUT ROWID;

-- what was read out of the ledger -------------------------------------------------------------------
CREATE TABLE punch (
  agent TEXT NOT NULL, device TEXT NOT NULL, serial TEXT NOT NULL, user TEXT NOT NULL,
  local_s INTEGER NOT NULL,                    -- the terminal's own clock, seconds since 2000-01-01 in its zone
  state INTEGER NOT NULL, verify INTEGER NOT NULL, ordinal INTEGER NOT NULL,
  day TEXT NOT NULL,                           -- yyyy-mm-dd of local_s
  way TEXT NOT NULL,                           -- pull beats live
  raw BLOB NOT NULL, record INTEGER NOT NULL REFERENCES record,
  received_ms INTEGER NOT NULL,
  PRIMARY KEY (serial, user, local_s, ordinal)
) STRICT, WITHOUT ROWID;
CREATE INDEX punch_day ON punch (agent, device, day);

CREATE TABLE terminal_read (                   -- newest complete and newest any read of each terminal
  agent TEXT NOT NULL, device TEXT NOT NULL, serial TEXT NOT NULL, at_ms INTEGER NOT NULL,
  counter_before INTEGER, counter_after INTEGER, records INTEGER NOT NULL, complete INTEGER NOT NULL,
  quarantined INTEGER NOT NULL, drift_ms INTEGER, layout TEXT NOT NULL, per_day TEXT NOT NULL,  -- JSON [["yyyy-mm-dd", n], …]
  PRIMARY KEY (agent, device, at_ms)
) STRICT, WITHOUT ROWID;

CREATE TABLE picture (                         -- snapshots and segments by device and time
  record INTEGER PRIMARY KEY REFERENCES record, agent TEXT NOT NULL, device TEXT NOT NULL, stream INTEGER NOT NULL,
  captured_ms INTEGER NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL,
  cadence_s INTEGER, duration_ms INTEGER, codec TEXT, media TEXT NOT NULL, size INTEGER NOT NULL
) STRICT;
CREATE INDEX picture_newest ON picture (agent, device, stream, captured_ms);

CREATE TABLE device_state (                    -- every change; the newest by changed_ms is the state
  agent TEXT NOT NULL, device TEXT NOT NULL, changed_ms INTEGER NOT NULL, kind TEXT NOT NULL, state TEXT NOT NULL,
  cause TEXT, detail TEXT, last_good_ms INTEGER, PRIMARY KEY (agent, device, changed_ms)
) STRICT, WITHOUT ROWID;

CREATE TABLE health (                          -- the newest health record of each agent, as JSON
  agent TEXT PRIMARY KEY, at_ms INTEGER NOT NULL, received_ms INTEGER NOT NULL, json TEXT NOT NULL
) STRICT;

-- people ----------------------------------------------------------------------------------------------
CREATE TABLE user (
  name TEXT PRIMARY KEY, password TEXT NOT NULL,   -- argon2id, PHC string
  role TEXT NOT NULL CHECK (role IN ('operator', 'agency')),
  created_ms INTEGER NOT NULL, changed_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE user_agency (
  user TEXT NOT NULL REFERENCES user ON DELETE CASCADE, agency TEXT NOT NULL, PRIMARY KEY (user, agency)
) STRICT, WITHOUT ROWID;
CREATE TABLE session (
  token_sha256 BLOB PRIMARY KEY, user TEXT NOT NULL REFERENCES user ON DELETE CASCADE, csrf TEXT NOT NULL,
  created_ms INTEGER NOT NULL, seen_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE audit (
  id INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER NOT NULL, who TEXT NOT NULL, action TEXT NOT NULL, what TEXT NOT NULL
) STRICT;
