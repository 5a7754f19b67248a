//! No text makes the readers of frames, filters, ids or info panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcp_sessions::{Engine, Json, LogLevel, RequestId, SubscriptionFilter, frame_prefix, is_frame};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if is_frame(text) {
        assert!(!is_frame(&(frame_prefix("cursor") + text)), "a frame with an id gets no second one");
    }
    let _ = SubscriptionFilter::from_json(text);
    let _ = text.parse::<LogLevel>();
    if let Ok(json) = Json::parse(text) {
        let _ = json.value();
    }
    if let Ok(id) = RequestId::from_json(text) {
        assert_eq!(RequestId::from_json(id.as_json()).expect("its own form"), id);
    }
    thread_local!(static ENGINE: Engine = Engine::memory());
    ENGINE.with(|engine| {
        let _ = engine.subscriptions().send_now(text);
    });
});
