//! What faults do to the registry: a backend that goes away halfway, callers that go away.

use std::time::Duration;

use futures_util::FutureExt as _;

use crate::fault_tests::{TestNode, eventually, id, nodes};
use crate::*;

fn options() -> Options {
    Options::from_json(r#"{"lease": {"ttlMs": 200, "renewMs": 50}, "registry": {"sweepMs": 50}}"#).unwrap()
}

fn registry(node: &TestNode) -> &SessionRegistry {
    node.engine.registry()
}

#[tokio::test]
async fn what_one_began_to_close_another_finishes() {
    let [a, b] = nodes(1, options()).await;
    let s1 = id("s1");
    registry(&a).register(&s1, Some("ada"), None).await.unwrap();
    a.engine.info().set_log_level(&s1, LogLevel::Info).await.unwrap();
    // Closing has begun when the node dies: nothing but the mark is there.
    let begun = backend::Backend::registry_close(a.memory(), &s1, "deleted").await.unwrap();
    assert_eq!(begun, backend::CloseStart::Begun);
    a.engine.abandon();
    assert!(!registry(&b).has(&s1).await.unwrap());
    assert_eq!(registry(&b).stats().await.unwrap().closing, 1);
    eventually("finished", || async {
        let record = registry(&b).peek(&s1).await.unwrap();
        record.is_some_and(|record| record.state == SessionState::Closed)
    })
    .await;
    assert!(b.engine.info().get(&s1).await.unwrap().is_none());
    assert_eq!(registry(&b).stats().await.unwrap().total, 0);
    assert!(registry(&b).get_by_owner("ada").await.unwrap().is_none());
}

#[tokio::test]
async fn a_close_goes_on_without_its_caller() {
    let [a, b] = nodes(2, options()).await;
    let s1 = id("s1");
    registry(&a).register(&s1, None, None).await.unwrap();
    a.close_gate();
    assert!(registry(&a).close(&s1, "deleted").now_or_never().is_none());
    a.open_gate();
    eventually("closed", || async {
        registry(&b).peek(&s1).await.unwrap().unwrap().state == SessionState::Closed
    })
    .await;
}

#[tokio::test]
async fn a_begun_request_that_nobody_waits_for_ends() {
    let [a, b] = nodes(3, options()).await;
    let s1 = id("s1");
    registry(&a).register(&s1, None, None).await.unwrap();
    a.close_gate();
    {
        let mut begin = Box::pin(registry(&a).begin_request(&s1));
        assert!((&mut begin).now_or_never().is_none());
    }
    a.open_gate();
    let request = registry(&a).begin_request(&s1).await.unwrap();
    eventually("one", || async { registry(&b).peek(&s1).await.unwrap().unwrap().active_requests == 1 }).await;
    request.end().await.unwrap();
    assert_eq!(registry(&b).peek(&s1).await.unwrap().unwrap().active_requests, 0);
}

#[tokio::test]
async fn a_lost_key_comes_back_from_a_node_that_has_it() {
    let [a] = nodes(4, options()).await;
    let s1 = id("s1");
    registry(&a).register(&s1, Some("ada"), None).await.unwrap();
    a.forget_owner_key();
    eventually("back", || async { a.owner_key().is_some() }).await;
    assert!(registry(&a).get(&s1, "ada").await.unwrap().is_some());
}

#[tokio::test]
async fn touches_are_coalesced() {
    let engine = Engine::connect("memory://touches?clock=manual", Options::default()).await.unwrap();
    let (registry, s1) = (engine.registry(), id("s1"));
    registry.register(&s1, None, None).await.unwrap();
    let seen = || async { registry.peek(&s1).await.unwrap().unwrap().last_access_ms };
    let first = seen().await;
    // A 20th of half an hour is 90 s.
    engine.advance_clock(Duration::from_secs(89)).await.unwrap();
    registry.get(&s1, None).await.unwrap().unwrap();
    assert_eq!(seen().await, first);
    engine.advance_clock(Duration::from_secs(2)).await.unwrap();
    registry.get(&s1, None).await.unwrap().unwrap();
    assert_eq!(seen().await, first + 91_000);
}

#[tokio::test]
async fn half_an_hour_is_stale_by_default() {
    let engine = Engine::connect("memory://half-an-hour?clock=manual", Options::default()).await.unwrap();
    let s1 = engine.registry().create(None, None).await.unwrap();
    engine.advance_clock(Duration::from_secs(29 * 60)).await.unwrap();
    assert!(engine.registry().has(&s1).await.unwrap());
    engine.advance_clock(Duration::from_secs(3 * 60)).await.unwrap();
    assert!(!engine.registry().has(&s1).await.unwrap());
}

#[tokio::test]
async fn nothing_is_left_after_the_tombstone() {
    let url = "memory://nothing-left?clock=manual";
    let engine = Engine::connect(url, Options::default()).await.unwrap();
    for n in 0..1_000 {
        let id = engine.registry().create(Some(&format!("owner-{}", n % 7)), None).await.unwrap();
        engine.events(&id).append("_GET_stream", "m").await.unwrap();
        engine.info().set_log_level(&id, LogLevel::Info).await.unwrap();
        drop(engine.registry().begin_request(&id).await.unwrap());
        assert!(engine.registry().close(&id, "deleted").await.unwrap());
    }
    engine.advance_clock(Duration::from_secs(3_600)).await.unwrap();
    let hub = crate::backend::memory::MemoryHub::named(
        Some("nothing-left"),
        true,
        crate::Runtime::native().clock(),
    );
    assert_eq!(hub.unwrap().left_over(), (0, 0, 0));
}
