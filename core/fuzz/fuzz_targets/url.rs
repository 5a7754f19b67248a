//! No URL or options make connecting panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcp_sessions::{Engine, ErrorKind, Options};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (url, options) = text.split_once('\n').unwrap_or((text, "{}"));
    let made = Options::from_json(options).and_then(|options| Engine::memory_with(url, options));
    if let Err(error) = made {
        assert_eq!(error.kind(), ErrorKind::Config);
    }
});
