//! A host's `eth0` as a TUN device. The device's own unsafe code is in the crate `tun-rs`.
//!
//! Invariant: the device has no offloads, so every packet that is read is one packet, with its
//! checksums.

use std::fs::OpenOptions;
use std::io::ErrorKind;

use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use super::super::super::inside::within;
use super::super::super::iproute::Tool;
use super::super::super::layout::PREFIX_BITS;
use super::wire::Port;

/// Packets that the kernel keeps for the switch: 100 ms of 50,000 packets/s.
const QUEUE_PACKETS: u32 = 5_000;

const DEVICE: &str = "/dev/net/tun";

/// Makes the device of `port` in its network.
pub(super) fn open(port: &Port) -> Result<SyncDevice, String> {
    // Asked first: the crate would make a file that is missing, and does not say which step failed.
    OpenOptions::new().read(true).write(true).open(DEVICE).map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            format!("there is no {DEVICE} (the kernel's module `tun`: modprobe tun)")
        }
        ErrorKind::PermissionDenied => format!(
            "{DEVICE} is not open to this user (root can open it to all: chmod 0666 {DEVICE})"
        ),
        _ => format!("{DEVICE}: {error}"),
    })?;
    let make = || {
        let device = DeviceBuilder::new()
            .name("eth0")
            .layer(Layer::L3)
            .mtu(1500)
            .ipv4(port.address, PREFIX_BITS, None)
            .build_sync()?;
        device.set_nonblocking(true)?;
        // Not by the crate's ioctl, which wants root.
        let queue = format!("link set eth0 txqueuelen {QUEUE_PACKETS}");
        Tool::Ip.batch(&[queue]).map_err(std::io::Error::other)?;
        Ok(device)
    };
    let made: std::io::Result<SyncDevice> =
        within(&port.network, make).map_err(|error| error.to_string())?;
    made.map_err(|error| format!("cannot make eth0 on {}: {error}", port.name))
}
