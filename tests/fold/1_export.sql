-- An export of the log as it is: one line of `annals log dump --accepted` in each row, loaded by COPY.

DROP SCHEMA IF EXISTS export, fold CASCADE;
CREATE SCHEMA export;
CREATE SCHEMA fold;

CREATE UNLOGGED TABLE export.lines (line text NOT NULL);
