//! Which row of a pane is selected. It follows its row while others come and go.

use super::{
    item::{PaneItem, RowId},
    ordered::PaneRows,
};

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct RowCursor {
    id: Option<RowId>,
    /// Where it was found last.
    index: usize,
}

impl RowCursor {
    /// Its place among the rows: that of its row, or where that was.
    pub fn place(&self, rows: &PaneRows<'_>) -> usize {
        let last = rows.len().saturating_sub(1);
        let Some(id) = &self.id else {
            return self.index.min(last);
        };
        if rows.get(self.index).is_some_and(|item| item.is(id)) {
            return self.index;
        }
        let found = rows.iter().position(|row| row.is(id));
        found.unwrap_or(self.index.min(last))
    }

    /// The rows are others, or in another order: finds its row once.
    pub fn follow(&mut self, rows: &PaneRows<'_>) {
        let place = self.place(rows);
        if self.id.is_some() && rows.get(place).is_some_and(|row| self.is_at(&row)) {
            self.index = place;
        }
    }

    fn is_at(&self, row: &PaneItem<'_>) -> bool {
        self.id.as_ref().is_some_and(|id| row.is(id))
    }

    /// Whether it is no more at the first row.
    pub fn is_moved(&self) -> bool {
        self.index > 0
    }

    /// Moves by so many rows; the ends stop it.
    pub fn step(&mut self, by: isize, rows: &PaneRows<'_>) {
        let last = rows.len().saturating_sub(1);
        self.to(self.place(rows).saturating_add_signed(by).min(last), rows);
    }

    /// Selects a row by its place.
    pub fn to(&mut self, index: usize, rows: &PaneRows<'_>) {
        self.index = index.min(rows.len().saturating_sub(1));
        self.id = rows.get(self.index).as_ref().map(PaneItem::id);
    }
}
