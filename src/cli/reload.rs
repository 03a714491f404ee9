//! SIGHUP: secrets and certificates are read again; whatever else changed needs a restart.

use tracing::{error, info, warn};

use super::args::Arguments;
use super::request;
use crate::config::{
    self, Effective, Loaded, ProcessEnvironment, Purpose, Request, Settings, changed,
};
use crate::pipeline::{Event, Mailbox};
use crate::platform::panics::on_purpose;
use crate::sink::Secrets;

/// What the daemon was started with, and where it takes what is new.
pub(super) struct Reload {
    request: Request,
    effective: Vec<Effective>,
    mailbox: Mailbox,
}

impl Reload {
    pub(super) fn new(arguments: &Arguments, loaded: &Loaded, mailbox: &Mailbox) -> Self {
        let (request, effective) = (request(arguments, Purpose::Run), loaded.effective.clone());
        Self { request, effective, mailbox: mailbox.clone() }
    }

    /// Reads everything, and takes from it what may change. One mistake anywhere: nothing.
    pub(super) fn again(&self) {
        on_purpose("signals");
        let loaded = config::load(&self.request, &ProcessEnvironment);
        match loaded.for_run() {
            Ok(settings) => {
                info!("SIGHUP: secrets and certificates are read again");
                for key in changed(&self.effective, &loaded.effective) {
                    warn!(key, "a changed setting needs a restart");
                }
                self.mailbox.post(Event::SecretsRead(secrets(&settings)));
            }
            Err(problems) => {
                error!("SIGHUP: nothing is read again: the configuration is wrong");
                for problem in problems.problems {
                    warn!("{problem}");
                }
            }
        }
    }
}

fn secrets(settings: &Settings) -> Secrets {
    let properties = settings.kafka.iter().flat_map(|kafka| &kafka.properties);
    let secrets = properties.filter(|property| property.secret);
    let socketio = settings.socketio.as_ref();
    Secrets {
        kafka: secrets.map(|secret| (secret.key.clone(), secret.value.clone())).collect(),
        auth_token: socketio.and_then(|socketio| Some(socketio.auth_token.as_ref()?.0.clone())),
    }
}
