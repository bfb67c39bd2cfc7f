//! `annals config`: shows every setting with its value, source and meaning; makes new secrets.

use rand::Rng as _;

use crate::args::{ConfigArgs, ConfigCommand};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::settings::Settings;

const COLUMNS: [&str; 4] = ["setting", "value", "source", "meaning"];

/// The size of a secret, in bytes; it is printed as twice as many hexadecimal digits.
const SECRET_SIZE: usize = 32;

/// Shows the settings of this call, or makes a secret.
pub(super) fn run(settings: &Settings, args: &ConfigArgs) -> Result<Exit, Failure> {
    match args.command {
        Some(ConfigCommand::Secret) => output::line(&secret())?,
        None => output::rows(settings.output, &COLUMNS, &settings.explain())?,
    }
    Ok(Exit::Done)
}

/// A random secret.
fn secret() -> String {
    let mut bytes = [0_u8; SECRET_SIZE];
    rand::rng().fill_bytes(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use command_api::peer::Secret;

    use super::*;

    #[test]
    fn a_secret_is_new_and_long_enough() {
        let (one, other) = (secret(), secret());
        assert_eq!(one.len(), 2 * SECRET_SIZE);
        assert_ne!(one, other);
        assert!(Secret::new(&one).is_ok());
    }
}
