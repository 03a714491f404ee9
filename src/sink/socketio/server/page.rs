//! The live page: events as they arrive, for a person. Everything it needs is in the binary.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Response, StatusCode};

/// Where it is served.
pub(super) const PATH: &str = "/live";

/// Nothing from elsewhere, nothing inline: what an event says can't become code.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

const HTML: &str = include_str!("../live/index.html");

/// Stands in the page for the path that clients connect to.
const SOCKETIO_PATH: &str = "{{socketio_path}}";

const SCRIPT: &str = "text/javascript; charset=utf-8";

const HEADERS: [(HeaderName, &str); 4] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-cache"),
];

/// The files of the page, ready to be sent.
pub(super) struct Page {
    html: Bytes,
}

impl Page {
    pub(super) fn new(socketio_path: &str) -> Self {
        Self { html: HTML.replace(SOCKETIO_PATH, &escaped(socketio_path)).into() }
    }

    /// The answer for this path, if it is one of the page's.
    pub(super) fn answer(&self, method: &Method, path: &str) -> Option<Response<Full<Bytes>>> {
        let mut answer = self.file(path)?;
        if method != Method::GET && method != Method::HEAD {
            *answer.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            *answer.body_mut() = fixed("GET or HEAD\n").into();
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        Some(answer)
    }

    fn file(&self, path: &str) -> Option<Response<Full<Bytes>>> {
        let (kind, body) = match path.strip_prefix(PATH)? {
            "" => ("text/html; charset=utf-8", self.html.clone()),
            "/live.js" => (SCRIPT, fixed(include_str!("../live/live.js"))),
            "/live.css" => ("text/css; charset=utf-8", fixed(include_str!("../live/live.css"))),
            "/socket.io.min.js" => (SCRIPT, fixed(include_str!("../live/socket.io.min.js"))),
            _ => return None,
        };
        let mut response = Response::new(Full::new(body));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        for (name, value) in HEADERS {
            headers.insert(name, HeaderValue::from_static(value));
        }
        Some(response)
    }
}

fn fixed(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

/// For an attribute of the page.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_asks_for_nothing_from_elsewhere_and_every_file_it_names_is_there() {
        let page = Page::new("/a\"b/");
        let html = std::str::from_utf8(&page.html).unwrap();
        assert!(html.contains("data-socketio-path=\"/a&quot;b/\"") && !html.contains("{{"));
        // A namespace in the icon's picture is a name, not a place.
        let elsewhere = html.replace("xmlns='http://www.w3.org/2000/svg'", "");
        assert!(!elsewhere.contains("//"), "a URL of another place");
        let named: Vec<&str> =
            html.split(['"', '\'']).filter(|word| word.starts_with("live/")).collect();
        assert_eq!(named.len(), 3, "{named:?}");
        for file in named {
            let response = page.file(&format!("/{file}")).unwrap_or_else(|| panic!("no {file}"));
            assert_eq!(response.headers()[CONTENT_SECURITY_POLICY], POLICY);
        }
        assert!(page.file("/live/").is_none() && page.file("/livex").is_none());
    }
}
