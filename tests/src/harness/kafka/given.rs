//! Brokers whose settings come from elsewhere, such as a compose file.

use super::broker::{Broker, asking};
use super::{JVM_FLAGS, answers};

/// Brokers of one cluster. They end, and their folders are removed, on drop.
#[derive(Debug)]
pub struct Given {
    _brokers: Vec<Broker>,
}

impl Given {
    /// Starts a broker for each of `settings` (in the form of `server.properties`, without the folder of
    /// the data), and returns once each answers at its port.
    ///
    /// # Panics
    /// If one does not start; the message holds its log.
    pub fn start(settings: &[(String, u16)]) -> Self {
        let prepare = |(settings, _): &(String, u16)| {
            let broker = Broker::prepare(&JVM_FLAGS, |data| {
                format!("{settings}\nlog.dirs={}\n", data.display())
            });
            broker.format(&[]);
            broker
        };
        let mut brokers: Vec<Broker> = settings.iter().map(prepare).collect();
        brokers.iter_mut().for_each(Broker::launch);
        for (broker, (_, port)) in brokers.iter_mut().zip(settings) {
            let client = asking(&format!("127.0.0.1:{port}"));
            broker
                .wait(|| answers(&client, *port))
                .unwrap_or_else(|log| panic!("a broker did not start:\n{log}"));
        }
        Self { _brokers: brokers }
    }
}
