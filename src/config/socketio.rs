//! What `SOCKETIO_…` keys mean to each other, as far as it can be seen from outside.

use std::net::SocketAddr;

use super::problem::{Problem, Scope};
use super::settings::{self, Listen, problem};
use super::values::Values;

/// Two servers can't have one port.
pub(super) fn check(values: &Values, problems: &mut Vec<Problem>) {
    let http = values.get("BRIDGE_HTTP_LISTEN").and_then(|text| settings::listen(&text));
    let own = values.get("SOCKETIO_LISTEN").and_then(|text| text.parse().ok());
    let (Some(Listen::Tcp(http)), Some(own)) = (http, own) else { return };
    if values.get("SOCKETIO_VIA").as_deref() == Some("server") && collide(http, own) {
        let why = format!(
            "has the port of BRIDGE_HTTP_LISTEN ({}): each needs one of its own",
            values.origin("BRIDGE_HTTP_LISTEN")
        );
        problems.push(problem(values, "SOCKETIO_LISTEN", Scope::SocketIo, why));
    }
}

fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let overlap = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.port() != 0 && overlap
}
