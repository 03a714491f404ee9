//! What a value has to look like, kind by kind.
//!
//! A value that passes comes back in one canonical spelling, so that whoever builds the settings
//! has nothing left to refuse. What is said about one that does not pass never repeats it.

use std::net::{Ipv6Addr, SocketAddr};

/// The longest path of a Unix socket on Linux, in bytes.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Kafka's limit, since a topic's name is a part of file names there.
const TOPIC_BYTES_MAX: usize = 249;

/// A kind of value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A whole number: smallest, largest, and what is counted (may be empty).
    Number(i64, i64, &'static str),
    /// Canonical: `true` or `false`.
    Switch,
    /// One of these, whatever its case; canonical: the spelling here.
    OneOf(&'static [&'static str]),
    /// Some of these, separated by commas.
    Flags(&'static [&'static str]),
    /// What Kafka has to confirm before a line counts as delivered.
    Acks,
    /// A file or directory.
    Path,
    /// `off`, `unix:/path` or an address with a port.
    Listen,
    /// An address with a port.
    Address,
    /// Event types separated by commas, or, where that is allowed, `none`. Canonical: without blanks
    /// and empty items, so `none` is the empty text.
    Names {
        /// An empty list makes sense.
        or_none: bool,
    },
    /// The name of a Kafka topic.
    Topic,
    /// `host:port`, separated by commas. May hold credentials by mistake.
    Servers,
    /// `http://…` or `https://…`. May hold credentials.
    Url {
        /// How a socket file is written, which will do as well.
        unix: Unix,
    },
    /// `/…`, as in a URL.
    UrlPath,
    /// Any text of one line.
    Text,
    /// A text that is never printed, taken as it is. It may have several lines (PEM).
    Secret,
}

/// How a URL names a socket file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unix {
    /// `unix:/path`.
    Socket,
    /// `unix:/path:/page`, as nginx has it.
    SocketAndPage,
}

/// What is wrong with a value, to be read after the key.
pub(super) type Why = String;

impl Kind {
    /// The canonical spelling of `text`, which is not blank.
    pub(super) fn canonical(self, text: &str) -> Result<String, Why> {
        if self == Self::Secret {
            return if text.contains('\0') { err("has a NUL") } else { Ok(text.to_owned()) };
        }
        let text = text.trim();
        if text.contains('\n') {
            return err("has a line break: is a quote not closed?");
        }
        if text.contains(char::is_control) {
            return err("has a control character");
        }
        match self {
            Self::Number(min, max, unit) => number(text, min, max, unit),
            Self::Switch => switch(text),
            Self::OneOf(words) => one_of(text, words),
            Self::Flags(words) => flags(text, words),
            Self::Acks => acks(text),
            Self::Path => path(text),
            Self::Listen => listen(text),
            Self::Address => address(text),
            Self::Names { or_none } => names(text, or_none),
            Self::Topic => topic(text),
            Self::Servers => servers(text),
            Self::Url { unix } => url(text, unix),
            Self::UrlPath if text.starts_with('/') => unspaced(text),
            Self::UrlPath => err("does not begin with /"),
            Self::Text | Self::Secret => Ok(text.to_owned()),
        }
    }
}

impl Kind {
    /// A value for those that have no better example.
    pub(super) fn example(self) -> String {
        match self {
            Self::Number(min, max, _) => 1000.clamp(min, max).to_string(),
            Self::Switch => "true".to_owned(),
            Self::OneOf(words) | Self::Flags(words) => {
                words.first().copied().unwrap_or_default().to_owned()
            }
            _ => "...".to_owned(),
        }
    }
}

fn err<T>(why: &str) -> Result<T, Why> {
    Err(why.to_owned())
}

fn number(text: &str, min: i64, max: i64, unit: &str) -> Result<String, Why> {
    let of_unit = if unit.is_empty() { String::new() } else { format!(" of {unit}") };
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("is not a number{of_unit} ({min} to {max})"));
    }
    match text.parse::<i64>() {
        Ok(value) if (min..=max).contains(&value) => Ok(value.to_string()),
        _ => Err(format!("is out of range: a number{of_unit} from {min} to {max}")),
    }
}

fn switch(text: &str) -> Result<String, Why> {
    match text.to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" | "1" => Ok("true".to_owned()),
        "off" | "false" | "no" | "0" => Ok("false".to_owned()),
        _ => err("is neither on nor off (true and false, yes and no, 1 and 0 will do as well)"),
    }
}

fn one_of(text: &str, words: &[&str]) -> Result<String, Why> {
    match words.iter().find(|word| word.eq_ignore_ascii_case(text)) {
        Some(word) => Ok((*word).to_owned()),
        None => Err(format!("is not one of {}", words.join(", "))),
    }
}

fn flags(text: &str, words: &[&str]) -> Result<String, Why> {
    let flags: Result<Vec<String>, Why> =
        text.split(',').map(|flag| one_of(flag.trim(), words)).collect();
    match flags {
        Ok(flags) => Ok(flags.join(",")),
        Err(_) => Err(format!("is not a list of some of {}", words.join(", "))),
    }
}

fn acks(text: &str) -> Result<String, Why> {
    match text {
        "-1" => Ok("all".to_owned()),
        _ if text.eq_ignore_ascii_case("all") => Ok("all".to_owned()),
        _ if text.parse::<u32>().is_ok() => {
            err("is weaker than all: an event could count as delivered and be lost with one broker")
        }
        _ => err("is not all"),
    }
}

fn path(text: &str) -> Result<String, Why> {
    if text.starts_with('~') {
        return err("begins with ~, which is not expanded here: write the whole path");
    }
    Ok(text.to_owned())
}

fn listen(text: &str) -> Result<String, Why> {
    if text.eq_ignore_ascii_case("off") {
        return Ok("off".to_owned());
    }
    if let Some(path) = text.strip_prefix("unix:") {
        return unix_socket(path);
    }
    address(text).map_err(|why| format!("{why}; unix:/path and off will do as well"))
}

fn unix_socket(path: &str) -> Result<String, Why> {
    if !path.starts_with('/') || path.ends_with('/') {
        return err("is not unix: and the absolute path of a socket");
    }
    if path.len() > SOCKET_PATH_BYTES_MAX {
        return Err(format!("has a path of more than {SOCKET_PATH_BYTES_MAX} bytes"));
    }
    Ok(format!("unix:{path}"))
}

fn address(text: &str) -> Result<String, Why> {
    let numeric = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    match numeric.parse::<SocketAddr>() {
        Ok(address) => Ok(address.to_string()),
        Err(_) => err("is not an IP address and a port (of names, only localhost is known)"),
    }
}

fn names(text: &str, or_none: bool) -> Result<String, Why> {
    if or_none && text.eq_ignore_ascii_case("none") {
        return Ok(String::new());
    }
    let names: Vec<&str> = text.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    let odd = |name: &&str| name.contains(|c: char| c.is_whitespace() || "\"'`[]{}()".contains(c));
    if names.is_empty() {
        return err("names no event type");
    }
    if names.iter().any(odd) {
        return err("is not a list of event types separated by commas");
    }
    Ok(names.join(","))
}

fn topic(text: &str) -> Result<String, Why> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if text.len() > TOPIC_BYTES_MAX {
        return Err(format!("is longer than the {TOPIC_BYTES_MAX} characters of a topic"));
    }
    if !text.bytes().all(legal) || text == "." || text == ".." {
        return err("is not a topic name (letters, digits, dot, underscore and hyphen)");
    }
    Ok(text.to_owned())
}

fn servers(text: &str) -> Result<String, Why> {
    if text.contains('@') {
        return err(
            "has credentials; they belong into KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD",
        );
    }
    if text.contains("://") {
        return err("has a protocol; it belongs into KAFKA_SECURITY_PROTOCOL");
    }
    let servers: Vec<&str> = text.split(',').map(str::trim).filter(|s| !s.is_empty()).collect();
    if servers.is_empty() {
        return err("names no server");
    }
    match servers.iter().position(|server| !is_host_and_port(server)) {
        None => Ok(servers.join(",")),
        Some(at) => Err(format!(
            "is not a list of host:port separated by commas: look at number {} of {}",
            at + 1,
            servers.len()
        )),
    }
}

fn is_host_and_port(server: &str) -> bool {
    let Some((host, port)) = server.rsplit_once(':') else { return false };
    let port_is_good =
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port != 0);
    let legal = |c: char| c.is_alphanumeric() || "._-".contains(c);
    let host_is_good = if let Some(v6) = host.strip_prefix('[') {
        v6.strip_suffix(']').is_some_and(|v6| v6.parse::<Ipv6Addr>().is_ok())
    } else {
        !host.is_empty() && host.chars().all(legal)
    };
    port_is_good && host_is_good
}

fn url(text: &str, unix: Unix) -> Result<String, Why> {
    if let Some(path) = text.strip_prefix("unix:") {
        return match (unix, path.split_once(":/")) {
            (Unix::Socket, _) => unix_socket(path),
            (Unix::SocketAndPage, Some((socket, page))) => {
                Ok(format!("{}:/{}", unix_socket(socket)?, unspaced(page)?))
            }
            _ => err("does not name a page behind the socket, as in unix:/path:/page"),
        };
    }
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    match rest {
        Some(rest) if !rest.is_empty() && !rest.starts_with('/') => unspaced(text),
        _ if unix == Unix::Socket => err("is neither http://…, https://… nor unix:/path"),
        _ => err("is neither http://…, https://… nor unix:/path:/page"),
    }
}

fn unspaced(text: &str) -> Result<String, Why> {
    if text.contains(char::is_whitespace) { err("has a blank") } else { Ok(text.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(kind: Kind, text: &str, expected: Result<&str, &str>) {
        match (kind.canonical(text), expected) {
            (Ok(value), Ok(expected)) => assert_eq!(value, expected, "{text:?}"),
            (Err(why), Err(part)) => assert!(why.contains(part), "{text:?}: {why}"),
            (got, _) => panic!("{text:?}: {got:?}"),
        }
    }

    #[test]
    fn numbers() {
        let kind = Kind::Number(-1, 10, "bytes");
        for (text, expected) in
            [("-1", "-1"), ("10", "10"), (" 007 ", "7"), ("0", "0"), ("-0", "0")]
        {
            check(kind, text, Ok(expected));
        }
        for text in ["", "-", "+1", "1k", "1_0", "1.0", "0x1", "٣", "1 0", "--1"] {
            check(kind, text, Err("is not a number of bytes (-1 to 10)"));
        }
        for text in ["-2", "11", "99999999999999999999"] {
            check(kind, text, Err("is out of range: a number of bytes from -1 to 10"));
        }
        check(Kind::Number(0, 7, ""), "x", Err("is not a number (0 to 7)"));
    }

    #[test]
    fn words() {
        check(Kind::Switch, "TRUE", Ok("true"));
        check(Kind::Switch, "Off", Ok("false"));
        check(Kind::Switch, "enabled", Err("neither on nor off"));
        check(Kind::OneOf(&["SOCKETIO", "KAFKA"]), "kafka", Ok("KAFKA"));
        check(Kind::OneOf(&["SOCKETIO", "KAFKA"]), "both", Err("not one of SOCKETIO, KAFKA"));
        check(Kind::Flags(&["msg", "all"]), "MSG, all", Ok("msg,all"));
        check(Kind::Flags(&["msg", "all"]), "msg,", Err("list of some of msg, all"));
        check(Kind::Acks, "ALL", Ok("all"));
        check(Kind::Acks, "-1", Ok("all"));
        check(Kind::Acks, "1", Err("weaker"));
        check(Kind::Acks, "any", Err("is not all"));
    }

    #[test]
    fn addresses() {
        check(Kind::Listen, "OFF", Ok("off"));
        check(Kind::Listen, "unix:/run/a.sock", Ok("unix:/run/a.sock"));
        check(Kind::Listen, "unix:run/a.sock", Err("absolute path of a socket"));
        check(Kind::Listen, &format!("unix:/{}", "x".repeat(107)), Err("107 bytes"));
        check(Kind::Listen, "[::1]:0", Ok("[::1]:0"));
        check(Kind::Listen, "9820", Err("unix:/path and off"));
        check(Kind::Address, "localhost:5055", Ok("127.0.0.1:5055"));
        for text in ["off", ":5055", "*:5055", "example.org:80", "127.0.0.1", "127.0.0.1:65536"] {
            check(Kind::Address, text, Err("not an IP address and a port"));
        }
    }

    #[test]
    fn lists() {
        let types = Kind::Names { or_none: false };
        check(types, " a , b,,c-d.e ", Ok("a,b,c-d.e"));
        check(types, "none", Ok("none"));
        check(Kind::Names { or_none: true }, "None", Ok(""));
        check(types, " , ", Err("names no event type"));
        check(types, "a b", Err("separated by commas"));
        check(types, "[\"a\"]", Err("separated by commas"));
    }

    #[test]
    fn kafka_names() {
        check(Kind::Topic, "a.B_c-9", Ok("a.B_c-9"));
        check(Kind::Topic, &"x".repeat(249), Ok(&"x".repeat(249)));
        check(Kind::Topic, &"x".repeat(250), Err("longer than the 249"));
        for text in [".", "..", "a b", "a/b", "ä"] {
            check(Kind::Topic, text, Err("is not a topic name"));
        }
        check(Kind::Servers, " b1:9092 , [::1]:9093, ", Ok("b1:9092,[::1]:9093"));
        check(Kind::Servers, "a:1,b", Err("number 2 of 2"));
        for text in ["b", "b:", ":1", "b:0", "b:65536", "b:+1", "::1:9092", "[x]:1", "a b:1"] {
            check(Kind::Servers, text, Err("host:port"));
        }
        check(Kind::Servers, "SSL://b:1", Err("KAFKA_SECURITY_PROTOCOL"));
        check(Kind::Servers, "u:p@b:1", Err("KAFKA_SASL_USERNAME"));
        check(Kind::Servers, ",", Err("names no server"));
    }

    #[test]
    fn paths_and_texts() {
        check(Kind::Path, " /a b/c ", Ok("/a b/c"));
        check(Kind::Path, "~/x", Err("not expanded"));
        check(Kind::Path, "/a\nKAFKA_X=1", Err("is a quote not closed?"));
        check(Kind::Text, "a\0b", Err("control character"));
        check(Kind::Secret, " a\nb ", Ok(" a\nb "));
        check(Kind::Secret, "a\0b", Err("NUL"));
        let (socket, page) =
            (Kind::Url { unix: Unix::Socket }, Kind::Url { unix: Unix::SocketAndPage });
        check(page, "https://h/p", Ok("https://h/p"));
        check(page, "ftp://h/p", Err("neither http"));
        check(page, "unix:/a", Err("does not name a page"));
        check(page, "unix:/run/a.sock:/b/c?d", Ok("unix:/run/a.sock:/b/c?d"));
        check(page, "unix:a:/b", Err("absolute path of a socket"));
        check(page, "unix:/a:/b c", Err("has a blank"));
        check(socket, "unix:/a", Ok("unix:/a"));
        check(socket, "http://", Err("nor unix:/path"));
        check(socket, "http://a b", Err("has a blank"));
        check(Kind::UrlPath, "/socket.io/", Ok("/socket.io/"));
        check(Kind::UrlPath, "socket.io", Err("does not begin with /"));
    }
}
