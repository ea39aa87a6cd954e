//! Which row of a pane is selected. It follows its row while others come and go.

use super::item::{PaneItem, RowId};

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct RowCursor {
    id: Option<RowId>,
    /// Where it was found last.
    index: usize,
}

impl RowCursor {
    /// Its place among the rows: that of its row, or where that was.
    pub fn place(&self, items: &[PaneItem<'_>]) -> usize {
        let last = items.len().saturating_sub(1);
        let Some(id) = &self.id else {
            return self.index.min(last);
        };
        if items.get(self.index).is_some_and(|item| item.is(id)) {
            return self.index;
        }
        let found = items.iter().position(|item| item.is(id));
        found.unwrap_or(self.index.min(last))
    }

    /// Moves by so many rows; the ends stop it.
    pub fn step(&mut self, by: isize, items: &[PaneItem<'_>]) {
        let last = items.len().saturating_sub(1);
        self.to(self.place(items).saturating_add_signed(by).min(last), items);
    }

    /// Selects a row by its place.
    pub fn to(&mut self, index: usize, items: &[PaneItem<'_>]) {
        self.index = index.min(items.len().saturating_sub(1));
        self.id = items.get(self.index).map(PaneItem::id);
    }
}
