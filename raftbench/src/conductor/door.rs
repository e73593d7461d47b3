//! The way to a node for those who observe it: on its own host, so that what is done to the links
//! between hosts neither blinds nor delays them.

use std::io;
use std::net::SocketAddr;

use chaos::lab::Host;
use tokio::net::{TcpSocket, TcpStream};

/// Where connections to a node begin.
#[derive(Clone, Debug)]
pub(super) enum Door {
    /// In this program's own network.
    Here,
    /// In that of the node's host.
    Of(Host),
}

impl Door {
    /// A connection to `address`, `host:port`.
    pub(super) async fn connect(&self, address: &str) -> io::Result<TcpStream> {
        let stream = match self {
            Door::Here => TcpStream::connect(address).await?,
            Door::Of(host) => {
                let address: SocketAddr = address.parse().map_err(io::Error::other)?;
                // A socket belongs to the network in which it was made.
                let socket = host.within(TcpSocket::new_v4).map_err(io::Error::other)??;
                socket.connect(address).await?
            }
        };
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}
