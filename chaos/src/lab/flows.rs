//! What a host's kernel says of its TCP connections: TCP_INFO of every socket, by sock_diag.
//!
//! Invariant: read on the host itself, so it is the account of those who send and receive, and not
//! of whoever carries the packets between them.

use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::nlas::{Nla, TcpInfo};
use netlink_packet_sock_diag::inet::{
    ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags,
};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use super::Host;
use crate::Error;

/// One end of a TCP connection, as its own kernel counts since it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// This end.
    pub local: SocketAddr,
    /// The other.
    pub remote: SocketAddr,
    /// Names this socket for good.
    pub cookie: [u8; 8],
    /// Segments sent, empty and repeated ones too (RFC 4898, SegsOut).
    pub segments_out: u64,
    /// Those of them that had payload (RFC 4898, DataSegsOut).
    pub data_segments_out: u64,
    /// Segments received, likewise (RFC 4898, SegsIn); also large ones whose checksum was wrong, at
    /// which Linux looks later.
    pub segments_in: u64,
    /// Segments sent again.
    pub retransmitted: u64,
    /// Segments of which the other end said that they came twice (RFC 2883, DSACK).
    pub came_twice: u64,
    /// How often segments were seen to have overtaken others.
    pub reordered: u64,
    /// Payload received in order.
    pub received_bytes: u64,
    /// Payload that the other end has acknowledged.
    pub acknowledged_bytes: u64,
    /// Smoothed (RFC 6298, SRTT).
    pub round_trip_us: u32,
    /// Its mean deviation, smoothed.
    pub deviation_us: u32,
    /// Since payload last went out.
    pub idle_ms: u32,
}

impl Host {
    /// Its connections with others, open or being opened.
    pub fn flows(&self) -> Result<Vec<Flow>, Error> {
        let doing = |source| Error::Lab { what: "ask a host for its connections", problem: source };
        self.within(|| dump(Family::V4))?.map_err(doing)
    }
}

/// Whose sockets are asked for. Those of [`Family::V6`] may have IPv4 connections, too, with
/// addresses mapped into IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

/// Of the network of the calling thread.
pub(crate) fn dump(family: Family) -> std::io::Result<Vec<Flow>> {
    let mut socket = netlink_sys::Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&netlink_sys::SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let request = InetRequest {
        family: if family == Family::V4 { AF_INET } else { AF_INET6 },
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::INFO,
        states: StateFlags::ESTABLISHED | StateFlags::SYN_SENT | StateFlags::CLOSE_WAIT,
        socket_id: if family == Family::V4 { SocketId::new_v4() } else { SocketId::new_v6() },
    };
    let mut request =
        NetlinkMessage::new(header, NetlinkPayload::from(SockDiagMessage::InetRequest(request)));
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut flows = Vec::new();
    loop {
        let (answer, _) = socket.recv_from_full()?;
        let mut rest = &answer[..];
        while !rest.is_empty() {
            let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest)
                .map_err(std::io::Error::other)?;
            match message.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                    flows.extend(flow(&response));
                }
                NetlinkPayload::Done(_) => return Ok(flows),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
            // Messages are aligned to four bytes.
            let length = (message.header.length as usize).next_multiple_of(4).max(16);
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}

/// `None`: one of which the kernel tells no more, or that has both its ends here.
fn flow(response: &InetResponse) -> Option<Flow> {
    let id = &response.header.socket_id;
    let info: &TcpInfo = response.nlas.iter().find_map(|attribute| match attribute {
        Nla::TcpInfo(info) => Some(info),
        _ => None,
    })?;
    let end = |address: IpAddr, port| SocketAddr::new(address, port);
    (id.source_address != id.destination_address).then(|| Flow {
        local: end(id.source_address, id.source_port),
        remote: end(id.destination_address, id.destination_port),
        cookie: id.cookie,
        segments_out: info.segs_out.into(),
        data_segments_out: info.data_segs_out.into(),
        segments_in: info.segs_in.into(),
        retransmitted: info.total_retrans.into(),
        came_twice: info.dsack_dups.into(),
        reordered: info.reord_seen.into(),
        received_bytes: info.bytes_received,
        acknowledged_bytes: info.bytes_acked,
        round_trip_us: info.rtt,
        deviation_us: info.rttvar,
        idle_ms: info.last_data_sent,
    })
}
