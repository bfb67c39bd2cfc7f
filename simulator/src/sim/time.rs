//! The clocks of the simulated nodes, and what the nodes learn of the brokers' time.
//!
//! Deliberately absent: faults of clocks (`nemesis`).

use engine::clock::Reference;
use engine::owner::Now;
use kernel::Timestamp;

use super::world::World;

impl World {
    pub(super) fn node_now(&self, node: usize) -> Now {
        let micros = self.wall_us() + self.nodes[node].clock_off_us;
        Now {
            wall: Timestamp::from_micros(micros).unwrap_or_default(),
            monotonic_ms: (self.now_us - self.nodes[node].suspended_us) / 1_000,
            boottime_ms: self.boottime_ms(),
        }
    }

    /// Asks the brokers for the time, as the engine's timekeeper does.
    pub(super) fn probe_time(&mut self, node: usize) {
        if self.now_us < self.nodes[node].probe_at_us {
            return;
        }
        self.nodes[node].probe_at_us = self.now_us + self.aside.between(300_000, 2_000_000);
        let sent_ms = self.boottime_ms();
        let slow_us = match self.slow_network_until_us > self.now_us {
            true => 300_000,
            false => 5_000,
        };
        let appended_at_us = self.now_us + self.aside.between(50, slow_us);
        let heard_at_us = appended_at_us + self.aside.between(50, slow_us);
        let passed_us = (appended_at_us - self.now_us).cast_signed();
        let at = Timestamp::from_micros(self.wall_us() + passed_us).unwrap_or_default();
        self.tell_node(heard_at_us, node, move |world, node| {
            let reference = Reference::from_probe(sent_ms, world.boottime_ms(), at);
            let known = &mut world.nodes[node].reference;
            *known = reference.or(*known);
        });
    }
}
