//! SSE frames (WHATWG HTML, "Server-sent events"): where a cursor goes.

/// Whether `payload` is one finished SSE frame that names no event id yet: it ends with a blank
/// line, has no blank line before, and no line of it is an `id` field.
///
/// ```
/// use mcp_sessions::is_frame;
/// assert!(is_frame("event: message\ndata: {}\n\n"));
/// assert!(!is_frame("{\"jsonrpc\":\"2.0\"}"));
/// assert!(!is_frame("id: 7\ndata: x\n\n"));
/// ```
pub fn is_frame(payload: &str) -> bool {
    let Some(body) = payload.as_bytes().strip_suffix(b"\n") else { return false };
    let body = body.strip_suffix(b"\r").unwrap_or(body);
    // What is left must end its last line and hold fields only.
    let Some(body) = body.strip_suffix(b"\n") else { return false };
    let mut has_field = false;
    let mut start = 0;
    // Payloads are mostly one long line: finding its end is most of the work.
    for end in memchr::memchr_iter(b'\n', body).chain([body.len()]) {
        match field(&body[start..end]) {
            Field::Id | Field::Blank => return false,
            Field::Known => has_field = true,
            Field::Other => {}
        }
        start = end + 1;
    }
    has_field
}

enum Field {
    Blank,
    Id,
    Known,
    Other,
}

fn field(line: &[u8]) -> Field {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    // No field's name is longer than `event` and `retry`.
    match line.iter().take(6).position(|byte| *byte == b':').map_or(line, |colon| &line[..colon]) {
        b"" if line.is_empty() => Field::Blank,
        b"id" => Field::Id,
        b"data" | b"event" | b"retry" => Field::Known,
        _ => Field::Other,
    }
}

/// The line that gives a frame its cursor; it stands before the frame.
pub fn frame_prefix(cursor: &str) -> String {
    format!("id: {cursor}\n")
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A reader of event streams as the HTML standard words it, for these tests only.
    fn parse(stream: &str) -> Vec<(Option<String>, String)> {
        let (mut events, mut id, mut data, mut any) = (Vec::new(), None, Vec::new(), false);
        for line in stream.replace("\r\n", "\n").split('\n') {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match name {
                "" if line.is_empty() => {
                    if any {
                        events.push((id.clone(), data.join("\n")));
                    }
                    data.clear();
                    any = false;
                }
                "data" => {
                    data.push(value.to_owned());
                    any = true;
                }
                "id" => id = Some(value.to_owned()),
                _ => {}
            }
        }
        events
    }

    proptest! {
        #[test]
        fn a_prefixed_frame_reads_as_the_same_event_with_an_id(
            data in "[^\r\n]{0,40}", event in proptest::option::of("[a-z]{1,8}"), crlf: bool, cursor in "[A-Za-z0-9_-]{1,64}",
        ) {
            let end = if crlf { "\r\n" } else { "\n" };
            let mut frame = event.map(|e| format!("event: {e}{end}")).unwrap_or_default();
            frame += &format!("data: {data}{end}{end}");
            prop_assert!(is_frame(&frame));
            let with_id = frame_prefix(&cursor) + &frame;
            prop_assert_eq!(parse(&with_id), vec![(Some(cursor), data)]);
            prop_assert!(!is_frame(&with_id));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,60}") {
            let _ = is_frame(&text);
        }

        #[test]
        fn two_frames_are_not_one(data in "[a-z]{1,5}") {
            let frame = format!("data: {data}\n\n");
            prop_assert!(!is_frame(&(frame.clone() + &frame)));
        }
    }
}
