//! To which stream each row of a batch belongs, and which rows go away, for tables whose rows belong
//! to one stream each.
//!
//! Invariant: the rows that remain are those that applying commit by commit leaves, however batches
//! are cut. Nothing is known of the stored rows here; so a row also says which stream a stored one
//! must belong to, and at which step of the batch the batch met it first. Deliberately absent: SQL
//! (`removal`).

use std::collections::BTreeMap;

use kernel::StreamName;

use crate::declare::value::Value;

/// The number of a row change in a batch.
pub(crate) type Step = u32;

/// What a batch does with one row.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    /// The stream to which a stored row must belong.
    pub(crate) first: StreamName,
    /// The step that met the row first.
    pub(crate) since: Step,
    /// Whether a stored row goes away before this one is written.
    pub(crate) is_reset: bool,
    /// The stream that the row belongs to now, or belonged to last.
    owner: StreamName,
    is_gone: bool,
    /// The last step that contributed to the row.
    touched: Step,
}

/// When a stream removed all of its rows: the first and the last step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cleared {
    pub(crate) first: Step,
    last: Step,
}

/// The streams that removed all of their rows, each with its tenant.
#[derive(Default)]
pub(crate) struct Clears(pub(crate) BTreeMap<(Value, StreamName), Cleared>);

impl Clears {
    pub(crate) fn add(&mut self, tenant: &Value, stream: &StreamName, step: Step) {
        let key = (tenant.clone(), stream.clone());
        let first = Cleared {
            first: step,
            last: step,
        };
        self.0.entry(key).or_insert(first).last = step;
    }

    /// The last step at which any stream removed all of its rows.
    pub(crate) fn last(&self) -> Option<Step> {
        self.0.values().map(|cleared| cleared.last).max()
    }

    /// Whether a stream removed all of its rows before `step`.
    pub(crate) fn is_before(&self, tenant: &Value, stream: &str, step: Step) -> bool {
        let found = self.0.iter();
        let mut found = found.filter(|((of, name), _)| of == tenant && name.as_str() == stream);
        found.any(|(_, cleared)| cleared.first < step)
    }
}

impl Life {
    /// A row that a stream contributes to, and that this batch had not met.
    pub(crate) fn begun(stream: &StreamName, step: Step) -> Self {
        Self {
            first: stream.clone(),
            since: step,
            is_reset: false,
            owner: stream.clone(),
            is_gone: false,
            touched: step,
        }
    }

    /// A row that a stream removes, and that this batch had not met.
    pub(crate) fn removed(stream: &StreamName, step: Step) -> Self {
        Self {
            is_reset: true,
            is_gone: true,
            ..Self::begun(stream, step)
        }
    }

    /// The stream that the row belongs to, if there is a row.
    pub(crate) fn owner(&self, tenant: &Value, clears: &Clears) -> Option<&StreamName> {
        let is_gone = self.is_gone || self.is_cleared(tenant, clears);
        (!is_gone).then_some(&self.owner)
    }

    /// Whether its stream removed all of its rows since it contributed to this one.
    fn is_cleared(&self, tenant: &Value, clears: &Clears) -> bool {
        if clears.0.is_empty() {
            return false;
        }
        let cleared = clears.0.get(&(tenant.clone(), self.owner.clone()));
        cleared.is_some_and(|cleared| cleared.last > self.touched)
    }

    /// Notes a contribution to the row, or its removal.
    pub(crate) fn touched(&mut self, step: Step) {
        self.touched = step;
    }

    /// The row begins anew, for a stream.
    pub(crate) fn begin(&mut self, stream: &StreamName) {
        self.is_reset = true;
        self.is_gone = false;
        self.owner = stream.clone();
    }

    /// The row goes away.
    pub(crate) fn end(&mut self) {
        self.is_reset = true;
        self.is_gone = true;
    }
}
