-- Which log the read models here are made from: one database, one log. Two logs behind one database
-- would each move on from the other's rows.

CREATE TABLE annals.log (
    one     boolean PRIMARY KEY DEFAULT true CHECK (one),
    log     uuid NOT NULL,
    -- Where it was when it was noted; for messages only.
    address text NOT NULL
);

INSERT INTO annals.log (log, address)
SELECT log, 'unknown' FROM annals.checkpoint WHERE log IS NOT NULL LIMIT 1;
