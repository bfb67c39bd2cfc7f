//! A network namespace for one node, with one virtual cable to the rest.
//!
//! A wrong hardware address for the other end loses all packets in one direction. Senders notice
//! nothing, as on a real cable, and no kernel module is needed that may be missing. Invariant:
//! nothing outside of the namespace and the cable is changed; both are removed on drop.

use std::io;
use std::net::Ipv4Addr;
use std::process::Command;

use rand::RngExt;

use crate::harness::disk::run;

/// A hardware address that no interface has.
const NOBODY: &str = "02:00:00:00:00:01";
const INSIDE_NAME: &str = "cable";

/// A namespace with a cable.
#[derive(Debug)]
pub struct Network {
    name: String,
    cable: String,
    /// The address of the end outside.
    pub outside: Ipv4Addr,
    /// The node's address inside.
    pub inside: Ipv4Addr,
}

impl Network {
    /// Makes a namespace and its cable.
    ///
    /// # Errors
    /// Any error of the system; for a user other than root there is always one.
    pub fn make(number: usize) -> io::Result<Self> {
        let (id, third): (u16, u8) = (rand::rng().random(), rand::rng().random());
        let last = u8::try_from(number * 4).map_err(io::Error::other)?;
        let network = Self {
            name: format!("annals-{id:04x}-{number}"),
            cable: format!("an{id:04x}-{number}"),
            outside: Ipv4Addr::new(10, 77, third, last + 1),
            inside: Ipv4Addr::new(10, 77, third, last + 2),
        };
        let (name, cable) = (network.name.as_str(), network.cable.as_str());
        ip(&["netns", "add", name])?;
        let link = ["link", "add", cable, "type", "veth", "peer", "name"];
        ip(&[&link[..], &[INSIDE_NAME, "netns", name]].concat())?;
        ip(&[
            "addr",
            "add",
            &format!("{}/30", network.outside),
            "dev",
            cable,
        ])?;
        ip(&["link", "set", cable, "up"])?;
        let inside = format!("{}/30", network.inside);
        ip(&["-n", name, "addr", "add", &inside, "dev", INSIDE_NAME])?;
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        ip(&["-n", name, "link", "set", INSIDE_NAME, "up"])?;
        let gateway = network.outside.to_string();
        ip(&["-n", name, "route", "add", "default", "via", &gateway])?;
        Ok(network)
    }

    /// A command that runs the command that follows inside the namespace.
    #[must_use]
    pub fn command_before(&self) -> Vec<String> {
        ["ip", "netns", "exec", &self.name]
            .map(str::to_owned)
            .to_vec()
    }

    /// Loses every packet that leaves.
    ///
    /// # Errors
    /// Any error of the system.
    pub fn lose_outgoing(&self) -> io::Result<()> {
        let outside = self.outside.to_string();
        ip(&[&["-n", &self.name][..], &wrong(&outside, INSIDE_NAME)].concat())
    }

    /// Loses every packet that arrives.
    ///
    /// # Errors
    /// Any error of the system.
    pub fn lose_incoming(&self) -> io::Result<()> {
        ip(&wrong(&self.inside.to_string(), &self.cable))
    }

    /// Loses no more packets.
    pub fn restore(&self) {
        let (inside, outside) = (self.inside.to_string(), self.outside.to_string());
        // Fails if nothing was lost before; then there is nothing to restore.
        let _ = ip(&["neigh", "del", &inside, "dev", &self.cable]);
        let _ = ip(&[
            "-n",
            &self.name,
            "neigh",
            "del",
            &outside,
            "dev",
            INSIDE_NAME,
        ]);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = ip(&["link", "del", &self.cable]);
        let _ = ip(&["netns", "del", &self.name]);
    }
}

fn wrong<'a>(address: &'a str, device: &'a str) -> [&'a str; 9] {
    [
        "neigh",
        "replace",
        address,
        "lladdr",
        NOBODY,
        "dev",
        device,
        "nud",
        "permanent",
    ]
}

fn ip(arguments: &[&str]) -> io::Result<()> {
    run(Command::new("ip").args(arguments))
}
