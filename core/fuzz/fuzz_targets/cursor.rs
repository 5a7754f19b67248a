//! No bytes make the cursor's reader panic, and none but its own encoding pass as a cursor.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcp_sessions::{Cursor, SessionId};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (id, cursor) = text.split_once(' ').unwrap_or(("s1", text));
    if let Ok(session) = SessionId::new(id) {
        let accepted = Cursor::check(cursor, &session).is_ok();
        let other = SessionId::new("another-session").expect("a valid id");
        assert!(!accepted || other == session || Cursor::check(cursor, &other).is_err());
    }
});
