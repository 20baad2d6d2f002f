//! Which columns of a table fit a terminal, and how wide they are there.

/// Characters between two columns.
pub(super) const GAP: usize = 2;
/// Characters that are left of a column that is cut.
const CUT_MIN: usize = 10;

/// What happens to a column if the terminal is too narrow for the whole table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// It stays whole, so that its cells can be copied.
    Whole,
    /// Its long cells are cut.
    Cut,
    /// It is left out; the lowest number goes first.
    Drop(u8),
}

/// The width of each column, none for one that is left out. `columns` are what may become of each, and how wide its
/// cells are. Where even the rest does not fit, the lines are longer than the terminal.
pub(super) fn fitted(columns: &[(Fit, usize)], terminal: usize) -> Vec<Option<usize>> {
    let least = |(fit, width): (Fit, usize)| match fit {
        Fit::Cut => width.min(CUT_MIN),
        Fit::Whole | Fit::Drop(_) => width,
    };
    let mut rank: Vec<u8> = columns.iter().filter_map(|(fit, _)| rank_of(*fit)).collect();
    rank.sort_unstable();
    // As few columns go as possible: all up to this rank.
    let taken = |dropped: Option<u8>| {
        let shown = columns.iter().filter(|(fit, _)| is_shown(*fit, dropped));
        shown.map(|column| least(*column) + GAP).sum::<usize>().saturating_sub(GAP)
    };
    let choices = std::iter::once(None).chain(rank.iter().copied().map(Some));
    let fits = choices.clone().find(|dropped| taken(*dropped) <= terminal);
    let dropped = fits.unwrap_or(rank.last().copied());
    // What is left is shared by the columns that may be cut, and the narrow ones take no more than they need.
    let mut room = terminal.saturating_sub(taken(dropped));
    let mut cut: Vec<usize> = (0..columns.len()).collect();
    cut.retain(|index| columns.get(*index).is_some_and(|(fit, _)| *fit == Fit::Cut));
    cut.sort_by_key(|index| columns.get(*index).map(|(_, width)| *width));
    let mut widths: Vec<Option<usize>> =
        columns.iter().map(|column| is_shown(column.0, dropped).then(|| least(*column))).collect();
    for (position, index) in cut.iter().enumerate() {
        let sharing = cut.len() - position;
        let (Some((_, whole)), Some(Some(width))) = (columns.get(*index), widths.get_mut(*index))
        else {
            continue;
        };
        let more = (whole - *width).min(room / sharing);
        *width += more;
        room -= more;
    }
    widths
}

fn rank_of(fit: Fit) -> Option<u8> {
    match fit {
        Fit::Drop(rank) => Some(rank),
        Fit::Whole | Fit::Cut => None,
    }
}

/// Whether a column is shown where those up to this rank are left out.
fn is_shown(fit: Fit, dropped: Option<u8>) -> bool {
    rank_of(fit).is_none_or(|rank| dropped.is_none_or(|dropped| rank > dropped))
}

#[cfg(test)]
mod tests {
    use super::Fit::{Cut, Drop, Whole};
    use super::*;

    #[test]
    fn columns_give_way_only_as_far_as_they_must() {
        let columns = [(Whole, 36), (Cut, 20), (Drop(2), 9), (Drop(1), 30), (Cut, 100)];
        let cases = [
            (300, [Some(36), Some(20), Some(9), Some(30), Some(100)]),
            // The longest column is cut first, then both are.
            (150, [Some(36), Some(20), Some(9), Some(30), Some(47)]),
            (103, [Some(36), Some(10), Some(9), Some(30), Some(10)]),
            (102, [Some(36), Some(20), Some(9), None, Some(31)]),
            (72, [Some(36), Some(10), Some(9), None, Some(11)]),
            (70, [Some(36), Some(15), None, None, Some(15)]),
            // What is to be copied is whole in any terminal.
            (20, [Some(36), Some(10), None, None, Some(10)]),
        ];
        for (terminal, widths) in cases {
            assert_eq!(fitted(&columns, terminal), widths, "{terminal}");
        }
        assert_eq!(fitted(&[], 80), []);
    }
}
