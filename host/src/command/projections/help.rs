//! What `annals projections … --help` says beside its options.

pub(super) const LIST_HELP: &str = "\
gap is the number of records in the log that the rows lack. lag is how long the oldest of them has
been in the log, in seconds. States: live; behind: it takes up records, and lacks some; stuck: it
has some to take up, and does not move; parked: it goes on without some streams (annals parked
list); paused; stopped: it met something that it cannot take up; outdated: another version of its
rule made the rows; absent: nobody made its tables yet; unknown: this program does not have it.
The column error tells why it does not move, and what to do. If something lacks records, the command
looks twice, one second apart, to say how many records it takes up in a second and in how many
seconds it is current; a terminal shows a bar instead of the position.

Example:
  annals projections list --log kafka://localhost:9092/orders --postgres postgresql://…";

pub(super) const REBUILD_HELP: &str = "\
A rebuild folds the whole log into new tables beside the live ones, compares both at the same
places of the log, and replaces the live tables in one transaction. Readers see the old rows until
then, and nobody waits. Running projectors help. A rebuild that was interrupted is continued by the
same command, or by a running projector. Rights and descriptions that you gave to the views stay.
If something of yours depends on what must be dropped, the command names it beforehand and changes
nothing. With --no-switch the new tables stay beside the live ones, and both are kept current:
projections switch shows them. With --keep the old tables stay: projections rollback shows them
again. A read model that fills tables of another program has no second set of tables: they are
emptied, and readers see them fill up again.

Examples:
  annals projections rebuild order_summary --postgres postgresql://…
  annals projections rebuild order_summary --keep 3600
  annals projections rebuild --all";

pub(super) const VERIFY_HELP: &str = "\
Folds the whole log into tables of its own, compares them with the live ones at the same places of
the log, and drops them. What differs is named by key and column. The exit code is 1 if anything
differs; a rebuild mends it.

With --sample only so many streams are folded, in memory, and compared with their rows: this takes
seconds on a log of any size. It tells the rows of tables in which each row belongs to one stream,
and elsewhere the columns that one stream writes. What many streams feed, such as sums, is left out
by name, and the exit code is then 8. Projectors make such samples all the time
(projector_verify_every_ms) and warn in /readyz.

Examples:
  annals projections verify order_summary
  annals projections verify order_summary --sample 100
  annals projections verify --all --output json";

pub(super) const RESUME_HELP: &str = "\
A read model stops at something that it cannot take up. Remove the cause, then resume the read
model: a running projector tries again within a second, without a restart, from the same place. A
paused read model goes on in the same way.

Example:
  annals projections resume payment_mix --postgres postgresql://…";

pub(super) const PAUSE_HELP: &str = "\
A paused read model keeps its rows as they are, also over restarts, until it is resumed
(projections resume). The others go on.

Example:
  annals projections pause order_summary --reason 'a migration of its schema'";

pub(super) const SWITCH_HELP: &str = "\
Lets the views show the tables that a rebuild with --no-switch has made, or a projector of a new
version of the read model. The old ones are kept, and kept current by processes that have their
version, for --keep seconds: until then, projections rollback shows them again, by a program that
has that version.

Example:
  annals projections switch order_summary --keep 3600";

pub(super) const ROLLBACK_HELP: &str = "\
Lets the views show the tables again that were live before the last switch, as long as they are
kept (--keep). Ask with a program that has their version. Only a running projector of that version
keeps them current; if there is none, start one and wait until it has caught up. A new version that
was rolled back is not built again by itself: projections rebuild --no-switch builds it.

Example:
  annals projections rollback order_summary --reason 'the new sums are wrong'";

pub(super) const CANCEL_HELP: &str = "\
Drops what a rebuild is building, or has built and not switched to. The live tables stay. A new
version that is cancelled is not built again by itself: projections rebuild --no-switch builds it.

Example:
  annals projections cancel order_summary";

pub(super) const DROP_HELP: &str = "\
Drops the tables and views of a read model that this program does not have any more.

Example:
  annals projections drop old_report";
