//! What a node does because other nodes use the same store: leases, and the view of the other nodes.

pub(crate) mod lease;
pub(crate) mod peers;
