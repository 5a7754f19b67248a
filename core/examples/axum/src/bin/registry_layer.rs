//! The registry behind a tower layer: what is inside sees only requests of live sessions, of their owners.
//!
//! `cargo run -p mcp-sessions-axum-examples --bin registry_layer` asks its own service a few things and ends.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response, StatusCode};
use axum::routing::{get, post};
use axum::{Extension, Router};
use mcp_sessions::{Engine, ErrorKind, Options, SessionId, SessionRecord, SessionRegistry};
use tower::{Layer, Service, ServiceExt as _};

/// Lets requests through that name a session (`Mcp-Session-Id`) of the caller's (`Authorization`); the
/// others are answered 404, whether the session is another's, has ended, or never was.
#[derive(Clone)]
struct SessionLayer {
    registry: SessionRegistry,
}

impl<S> Layer<S> for SessionLayer {
    type Service = Sessions<S>;

    fn layer(&self, inner: S) -> Sessions<S> {
        Sessions { registry: self.registry.clone(), inner }
    }
}

#[derive(Clone)]
struct Sessions<S> {
    registry: SessionRegistry,
    inner: S,
}

impl<S> Service<Request<Body>> for Sessions<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The one that is ready is used up; a clone takes its place.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let registry = self.registry.clone();
        Box::pin(async move {
            let found = match (header(&request, "mcp-session-id"), header(&request, "authorization")) {
                (Some(session), owner) => live(&registry, session, owner).await,
                (None, _) => Err(StatusCode::BAD_REQUEST),
            };
            match found {
                Ok((record, guard)) => {
                    request.extensions_mut().insert(Arc::new(record));
                    let answer = inner.call(request).await;
                    // Meanwhile the session was not stale, whatever the request took.
                    drop(guard);
                    answer
                }
                Err(status) => {
                    let mut refusal = Response::new(Body::empty());
                    *refusal.status_mut() = status;
                    Ok(refusal)
                }
            }
        })
    }
}

async fn live(
    registry: &SessionRegistry,
    session: &str,
    owner: Option<&str>,
) -> Result<(SessionRecord, mcp_sessions::RequestGuard), StatusCode> {
    let status = |error: mcp_sessions::Error| match error.kind() {
        ErrorKind::InvalidInput | ErrorKind::NotFound => StatusCode::NOT_FOUND,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let session = SessionId::new(session).map_err(status)?;
    let record = registry.get(&session, owner).await.map_err(status)?.ok_or(StatusCode::NOT_FOUND)?;
    Ok((record, registry.begin_request(&session).await.map_err(status)?))
}

fn header<'r>(request: &'r Request<Body>, name: &str) -> Option<&'r str> {
    request.headers().get(name)?.to_str().ok()
}

fn routes(engine: &Engine) -> Router {
    let registry = engine.registry().clone();
    let inside = Router::new()
        .route(
            "/session",
            get(async |Extension(record): Extension<Arc<SessionRecord>>| record.id.to_string()),
        )
        .layer(SessionLayer { registry: registry.clone() });
    let create = async |State(registry): State<SessionRegistry>, headers: axum::http::HeaderMap| {
        let owner = headers.get("authorization").and_then(|value| value.to_str().ok());
        registry
            .create(owner, None)
            .await
            .map(|id| id.to_string())
            .map_err(|_| StatusCode::SERVICE_UNAVAILABLE)
    };
    Router::new().route("/sessions", post(create)).with_state(registry).merge(inside)
}

#[tokio::main]
async fn main() -> mcp_sessions::Result<()> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "memory://".into());
    let engine = Engine::connect(&url, Options::default()).await?;
    let routes = routes(&engine);

    let (status, session) = ask(&routes, "POST", "/sessions", &[("authorization", "Bearer ada")]).await;
    println!("a session for ada: {status}");
    let asked = [("mcp-session-id", session.as_str()), ("authorization", "Bearer ada")];
    let (status, inside) = ask(&routes, "GET", "/session", &asked).await;
    println!("ada's request: {status}");
    assert_eq!((status, inside), (StatusCode::OK, session.clone()));

    let eve = [("mcp-session-id", session.as_str()), ("authorization", "Bearer eve")];
    let (status, _) = ask(&routes, "GET", "/session", &eve).await;
    println!("eve's request with ada's id: {status}");
    assert_eq!(status, StatusCode::NOT_FOUND);

    engine.registry().close(&SessionId::new(session.clone())?, "done").await?;
    let (status, _) = ask(&routes, "GET", "/session", &asked).await;
    println!("after its end: {status}");
    assert_eq!(status, StatusCode::NOT_FOUND);
    engine.shutdown(std::time::Duration::from_secs(5)).await
}

async fn ask(routes: &Router, method: &str, path: &str, headers: &[(&str, &str)]) -> (StatusCode, String) {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::empty()).expect("these make a request");
    let answer = match routes.clone().oneshot(request).await {
        Ok(answer) => answer,
        Err(never) => match never {},
    };
    let (head, body) = answer.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.expect("it is short");
    (head.status, String::from_utf8_lossy(&body).into_owned())
}
