//! A WebSocket to a gateway.

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config};

use super::address::{CloudflareAddress, encode};
use super::roots::tls;
use super::wire::{PING, PONG, PROTOCOL};
use crate::error::{Error, ErrorKind, Result};
use crate::session::NodeId;

/// One byte numbers them.
const MAX_SHARDS: usize = 256;
const OTHER_VERSION: &str = "the gateway speaks another version; use the same one on both sides";
/// What the platform lets through in one message.
const MAX_MESSAGE: usize = 32 << 20;

type Stream = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What goes out.
pub(super) enum Outgoing {
    Frame(Vec<u8>),
    Beat,
}

/// What comes in.
pub(super) enum Incoming {
    Frame(Vec<u8>),
    Beat,
}

/// Says how many objects share the sessions.
const SHARDS: &str = "MCP-Sessions-Shards";

/// A connection before it is in use.
pub(super) struct Socket {
    stream: Stream,
    /// How many objects are behind it.
    shards: usize,
}

/// Its two directions.
pub(super) struct Writer(SplitSink<Stream, Message>);
pub(super) struct Reader(SplitStream<Stream>);

impl Socket {
    /// Connects as a node.
    pub(super) async fn connect(address: &CloudflareAddress, node: &NodeId) -> Result<Self> {
        let url = format!("{}?node={node}&prefix={}", address.url, encode(&address.prefix));
        let wrong = || Error::new(ErrorKind::Config, "connect", "there can be no Worker at this URL");
        let mut request = url.into_client_request().map_err(|_| wrong())?;
        let headers = request.headers_mut();
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
        if let Some(authorization) = &address.authorization {
            let mut value = HeaderValue::from_str(authorization).map_err(|_| wrong())?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        let config =
            WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
        let tls = Connector::Rustls(tls()?);
        let connected = connect_async_tls_with_config(request, Some(config), true, Some(tls)).await;
        let (stream, response) = connected.map_err(|error| refused(&error))?;
        let told = response.headers().get(SHARDS).and_then(|count| count.to_str().ok()?.parse().ok());
        let shards = told.filter(|count| (1..=MAX_SHARDS).contains(count)).ok_or_else(other_version)?;
        Ok(Socket { stream, shards })
    }

    pub(super) fn shards(&self) -> usize {
        self.shards
    }

    pub(super) async fn write(&mut self, outgoing: Outgoing) -> bool {
        self.stream.send(message(outgoing)).await.is_ok()
    }

    pub(super) async fn read(&mut self) -> Option<Incoming> {
        next(&mut self.stream).await
    }

    pub(super) fn split(self) -> (Writer, Reader) {
        let (writer, reader) = self.stream.split();
        (Writer(writer), Reader(reader))
    }
}

impl Writer {
    /// Writes all of them before anything is flushed; false when the connection is gone.
    pub(super) async fn write_all(&mut self, batch: &mut Vec<Outgoing>) -> bool {
        for outgoing in batch.drain(..) {
            if self.0.feed(message(outgoing)).await.is_err() {
                return false;
            }
        }
        self.0.flush().await.is_ok()
    }

    pub(super) async fn close(&mut self) -> bool {
        self.0.close().await.is_ok()
    }
}

impl Reader {
    pub(super) async fn read(&mut self) -> Option<Incoming> {
        next(&mut self.0).await
    }
}

fn message(outgoing: Outgoing) -> Message {
    match outgoing {
        Outgoing::Frame(bytes) => Message::Binary(bytes.into()),
        Outgoing::Beat => Message::Text(PING.into()),
    }
}

async fn next<S>(stream: &mut S) -> Option<Incoming>
where
    S: futures_util::Stream<Item = std::result::Result<Message, SocketError>> + Unpin,
{
    loop {
        match stream.next().await?.ok()? {
            Message::Binary(bytes) => return Some(Incoming::Frame(bytes.into())),
            Message::Text(text) if text.as_str() == PONG => return Some(Incoming::Beat),
            Message::Ping(_) | Message::Pong(_) => {}
            _ => return None,
        }
    }
}

fn other_version() -> Error {
    Error::new(ErrorKind::Config, "connect", OTHER_VERSION)
}

/// Why there is no connection; no answer of the other end is repeated.
fn refused(error: &SocketError) -> Error {
    let status = match error {
        SocketError::Http(response) => Some(response.status()),
        _ => None,
    };
    let (kind, message) = match status {
        Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            (ErrorKind::Unauthorized, "the gateway refused the token")
        }
        Some(StatusCode::UPGRADE_REQUIRED) => (ErrorKind::Config, OTHER_VERSION),
        Some(status) if status.is_client_error() => {
            (ErrorKind::Config, "there is no gateway at this URL; a Worker serves it with gateway(env)")
        }
        _ => (ErrorKind::Unavailable, "the Worker can't be reached"),
    };
    match status {
        Some(status) => {
            Error::new(kind, "connect", message).with_source(format!("status {}", status.as_u16()))
        }
        None => Error::new(kind, "connect", message).with_source(error.to_string()),
    }
}
