-- Step 5. How far the true time is ahead of each boot's monotonic time, and the times that follow from it.
CREATE TABLE boot (
  agent TEXT NOT NULL, boot BLOB NOT NULL,
  ahead_ms INTEGER NOT NULL,                   -- the best measurement: true time - monotonic time
  within_ms INTEGER NOT NULL, mono_ms INTEGER NOT NULL,  -- its uncertainty, and the monotonic time when it was made
  source TEXT NOT NULL,                        -- hub: against the hub's clock; record: a record whose clock was confirmed
  measured_ms INTEGER NOT NULL,                -- when it arrived, by the hub's clock
  disputed INTEGER NOT NULL DEFAULT 0,         -- measurements exclude each other: nothing is corrected, for ever
  dated_to INTEGER,                            -- records up to this id go by this row, later ones of before it do not yet; null: all do
  PRIMARY KEY (agent, boot)
) STRICT, WITHOUT ROWID;
CREATE INDEX boot_undated ON boot (agent, boot) WHERE dated_to IS NOT NULL;
ALTER TABLE record ADD COLUMN corrected_ms INTEGER;  -- mono_ms + the boot's offset, where quality is 'unconfirmed' and the boot is measured
CREATE INDEX record_unconfirmed ON record (agent, boot, id) WHERE quality = 'unconfirmed';
