//! Ports of this machine that a test reserves for servers which bind them later.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rustix::net::sockopt::set_socket_reuseaddr;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with};

/// A port of 127.0.0.1 that the kernel gives only to processes that ask for its number, until this is dropped.
///
/// It is bound without a listener, so connections are refused. A server can bind it as well, again and again, if it sets
/// `SO_REUSEADDR`, as servers do.
pub struct Port {
    number: u16,
    _bound: OwnedFd,
}

impl Port {
    pub fn reserve() -> Self {
        let bound =
            socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let bound = bound.unwrap();
        set_socket_reuseaddr(&bound, true).unwrap();
        bind(&bound, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = SocketAddrV4::try_from(getsockname(&bound).unwrap()).unwrap();
        Self { number: address.port(), _bound: bound }
    }

    pub fn number(&self) -> u16 {
        self.number
    }
}
