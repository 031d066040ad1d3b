//! The flow tables while the established one is replaced by a larger one, without losing a flow.
//!
//! Three loads of the programs, each swapped over all hooks before the next one. First *both*: two tables are read, the old one is
//! written. Then *both and next*: the new one is written, and the agent copies the old one's entries that the new one has not. Then the
//! new table is the only one, under the old one's name. Deletions always go to both, so that what one hook deletes is not found by
//! another. Features are constants of a load: without them this is one table, and the code for two is gone.
//!
//! It copies nothing and knows no sizes: that is the agent's part.

use abi::config::features;

use crate::{
    family::Family,
    tables::{FlowTable, Insert, Refused, Tables},
};

/// Finds an entry. Of the established tables the one that is written comes first, since its entry is the younger one.
#[inline(always)]
pub fn find<F: Family, T: Tables<F>>(tables: T, table: FlowTable, key: &F::FlowKey) -> Option<T::Entry> {
    let features = tables.config().features;
    if matches!(table, FlowTable::Embryonic) || features & features::FLOWS_BOTH == 0 {
        return tables.flow(table, key);
    }
    let (written, other) = if features & features::FLOWS_NEXT != 0 {
        (FlowTable::Next, FlowTable::Established)
    } else {
        (FlowTable::Established, FlowTable::Next)
    };
    match tables.flow(written, key) {
        None => tables.flow(other, key),
        found => found,
    }
}

/// Inserts an entry.
///
/// # Errors
/// As [`Tables::insert_flow`]; the other one of two established tables is not asked.
#[inline(always)]
pub fn insert<F: Family, T: Tables<F>>(
    tables: T,
    table: FlowTable,
    key: &F::FlowKey,
    value: &F::Flow,
    how: Insert,
) -> Result<(), Refused> {
    let next =
        matches!(table, FlowTable::Established) && tables.config().features & features::FLOWS_NEXT != 0;
    tables.insert_flow(if next { FlowTable::Next } else { table }, key, value, how)
}

/// Deletes an entry wherever it is.
#[inline(always)]
pub fn delete<F: Family, T: Tables<F>>(tables: T, table: FlowTable, key: &F::FlowKey) {
    tables.delete_flow(table, key);
    if matches!(table, FlowTable::Established) && tables.config().features & features::FLOWS_BOTH != 0 {
        tables.delete_flow(FlowTable::Next, key);
    }
}
