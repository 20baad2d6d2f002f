//! The advice of the error when the system refuses a connection to the socket.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{Gid, Group};

use crate::user;

/// The permission of a group to search a folder.
const GROUP_SEARCH: u32 = 0o010;
/// The permission of a group to write, which connecting to a socket takes.
const GROUP_WRITE: u32 = 0o020;

/// How a user gets access to this socket: by joining the group that has it, if there is one.
pub(super) fn advice(socket: &Path) -> String {
    // If the socket cannot be seen, the nearest folder that can be seen is the one that refuses.
    let mut places = socket.ancestors();
    let mut needed = GROUP_WRITE;
    let found = places.find_map(|place| {
        let place = if place.as_os_str().is_empty() { Path::new(".") } else { place };
        let found = std::fs::metadata(place);
        if found.is_err() {
            needed = GROUP_SEARCH;
        }
        found.ok()
    });
    let Some(found) = found else { return "ask its owner for access".to_owned() };
    // The group of root is no advice: it gives far more than this.
    let has_access = found.mode() & needed != 0 && found.gid() != 0;
    let group = Group::from_gid(Gid::from_raw(found.gid())).ok().flatten();
    if let Some(group) = group.filter(|_| has_access) {
        return format!("join group {} (and log in again)", group.name);
    }
    let owner = user::name_of(found.uid()).unwrap_or_else(|| found.uid().to_string());
    format!("ask its owner, user {owner}, for access")
}
