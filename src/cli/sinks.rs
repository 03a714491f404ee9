//! The sink that the settings ask for.

use std::sync::Arc;

use tracing::warn;

use crate::config::{
    CorsOrigins, EventTimestamp, KafkaSettings, RelayUrl, Settings, SocketIoSettings, Via,
};
use crate::pipeline::{Event, Mailbox};
use crate::platform::access::raise_file_limit;
use crate::platform::clock::Clock;
use crate::sink::Sink;
use crate::sink::kafka::{self, KafkaSink, Librdkafka, Reports};
use crate::sink::socketio::relay::{self, RelaySink};
use crate::sink::socketio::server::{self, ServerSink};

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum SinkError {
    #[error("the Kafka settings are not accepted: {0}")]
    Kafka(String),
    #[error("cannot start Socket.IO: {0}")]
    SocketIo(String),
}

/// The sink of the chosen mode.
pub(super) fn build(
    settings: &Settings,
    clock: &Arc<dyn Clock>,
    mailbox: &Mailbox,
) -> Result<Box<dyn Sink>, SinkError> {
    if let Some(kafka) = &settings.kafka {
        return Ok(Box::new(kafka_sink(settings, kafka, clock, mailbox)?));
    }
    let Some(socketio) = &settings.socketio else {
        return Err(SinkError::SocketIo("its settings are missing".to_owned()));
    };
    let bell = mailbox.clone();
    let ring = Box::new(move || bell.post(Event::SinkReported));
    if socketio.via == Via::Relay {
        return Ok(Box::new(RelaySink::new(&relay_settings(socketio), Arc::clone(clock), ring)));
    }
    let (files, clients) = (raise_file_limit(), socketio.max_clients as u64);
    // Each client may have two connections for a while; the rest is the daemon's own.
    if files < 2 * clients + 100 {
        warn!(files, clients, "SOCKETIO_MAX_CLIENTS needs more open files than LimitNOFILE allows");
    }
    let server = server_settings(settings, socketio);
    let sink = ServerSink::new(server, Arc::clone(clock), ring);
    Ok(Box::new(sink.map_err(SinkError::SocketIo)?))
}

/// The relay's share of the settings.
pub(super) fn relay_settings(socketio: &SocketIoSettings) -> relay::Settings {
    relay::Settings {
        target: match &socketio.url {
            RelayUrl::Http(url) => relay::Target::Url(url.0.clone()),
            RelayUrl::Unix(path) => relay::Target::Unix(path.clone()),
        },
        namespace: socketio.namespace.clone(),
        auth_token: socketio.auth_token.as_ref().map(|token| token.0.clone()),
        ack_timeout: socketio.ack_timeout,
        batch_max_events: socketio.batch_max_events,
        max_event_age: socketio.max_event_age,
    }
}

/// The Socket.IO server's share of the settings.
pub(super) fn server_settings(
    settings: &Settings,
    socketio: &SocketIoSettings,
) -> server::Settings {
    server::Settings {
        listen: socketio.listen,
        path: socketio.path.clone(),
        origins: match &socketio.cors_origins {
            CorsOrigins::Any => server::Origins::Any,
            CorsOrigins::These(origins) => server::Origins::Also(origins.clone()),
        },
        auth_token: socketio.auth_token.as_ref().map(|token| token.0.clone()),
        auth_url: socketio.auth_url.as_ref().map(|url| url.0.clone()),
        auth_timeout: socketio.auth_timeout,
        auth_cache: socketio.auth_cache,
        max_clients: socketio.max_clients,
        client_timeout: socketio.client_timeout,
        start_grace: socketio.start_grace,
        max_event_age: socketio.max_event_age,
        live_page: socketio.live_page,
        max_line_bytes: settings.max_line_bytes,
    }
}

fn kafka_sink(
    settings: &Settings,
    kafka: &KafkaSettings,
    clock: &Arc<dyn Clock>,
    mailbox: &Mailbox,
) -> Result<KafkaSink, SinkError> {
    let sink = kafka_settings(settings, kafka);
    let batch_bytes = sink.batch_bytes();
    let client = Librdkafka::new(sink, Arc::clone(clock));
    let bell = mailbox.clone();
    let reports = Reports::new(Box::new(move || bell.post(Event::SinkReported)));
    KafkaSink::new(Box::new(client), Arc::clone(clock), batch_bytes, reports)
        .map_err(SinkError::Kafka)
}

/// The sink's share of the settings.
pub(super) fn kafka_settings(settings: &Settings, kafka: &KafkaSettings) -> kafka::Settings {
    kafka::Settings {
        topic: kafka.topic.clone(),
        headers: kafka.headers,
        timestamp: match kafka.timestamp {
            EventTimestamp::Event => kafka::Timestamp::Event,
            EventTimestamp::Now => kafka::Timestamp::Now,
        },
        max_line_bytes: settings.max_line_bytes,
        max_records: settings.in_flight_records,
        properties: kafka.properties.iter().map(|p| (p.key.clone(), p.value.clone())).collect(),
    }
}
