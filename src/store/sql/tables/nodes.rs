//! The table of the nodes that share the store.

use crate::clock::Timestamp;
use crate::store::Node;
use crate::store::sql::row_reader::RowReader;
use crate::store::sql::table::{DecodedRow, Section, SqlTable, columns};
use crate::store::sql::value::SqlRow;

pub(crate) static NODES: SqlTable<Node, Node> = SqlTable::new("nodes", &[COLUMNS]);

/// The instants are for people. Whether a node is alive is judged by whether its count of renewals changes.
const COLUMNS: Section<Node, Node> = columns! {
    "name": |node, to| to.text(Some(&node.name)) => |row, node| node.name = row.key(RowReader::text);
    "beat": |node, to| to.integer(Some(node.beat)) => |row, node| node.beat = row.key(|row| row.number(0));
    "started_at": |node, to| to.instant(Some(node.started_at)) => |row, node| node.started_at = row.instant();
    "seen_at": |node, to| to.instant(Some(node.seen_at)) => |row, node| node.seen_at = row.instant();
};

/// Reads a node.
pub(crate) fn node(row: SqlRow) -> DecodedRow<Node> {
    let (mut reader, epoch) = (RowReader::new(row), Timestamp::UNIX_EPOCH);
    let mut node = Node { name: String::new(), beat: 0, started_at: epoch, seen_at: epoch };
    NODES.read(&mut reader, &mut node);
    DecodedRow::new(node, &reader)
}
